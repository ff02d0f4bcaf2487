// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "model/device_traits.h"
#include "model/options.h"

namespace neoloom::model {

enum class AttentionKernel {
  kMath,   // batched matmuls and a softmax in fp32, by blocks of queries, sample by sample
  kFlash,  // flash attention over packed rows, 16-bit inputs; deterministic when LibTorch is told to be
  kCudnn,  // cuDNN's fused attention over packed rows, 16-bit inputs; its backward is not deterministic
};

/// Chooses the kernel of one layer. `window` 0: global. Flash attention needs 16-bit inputs, a head size of at most 128
/// that is a multiple of 8, and compute capability 8.0. cuDNN is faster on Hopper (9.x) but has no window, and is
/// chosen only with runtime.deterministic: false. Everything else uses kMath.
AttentionKernel choose_attention(const DeviceTraits& device, Dtype compute_dtype, int64_t head_size, int64_t window);

/// A layer's window as flash attention's arguments: window_size_left without the token itself and window_size_right 0;
/// on global layers only is_causal.
struct SlidingWindow {
  bool causal = false;
  std::optional<int64_t> left, right;
};
SlidingWindow sliding_window(int64_t window);

/// For the log: "flash attention, causal, window 256".
std::string describe_attention(AttentionKernel kernel, int64_t window);
std::string describe_attention(const std::string& kernel, int64_t window);

}  // namespace neoloom::model
