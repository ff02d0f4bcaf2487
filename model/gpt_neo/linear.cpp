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

Epilogue Linear::forward_terms(const at::Tensor& x, const std::vector<RowKey>& keys, at::Tensor* down) const {
  Epilogue terms = {.bias = bias};
  if (!lora.present()) return terms;
  const at::Tensor down_out = lora.down(x, keys);
  lora.join_forward(x, down_out, terms);
  if (down != nullptr) *down = down_out;
  return terms;
}

at::Tensor Linear::forward(Matmul& matmul, const at::Tensor& x, const std::vector<RowKey>& keys, at::Tensor* down,
                           const at::Tensor& residual, at::ScalarType type) const {
  Epilogue terms = forward_terms(x, keys, down);
  terms.residual = residual;
  return matmul.forward(x, weight, terms, type);
}

Matmul::Activated Linear::forward_activated(Matmul& matmul, const at::Tensor& x, const std::vector<RowKey>& keys,
                                            GeluKeeps keeps, at::Tensor* down) const {
  return matmul.forward_activated(x, weight, forward_terms(x, keys, down), keeps);
}

at::Tensor Linear::backward(Matmul& matmul, const Upstream& upstream, const std::vector<RowKey>& keys, bool needs_dx,
                            at::ScalarType type, const SavedGelu& through) const {
  const Epilogue terms = write_gradients(upstream, keys, needs_dx);
  return needs_dx ? matmul.input_gradient(upstream.dy, weight, terms, type, through) : at::Tensor();
}

void Linear::backward_into(Matmul& matmul, const Upstream& upstream, const std::vector<RowKey>& keys,
                           at::Tensor* dx) const {
  const Epilogue terms = write_gradients(upstream, keys, dx != nullptr);
  if (dx != nullptr) matmul.add_input_gradient(*dx, upstream.dy, weight, terms);
}

Epilogue Linear::write_gradients(const Upstream& upstream, const std::vector<RowKey>& keys, bool needs_dx) const {
  if (weight_grad.defined()) {
    at::Tensor out = weight_grad;
    at::mm_out(out, upstream.dy.t(), upstream.x);
  }
  if (bias_grad.defined()) {
    at::Tensor out = bias_grad;
    at::sum_out(out, upstream.dy, {0});
  }
  return lora.present() ? lora.backward(upstream.dy, upstream.x, keys, upstream.down, needs_dx) : Epilogue();
}

at::Tensor Norm::forward(const at::Tensor& x, Statistics* statistics) const {
  auto [y, mean, rstd] = at::native_layer_norm(x, {x.size(1)}, weight, bias, epsilon);
  if (statistics != nullptr) *statistics = {mean, rstd};
  return y;
}

at::Tensor Norm::backward(const at::Tensor& dy, const at::Tensor& x, const Statistics& statistics) const {
  const bool trains = weight_grad.defined();
  auto [dx, d_weight, d_bias] = at::native_layer_norm_backward(dy, x, {x.size(1)}, statistics.mean, statistics.rstd,
                                                               weight, bias, {true, trains, trains});
  if (trains) {
    weight_grad.copy_(d_weight);
    bias_grad.copy_(d_bias);
  }
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
  if (weight_grad.defined()) {
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
