// SPDX-License-Identifier: Apache-2.0
#include "model/activation.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/gelu_backward.h>

#include "model/cpu_kernels.h"

namespace neoloom::model {

namespace {
constexpr int64_t kElementsPerTask = 16384;
constexpr const char* kApproximation = "tanh";
}  // namespace

at::Tensor gelu_new(const at::Tensor& x) {
  if (!x.is_cpu()) return at::gelu(x, kApproximation);
  at::Tensor y = at::empty_like(x);
  const float* const source = x.const_data_ptr<float>();
  float* const target = y.mutable_data_ptr<float>();
  at::parallel_for(0, x.numel(), kElementsPerTask,
                   [&](int64_t begin, int64_t end) { cpu::gelu(source + begin, target + begin, end - begin); });
  return y;
}

at::Tensor gelu_new_backward(at::Tensor dy, const at::Tensor& x) {
  if (!x.is_cpu()) return at::gelu_backward(dy, x, kApproximation);
  const float* const source = x.const_data_ptr<float>();
  float* const target = dy.mutable_data_ptr<float>();
  at::parallel_for(0, x.numel(), kElementsPerTask, [&](int64_t begin, int64_t end) {
    cpu::gelu_backward(target + begin, source + begin, target + begin, end - begin);
  });
  return dy;
}

}  // namespace neoloom::model
