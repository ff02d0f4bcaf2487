// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "model/device_traits.h"
#include "model/options.h"

namespace neoloom::model {

enum class AttentionKernel {
  kMath,   // blocks of queries: batched products and a softmax in fp32, sample by sample
  kFlash,  // flash attention over packed rows, 16-bit inputs; deterministic when LibTorch is told to be
  kCudnn,  // cuDNN's fused attention over packed rows, 16-bit inputs; its backward is not deterministic
};

/// The kernel of one layer. `window` 0: global. Flash attention takes 16-bit inputs and heads of up to 128 channels in
/// steps of 8, from compute capability 8.0 on; cuDNN is faster on Hopper (9.x), has no window, and is chosen only where
/// the bits of a run need not repeat; samples of unlike lengths go to flash attention there, too. Everything else
/// computes in fp32.
AttentionKernel choose_attention(const DeviceTraits& device, Dtype compute_dtype, int64_t head_size, int64_t window);

/// What a flash kernel is told of a layer's window: how many tokens to the left, without the token itself, and that
/// there is none to the right; on global layers only that it is causal.
struct SlidingWindow {
  bool causal = false;
  std::optional<int64_t> left, right;
};
SlidingWindow sliding_window(int64_t window);

/// For the log: "flash attention, causal, window 256".
std::string describe_attention(AttentionKernel kernel, int64_t window);
std::string describe_attention(const std::string& kernel, int64_t window);

}  // namespace neoloom::model
