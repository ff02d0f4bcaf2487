// SPDX-License-Identifier: Apache-2.0
#include "model/cpu/gelu.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/gelu_backward.h>

#include "model/cpu/elementwise.h"

namespace neoloom::model {

namespace {

constexpr int64_t kElementsPerTask = 16384;
constexpr const char* kApproximation = "tanh";

uint16_t* bits_of(const at::Tensor& x) { return static_cast<uint16_t*>(x.data_ptr()); }

}  // namespace

at::Tensor gelu_new(const at::Tensor& x) {
  if (!x.is_cpu()) return at::gelu(x, kApproximation);
  at::Tensor y = at::empty(x.sizes(), x.options());
  const bool is_bf16 = x.scalar_type() == at::kBFloat16;
  at::parallel_for(0, x.numel(), kElementsPerTask, [&](int64_t begin, int64_t end) {
    if (is_bf16) {
      cpu::gelu(cpu::LowpRows{bits_of(x) + begin, 0, 1, end - begin}, bits_of(y) + begin, 0);
    } else {
      cpu::gelu(cpu::Rows{x.const_data_ptr<float>() + begin, 0, 1, end - begin}, y.mutable_data_ptr<float>() + begin,
                0);
    }
  });
  return y;
}

at::Tensor gelu_new_leaving_slope(at::Tensor& x) {
  at::Tensor y = at::empty(x.sizes(), x.options());
  auto* const values = x.mutable_data_ptr<float>();
  at::parallel_for(0, x.numel(), kElementsPerTask, [&](int64_t begin, int64_t end) {
    cpu::gelu_and_slope({values + begin, 0, 1, end - begin}, y.mutable_data_ptr<float>() + begin, 0, values + begin, 0);
  });
  return y;
}

at::Tensor gelu_new_backward(const at::Tensor& dy, const at::Tensor& x) {
  if (!x.is_cpu()) return at::gelu_backward(dy, x, kApproximation);
  const float* const source = x.const_data_ptr<float>();
  at::Tensor dx = dy;
  auto* const gradient = dx.mutable_data_ptr<float>();
  at::parallel_for(0, dx.numel(), kElementsPerTask, [&](int64_t begin, int64_t end) {
    cpu::gelu_backward({gradient + begin, 0, 1, end - begin}, source + begin, 0, gradient + begin, 0);
  });
  return dx;
}

}  // namespace neoloom::model
