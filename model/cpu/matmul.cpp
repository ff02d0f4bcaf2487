// SPDX-License-Identifier: Apache-2.0
#include "model/cpu/matmul.h"
#include "model/scalar_type.h"

#include <ATen/ops/addmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/zeros.h>

#include <algorithm>

#include "model/cpu/aligned_rows.h"
#include "model/cpu/gelu.h"

namespace neoloom::model {

namespace {

int64_t slice_rows(const at::Tensor& weight) {
  return std::clamp<int64_t>(Matmul::kScratchElements / weight.size(1), 1, weight.size(0));
}

/// Adds all terms but the bias.
void add_terms(at::Tensor& y, const Epilogue& terms) {
  if (terms.low_rank_u.defined()) y.addmm_(terms.low_rank_u, terms.low_rank_v);
  if (terms.residual.defined()) y.add_(terms.residual);
}

}  // namespace

at::ScalarType Matmul::input_type() const { return scalar_type(compute_dtype_); }

bool Matmul::multiplies_16bit(const at::Tensor& weight) const {
  return (weight.is_cpu() ? cpu_compute_dtype(compute_dtype_) : compute_dtype_) != Dtype::kFloat32;
}

at::Tensor Matmul::fp32_rows(const at::Tensor& weight, int64_t begin, int64_t rows) {
  at::Tensor source = weight.narrow(0, begin, rows);
  if (weight.scalar_type() == at::kFloat) return source;
  const int64_t elements = rows * weight.size(1);
  if (!scratch_.defined() || scratch_.numel() < elements || scratch_.device() != weight.device()) {
    scratch_ =
        at::empty({std::max(elements, std::min(kScratchElements, weight.numel()))}, weight.options().dtype(at::kFloat));
  }
  at::Tensor fp32 = scratch_.narrow(0, 0, elements).view({rows, weight.size(1)});
  fp32.copy_(source);
  return fp32;
}

at::Tensor Matmul::plain_forward(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
  if (multiplies_16bit(weight)) {
    at::Tensor y = at::linear(x.to(input_type()), weight.to(input_type())).to(at::kFloat);
    if (bias.defined()) y.add_(bias);
    return y;
  }
  if (weight.scalar_type() == at::kFloat) return at::linear(x, weight, bias);
  at::Tensor y = at::empty({x.size(0), weight.size(0)}, x.options());
  const int64_t step = slice_rows(weight);
  for (int64_t begin = 0; begin < weight.size(0); begin += step) {
    const int64_t rows = std::min(step, weight.size(0) - begin);
    at::Tensor part = y.narrow(1, begin, rows);
    const at::Tensor fp32 = fp32_rows(weight, begin, rows);
    if (bias.defined()) {
      at::addmm_out(part, bias.narrow(0, begin, rows), x, fp32.t());
    } else {
      at::mm_out(part, x, fp32.t());
    }
  }
  return y;
}

at::Tensor Matmul::plain_input_gradient(const at::Tensor& dy, const at::Tensor& weight) {
  if (multiplies_16bit(weight)) return at::mm(dy.to(input_type()), weight.to(input_type())).to(at::kFloat);
  const int64_t step = slice_rows(weight);
  if (weight.scalar_type() == at::kFloat) return at::mm(dy, weight);
  at::Tensor dx = at::mm(dy.narrow(1, 0, step), fp32_rows(weight, 0, step));
  for (int64_t begin = step; begin < weight.size(0); begin += step) {
    const int64_t rows = std::min(step, weight.size(0) - begin);
    dx.addmm_(dy.narrow(1, begin, rows), fp32_rows(weight, begin, rows));
  }
  return dx;
}

void Matmul::add_plain_input_gradient(at::Tensor& dx, const at::Tensor& dy, const at::Tensor& weight) {
  if (multiplies_16bit(weight)) {
    dx.add_(at::mm(dy.to(input_type()), weight.to(input_type())));
    return;
  }
  if (weight.scalar_type() == at::kFloat) {
    dx.addmm_(dy, weight);
    return;
  }
  const int64_t step = slice_rows(weight);
  for (int64_t begin = 0; begin < weight.size(0); begin += step) {
    const int64_t rows = std::min(step, weight.size(0) - begin);
    dx.addmm_(dy.narrow(1, begin, rows), fp32_rows(weight, begin, rows));
  }
}

bool Matmul::uses_packed_gemm(const Matrix& weight) const {
  return weight.packed_weights.forward.defined() && has_packed_gemm(compute_dtype_);
}

/// Returns x in the input type, with an even number of columns where packed weights have interleaved pairs of rows.
at::Tensor Matmul::gemm_a(const at::Tensor& x) const {
  if (compute_dtype_ == Dtype::kFloat32) return x.stride(1) == 1 ? x : x.contiguous();
  if (x.size(1) % 2 == 0) return x.to(input_type());
  at::Tensor even = at::zeros({x.size(0), x.size(1) + 1}, x.options().dtype(input_type()));
  even.narrow(1, 0, x.size(1)).copy_(x);
  return even;
}

at::ScalarType Matmul::input_type(const Matrix& weight) const {
  const bool even = weight.plain.size(0) % 2 == 0 && weight.plain.size(1) % 2 == 0;
  return even && uses_packed_gemm(weight) ? input_type() : at::kFloat;
}

GemmB Matmul::backward_b(const Matrix& weight) const {
  const at::Tensor& packed_weights = weight.packed_weights.backward;
  const int64_t k = weight.plain.size(0);
  return {packed_weights.defined() ? packed_weights : weight.plain, packed_weights.defined() ? k + k % 2 : k,
          weight.plain.size(1)};
}

at::Tensor Matmul::unfused_forward(const at::Tensor& x, const at::Tensor& weight, const Epilogue& terms) {
  at::Tensor y = plain_forward(x, weight, terms.scale.defined() ? at::Tensor() : terms.bias);
  if (terms.scale.defined()) {
    y.mul_(terms.scale);
    if (terms.bias.defined()) y.add_(terms.bias);
  }
  add_terms(y, terms);
  return y;
}

void Matmul::packed_forward(const at::Tensor& x, const Matrix& weight, const Epilogue& terms,
                            const EpilogueOutputs& ends) const {
  const at::Tensor left = gemm_a(x);
  packed_gemm(left, {weight.packed_weights.forward, left.size(1), weight.plain.size(0)}, terms, ends);
}

at::Tensor Matmul::forward(const at::Tensor& x, const Matrix& weight, const Epilogue& terms, at::ScalarType type) {
  if (!uses_packed_gemm(weight)) return unfused_forward(x, weight.plain, terms).to(type);
  at::Tensor y = empty_rows(x.size(0), weight.plain.size(0), x.options().dtype(type));
  packed_forward(x, weight, terms, {.y = y});
  return y;
}

void Matmul::forward_into(at::Tensor& y, const at::Tensor& x, const Matrix& weight, const Epilogue& terms) {
  if (uses_packed_gemm(weight)) {
    packed_forward(x, weight, terms, {.y = y});
  } else {
    y = forward(x, weight, terms);
  }
}

Matmul::Activated Matmul::forward_activated(const at::Tensor& x, const Matrix& weight, const Epilogue& terms,
                                            GeluKeeps keeps) {
  Activated result;
  result.saved.keeps = keeps;
  at::Tensor& kept = result.saved.values;
  if (!uses_packed_gemm(weight)) {
    kept = unfused_forward(x, weight.plain, terms);
    result.values = keeps == GeluKeeps::kSlope ? gelu_new_leaving_slope(kept) : gelu_new(kept);
    return result;
  }
  const int64_t columns = weight.plain.size(0);
  const auto options = x.options().dtype(input_type(weight));
  result.values = empty_rows(x.size(0), columns, options);
  kept = at::empty(activation_tiles_shape(x.size(0), columns), options);
  packed_forward(x, weight, terms, {.y = kept, .activated = result.values, .keeps = keeps});
  return result;
}

at::Tensor Matmul::input_gradient(const at::Tensor& dy, const Matrix& weight, const Epilogue& terms,
                                  at::ScalarType type, const SavedGelu& through) {
  const at::Tensor& saved = through.values;
  if (!uses_packed_gemm(weight)) {
    at::Tensor dx = plain_input_gradient(dy, weight.plain);
    add_terms(dx, terms);
    if (!saved.defined()) return dx.to(type);
    return through.keeps == GeluKeeps::kSlope ? dx.mul_(saved) : gelu_new_backward(dx, saved);
  }
  at::Tensor dx =
      empty_rows(dy.size(0), weight.plain.size(1), dy.options().dtype(saved.defined() ? saved.scalar_type() : type));
  packed_gemm(gemm_a(dy), backward_b(weight), terms, {.y = dx, .through = through});
  return dx;
}

void Matmul::add_input_gradient(at::Tensor& dx, const at::Tensor& dy, const Matrix& weight, const Epilogue& terms) {
  if (uses_packed_gemm(weight)) {
    if (terms.residual.defined()) dx.add_(terms.residual);
    packed_gemm(gemm_a(dy), backward_b(weight),
                {.residual = dx, .low_rank_u = terms.low_rank_u, .low_rank_v = terms.low_rank_v}, {.y = dx});
    return;
  }
  add_plain_input_gradient(dx, dy, weight.plain);
  add_terms(dx, terms);
}

}  // namespace neoloom::model
