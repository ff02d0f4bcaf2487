// SPDX-License-Identifier: Apache-2.0
#include "model/lora/dora.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/sum.h>

#include <algorithm>

namespace neoloom::model {

namespace {
constexpr int64_t kSliceElements = int64_t{1} << 20;  // of the fp32 copy of a 16-bit weight
}

void Dora::set_norm(const at::Tensor& values) {
  norm = values;
  gain = magnitude.div(values);
}

void Dora::write_gradient(const at::Tensor& dy, const at::Tensor& unscaled) const {
  at::Tensor out = magnitude_grad;
  at::sum_out(out, dy.mul(unscaled), {0});
  out.div_(norm);
}

at::Tensor row_squares(const at::Tensor& weight) {
  const int64_t rows = weight.size(0);
  const int64_t step = std::clamp<int64_t>(kSliceElements / weight.size(1), 1, rows);
  at::Tensor squares = at::empty({rows}, weight.options().dtype(at::kFloat));
  for (int64_t begin = 0; begin < rows; begin += step) {
    const int64_t count = std::min(step, rows - begin);
    at::Tensor part = squares.narrow(0, begin, count);
    at::sum_out(part, weight.narrow(0, begin, count).to(at::kFloat).square(), {1});
  }
  return squares;
}

at::Tensor row_norms(const LowRankSum& sum) {
  const at::Tensor gram = at::mm(sum.a, sum.a.t());  // [r, r]
  const at::Tensor twice = sum.projected.t().mul(2.0 * sum.scaling).add(at::mm(sum.b, gram), sum.scaling * sum.scaling);
  return at::sum(twice.mul(sum.b), {1}).add_(sum.weight_squares).sqrt_();
}

}  // namespace neoloom::model
