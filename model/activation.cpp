// SPDX-License-Identifier: Apache-2.0
#include "model/activation.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/gelu_backward.h>

#include "model/cpu_kernels.h"

namespace neoloom::model {

namespace {
constexpr int64_t kElementsPerTask = 16384;
constexpr const char* kApproximation = "tanh";

/// Calls body(target, begin, count) for shares of the fp32 or bfloat16 tensor.
template <typename Body>
void over_elements(at::Tensor& tensor, Body body) {
  void* const values = tensor.mutable_data_ptr();
  const bool narrow = tensor.scalar_type() == at::kBFloat16;
  at::parallel_for(0, tensor.numel(), kElementsPerTask, [&](int64_t begin, int64_t end) {
    if (narrow) {
      body(static_cast<uint16_t*>(values) + begin, begin, end - begin);
    } else {
      body(static_cast<float*>(values) + begin, begin, end - begin);
    }
  });
}

}  // namespace

at::Tensor gelu_new(const at::Tensor& x, at::ScalarType result) {
  if (!x.is_cpu()) return at::gelu(x, kApproximation);
  at::Tensor y = at::empty(x.sizes(), x.options().dtype(result));
  const float* const source = x.const_data_ptr<float>();
  over_elements(y, [&](auto* target, int64_t begin, int64_t count) { cpu::gelu(source + begin, target, count); });
  return y;
}

at::Tensor gelu_new_backward(const at::Tensor& dy, const at::Tensor& x, at::ScalarType result) {
  if (!x.is_cpu()) return at::gelu_backward(dy, x, kApproximation);
  const float* const source = x.const_data_ptr<float>();
  const float* const gradient = dy.const_data_ptr<float>();
  at::Tensor dx = result == at::kFloat ? dy : at::empty(dy.sizes(), dy.options().dtype(result));
  over_elements(dx, [&](auto* target, int64_t begin, int64_t count) {
    cpu::gelu_backward(gradient + begin, source + begin, target, count);
  });
  return dx;
}

}  // namespace neoloom::model
