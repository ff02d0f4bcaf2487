// SPDX-License-Identifier: Apache-2.0
#include "model/gpt_neo/linear.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/native_layer_norm.h>
#include <ATen/ops/native_layer_norm_backward.h>
#include <ATen/ops/sum.h>

#include "model/cpu/aligned_rows.h"

namespace neoloom::model {

namespace {

constexpr int64_t kRowsPerTask = 16;

cpu::Rows rows_of(const at::Tensor& x, int64_t begin, int64_t end) {
  return {x.const_data_ptr<float>() + begin * x.stride(0), x.stride(0), end - begin, x.size(1)};
}

}  // namespace

Linear::ForwardGemm Linear::forward_gemm(Matmul& matmul, const at::Tensor& x, const std::vector<RowKey>& keys,
                                         at::Tensor* down, const at::Tensor& residual) const {
  ForwardGemm gemm = {x, {.bias = bias, .residual = residual}};
  if (!lora.present()) return gemm;
  const at::Tensor dropped = lora.dropped(x, keys);
  const at::Tensor down_out = lora.down(dropped);
  lora.join_forward(x, down_out, gemm.terms);
  if (down != nullptr) *down = down_out;
  if (lora.dora.present() && lora.dropout.active()) {  // PEFT scales W drop(x), but leaves the rest of W x as it is
    gemm.terms.residual = matmul.forward(x.sub(dropped), weight, {.residual = residual});
    gemm.x = dropped;
  }
  return gemm;
}

at::Tensor Linear::forward(Matmul& matmul, const at::Tensor& x, const std::vector<RowKey>& keys, at::Tensor* down,
                           const at::Tensor& residual, at::ScalarType type) const {
  const ForwardGemm gemm = forward_gemm(matmul, x, keys, down, residual);
  return matmul.forward(gemm.x, weight, gemm.terms, type);
}

Matmul::Activated Linear::forward_activated(Matmul& matmul, const at::Tensor& x, const std::vector<RowKey>& keys,
                                            GeluKeeps keeps, at::Tensor* down) const {
  const ForwardGemm gemm = forward_gemm(matmul, x, keys, down);
  return matmul.forward_activated(gemm.x, weight, gemm.terms, keeps);
}

at::Tensor Linear::backward(Matmul& matmul, const Upstream& upstream, const std::vector<RowKey>& keys, bool needs_dx,
                            at::ScalarType type, const SavedGelu& through) const {
  const BackwardGemm gemm = write_gradients(matmul, upstream, keys, needs_dx);
  return needs_dx ? matmul.input_gradient(gemm.dy, weight, gemm.terms, type, through) : at::Tensor();
}

void Linear::backward_into(Matmul& matmul, const Upstream& upstream, const std::vector<RowKey>& keys,
                           at::Tensor* dx) const {
  const BackwardGemm gemm = write_gradients(matmul, upstream, keys, dx != nullptr);
  if (dx != nullptr) matmul.add_input_gradient(*dx, gemm.dy, weight, gemm.terms);
}

Linear::BackwardGemm Linear::write_gradients(Matmul& matmul, const Upstream& upstream, const std::vector<RowKey>& keys,
                                             bool needs_dx) const {
  if (weight_grad.defined()) {
    at::Tensor out = weight_grad;
    at::mm_out(out, upstream.dy.t(), upstream.x);
  }
  write_bias_gradients(upstream.dy);
  if (lora.dora.present()) return write_dora_gradients(matmul, upstream, keys, needs_dx);
  if (!lora.present()) return {upstream.dy, {}};
  return {upstream.dy, lora.backward(upstream.dy, upstream.x, keys, upstream.down, needs_dx)};
}

void Linear::write_bias_gradients(const at::Tensor& dy) const {
  if (!bias_grad.defined() && !lora.bias_grad.defined()) return;
  const at::Tensor sum = at::sum(dy, {0}, /*keepdim=*/false, at::kFloat);
  if (bias_grad.defined()) bias_grad.copy_(sum);
  if (lora.bias_grad.defined()) lora.bias_grad.copy_(sum).mul_(lora.scaling);
}

/// Computes (W + s B A) drop(x) again rather than keep [n, out] of every adapter between forward and backward.
Linear::BackwardGemm Linear::write_dora_gradients(Matmul& matmul, const Upstream& upstream,
                                                  const std::vector<RowKey>& keys, bool needs_dx) const {
  const at::Tensor& dy = upstream.dy;
  {
    const Epilogue terms = lora.output_terms(upstream.down);
    lora.dora.write_gradient(dy, matmul.forward(lora.dropped(upstream.x, keys), weight, terms));
  }
  const at::Tensor scaled = dy.mul(lora.dora.gain);
  Epilogue terms = lora.backward(scaled, upstream.x, keys, upstream.down, needs_dx);
  if (!lora.dropout.active()) return {scaled, terms};
  if (needs_dx) terms.residual.add_(lora.dropout.apply(matmul.input_gradient(scaled.sub(dy), weight), keys));
  return {dy, terms};
}

at::Tensor Norm::forward(const at::Tensor& x, Statistics* statistics) const {
  auto [y, mean, rstd] = at::native_layer_norm(x, {x.size(1)}, weight, bias, epsilon);
  if (statistics != nullptr) *statistics = {mean, rstd};
  return y;
}

at::Tensor Norm::backward(const at::Tensor& dy, const at::Tensor& x, const Statistics& statistics) const {
  auto [dx, d_weight, d_bias] =
      at::native_layer_norm_backward(dy, x, {x.size(1)}, statistics.mean, statistics.rstd, weight, bias,
                                     {true, weight_grad.defined(), bias_grad.defined()});
  if (weight_grad.defined()) weight_grad.copy_(d_weight);
  if (bias_grad.defined()) bias_grad.copy_(d_bias);
  return dx;
}

cpu::LayerNorm Norm::parameters() const {
  return {weight.const_data_ptr<float>(), bias.const_data_ptr<float>(), epsilon};
}

at::Tensor Norm::cpu_forward(const at::Tensor& x, Statistics* statistics, at::ScalarType type) const {
  const cpu::LayerNorm norm = parameters();
  at::Tensor y = empty_rows(x.size(0), x.size(1), x.options().dtype(type));
  const at::Tensor both = at::empty({2, x.size(0), 1}, x.options());
  const Statistics written = {both.select(0, 0), both.select(0, 1)};
  at::parallel_for(0, x.size(0), kRowsPerTask, [&](int64_t begin, int64_t end) {
    auto* const mean = static_cast<float*>(written.mean.data_ptr()) + begin;
    auto* const rstd = static_cast<float*>(written.rstd.data_ptr()) + begin;
    const auto write = [&](auto* to) {
      cpu::layer_norm(norm, rows_of(x, begin, end), to + begin * y.stride(0), y.stride(0), mean, rstd);
    };
    if (type == at::kBFloat16) {
      write(static_cast<uint16_t*>(y.data_ptr()));
    } else {
      write(static_cast<float*>(y.data_ptr()));
    }
  });
  if (statistics != nullptr) *statistics = written;
  return y;
}

void Norm::cpu_add_gradient(const at::Tensor& dy, const at::Tensor& x, const Statistics& statistics,
                            at::Tensor& sum) const {
  if (trains()) {
    sum.add_(backward(dy, x, statistics));
    return;
  }
  const cpu::LayerNorm norm = parameters();
  at::parallel_for(0, x.size(0), kRowsPerTask, [&](int64_t begin, int64_t end) {
    cpu::add_layer_norm_gradient(norm, rows_of(dy, begin, end), rows_of(x, begin, end),
                                 statistics.mean.const_data_ptr<float>() + begin,
                                 statistics.rstd.const_data_ptr<float>() + begin,
                                 sum.mutable_data_ptr<float>() + begin * sum.stride(0), sum.stride(0));
  });
}

}  // namespace neoloom::model
