// SPDX-License-Identifier: Apache-2.0
#include "model/cuda/attention_choice.h"

#include <fmt/format.h>

#include "runtime/core/error.h"

namespace neoloom::model {

namespace {

constexpr int64_t kLargestHead = 128;  // channels; some devices lack backward kernels for larger ones
constexpr int64_t kHeadStep = 8;
constexpr int kHopper = 9;

const char* kernel_name(AttentionKernel kernel) {
  switch (kernel) {
    case AttentionKernel::kMath:
      return "batched matmuls in fp32";
    case AttentionKernel::kFlash:
      return "flash attention";
    case AttentionKernel::kCudnn:
      return "cuDNN attention (not deterministic) for samples of one length, else flash";
  }
  core::fail(core::ErrorKind::kInternal, "attention kernel {} has no name", static_cast<int>(kernel));
}

}  // namespace

AttentionKernel choose_attention(const DeviceTraits& device, Dtype compute_dtype, int64_t head_size, int64_t window) {
  const bool fits = head_size <= kLargestHead && head_size % kHeadStep == 0;
  if (!device.cuda || compute_dtype == Dtype::kFloat32 || !fits || !device.at_least(8, 0)) {
    return AttentionKernel::kMath;
  }
  const bool cudnn = window == 0 && device.capability_major == kHopper && !device.deterministic;
  return cudnn ? AttentionKernel::kCudnn : AttentionKernel::kFlash;
}

SlidingWindow sliding_window(int64_t window) {
  if (window == 0) return {.causal = true, .left = {}, .right = {}};
  return {.causal = false, .left = window - 1, .right = 0};
}

std::string describe_attention(AttentionKernel kernel, int64_t window) {
  return describe_attention(std::string(kernel_name(kernel)), window);
}

std::string describe_attention(const std::string& kernel, int64_t window) {
  return fmt::format("{}, causal{}", kernel, window > 0 ? fmt::format(", window {}", window) : "");
}

}  // namespace neoloom::model
