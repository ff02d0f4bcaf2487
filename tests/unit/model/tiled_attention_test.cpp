// SPDX-License-Identifier: Apache-2.0
#include <ATen/Parallel.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "model/cpu/aligned_rows.h"
#include "model/cpu/attention.h"
#include "model/cpu/elementwise.h"
#include "model/cpu/gelu.h"
#include "model/cpu/packed_weights.h"
#include "model/gpt_neo/linear.h"
#include "tests/unit/model/random_model.h"

namespace neoloom::model {
namespace {

using testing::distance;
using testing::random;

/// Computes gradients by the definition, in double, with whole matrices. Shapes: grad, q [n, h]; k, v [T, h].
AttentionGradients naive_gradients(const at::Tensor& grad, const at::Tensor& q, const at::Tensor& k,
                                   const at::Tensor& v, int64_t heads, int64_t window) {
  const int64_t size = q.size(1) / heads;
  const at::Tensor distance = at::arange(k.size(0) - q.size(0), k.size(0)).unsqueeze(1).sub(at::arange(k.size(0)));
  at::Tensor hidden = distance.lt(0);
  if (window > 0) hidden = hidden.logical_or(distance.ge(window));
  AttentionGradients out{at::zeros_like(q, at::kDouble), at::zeros_like(k, at::kDouble),
                         at::zeros_like(v, at::kDouble)};
  for (int64_t head = 0; head < heads; ++head) {
    const auto part = [&](const at::Tensor& x) { return x.narrow(1, head * size, size).to(at::kDouble); };
    const at::Tensor scores = part(q).mm(part(k).t()).masked_fill(hidden, -INFINITY);
    const at::Tensor p = scores.softmax(1);
    const at::Tensor dp = part(grad).mm(part(v).t());
    const at::Tensor ds = p * (dp - (p * dp).sum(1, /*keepdim=*/true));
    out.dq.narrow(1, head * size, size).copy_(ds.mm(part(k)));
    out.dk.narrow(1, head * size, size).copy_(ds.t().mm(part(q)));
    out.dv.narrow(1, head * size, size).copy_(p.t().mm(part(grad)));
  }
  return out;
}

/// Returns the largest distance of any gradient, for heads of `size` channels and GEMM inputs in the dtype `inputs`.
double gradient_error(int64_t size, int64_t window, Dtype inputs) {
  // Has whole and short tiles, fewer queries than keys, few queries among many.
  const std::vector<SequenceSpan> segments = {
      {0, 130, 0, 130}, {130, 37, 130, 301}, {167, 64, 431, 64}, {231, 3, 495, 90}};
  const int64_t heads = 2;
  const at::Tensor q = random({234, heads * size}, 1.0, 1);
  const at::Tensor k = random({585, heads * size}, 1.0, 2);
  const at::Tensor v = random({585, heads * size}, 1.0, 3);
  const at::Tensor grad = random({234, heads * size}, 1.0, 4);
  const Attention attention(heads, window, /*on_cuda=*/false, inputs);
  const AttentionGradients found = attention.backward(grad, q, k, v, segments);
  double worst = 0.0;
  for (const SequenceSpan& s : segments) {
    const auto queries = [&](const at::Tensor& x) { return x.narrow(0, s.query_begin, s.query_rows); };
    const auto keys = [&](const at::Tensor& x) { return x.narrow(0, s.key_begin, s.key_rows); };
    const AttentionGradients exact = naive_gradients(queries(grad), queries(q), keys(k), keys(v), heads, window);
    worst = std::max({worst, distance(queries(found.dq).to(at::kDouble), exact.dq),
                      distance(keys(found.dk).to(at::kDouble), exact.dk),
                      distance(keys(found.dv).to(at::kDouble), exact.dv)});
  }
  return worst;
}

TEST(Attention, GradientsOfPackedSamplesEqualTheDefinition) {
  for (const int64_t window : {0, 2, 5, 64, 66, 100}) {
    for (const int64_t size : {4, 7}) {  // 7: no vector and no pair divides it
      EXPECT_LT(gradient_error(size, window, Dtype::kFloat32), 3e-6) << "window " << window << " head size " << size;
    }
  }
}

TEST(Attention, HasTheSameBitsWithAnyThreads) {
  const std::vector<SequenceSpan> segments = {
      {0, 130, 0, 130}, {130, 37, 130, 37}, {167, 1, 167, 1}, {168, 300, 168, 300}};
  const at::Tensor q = random({468, 64}, 1.0, 1);
  const at::Tensor k = random({468, 64}, 1.0, 2);
  const at::Tensor v = random({468, 64}, 1.0, 3);
  const at::Tensor grad = random({468, 64}, 1.0, 4);
  const int threads = at::get_num_threads();
  for (const Dtype inputs : {Dtype::kFloat32, Dtype::kBFloat16}) {
    const Attention attention(4, 66, /*on_cuda=*/false, inputs);
    const at::Tensor out = attention.forward(q, k, v, segments);
    const AttentionGradients d = attention.backward(grad, q, k, v, segments);
    for (const int other : {1, 2, 3}) {
      at::set_num_threads(other);
      EXPECT_TRUE(at::equal(attention.forward(q, k, v, segments), out)) << other;
      const AttentionGradients again = attention.backward(grad, q, k, v, segments);
      EXPECT_TRUE(at::equal(again.dq, d.dq) && at::equal(again.dk, d.dk) && at::equal(again.dv, d.dv)) << other;
    }
    at::set_num_threads(threads);
  }
}

TEST(Attention, SixteenBitInputsCostWhatTheirRoundingCosts) {
  // Four roundings of 2^-9 meet in dk: of q, k, grad or v, and the scores' gradient.
  for (const int64_t window : {0, 66}) {
    for (const int64_t size : {4, 7}) {
      const double error = gradient_error(size, window, Dtype::kBFloat16);
      EXPECT_LT(error, 2e-2) << "window " << window << " head size " << size;
      if (has_packed_gemm(Dtype::kBFloat16)) {
        EXPECT_GT(error, 1e-4);  // 16-bit inputs are used
      }
    }
  }
}

TEST(Kernels, TransposeReachesEveryElement) {
  for (const int64_t rows : {1, 4, 7, 64}) {
    for (const int64_t columns : {1, 5, 64}) {
      const at::Tensor in = random({rows, columns + 3}, 1.0, 1);
      at::Tensor out = at::zeros({columns, rows + 2});
      cpu::transpose(in.const_data_ptr<float>(), columns + 3, rows, columns, out.mutable_data_ptr<float>(), rows + 2);
      EXPECT_TRUE(at::equal(out.narrow(1, 0, rows), in.narrow(1, 0, columns).t()));
      EXPECT_EQ(out.narrow(1, rows, 2).abs().max().item<float>(), 0.0F);
    }
  }
}

TEST(Kernels, RowsBecomeBfloat16AsATenRoundsThem) {
  at::Tensor in = random({7, 24}, 3.0, 1);
  in[0][3].fill_(std::numeric_limits<float>::infinity());
  in[1][4].fill_(1.00390625);  // half way: to even
  in[2][5].fill_(1.01171875);
  in[3][6].fill_(1e-40);
  for (const int64_t rows : {6, 7}) {
    const int64_t width = 21;
    const cpu::Rows source{in.const_data_ptr<float>(), 24, rows, width};
    const at::Tensor expected = in.narrow(0, 0, rows).narrow(1, 0, width).to(at::kBFloat16);
    at::Tensor copied = at::zeros({rows, 30}, expected.options());
    cpu::copy_rows(source, static_cast<uint16_t*>(copied.mutable_data_ptr()), 30);
    EXPECT_TRUE(at::equal(copied.narrow(1, 0, width), expected));
    at::Tensor pairs = at::zeros({(rows + 1) / 2, width, 2}, expected.options());
    const cpu::LowpRows bf16{static_cast<const uint16_t*>(copied.const_data_ptr()), 30, rows, width};
    cpu::interleave_rows(bf16, static_cast<uint32_t*>(pairs.mutable_data_ptr()));
    at::Tensor fp32 = at::zeros({rows, width});
    cpu::copy_rows(bf16, fp32.mutable_data_ptr<float>(), width);
    EXPECT_TRUE(at::equal(fp32, expected.to(at::kFloat)));
    at::Tensor again = at::zeros({rows, 25}, expected.options());
    cpu::copy_rows(bf16, static_cast<uint16_t*>(again.mutable_data_ptr()), 25);
    EXPECT_TRUE(at::equal(again.narrow(1, 0, width), expected));
    for (int64_t row = 0; row < rows; ++row) {
      EXPECT_TRUE(at::equal(pairs[row / 2].select(1, row % 2), expected[row])) << row;
    }
    if (rows % 2 == 1) {
      EXPECT_EQ(pairs[rows / 2].select(1, 1).abs().max().item<float>(), 0.0F);
    }
  }
  in[0][0].fill_(NAN);
  at::Tensor one = at::zeros({1, 1}, at::TensorOptions().dtype(at::kBFloat16));
  cpu::copy_rows(cpu::Rows{in.const_data_ptr<float>(), 24, 1, 1}, static_cast<uint16_t*>(one.mutable_data_ptr()), 1);
  EXPECT_TRUE(std::isnan(one.item<float>()));
}

TEST(Kernels, GeluInBfloat16IsGeluRounded) {
  const at::Tensor x = random({3, 50}, 2.0, 1);
  const at::Tensor dy = random({3, 50}, 1.0, 2);
  const cpu::Rows source{x.const_data_ptr<float>(), 50, 3, 50};
  at::Tensor y = at::empty({3, 50}, at::kBFloat16);
  cpu::gelu(source, static_cast<uint16_t*>(y.mutable_data_ptr()), 50);
  EXPECT_TRUE(at::equal(y, gelu_new(x).to(at::kBFloat16)));
  const at::Tensor bf16 = x.to(at::kBFloat16);
  EXPECT_TRUE(at::equal(gelu_new(bf16), gelu_new(bf16.to(at::kFloat)).to(at::kBFloat16)));
  at::Tensor dx = at::empty({3, 50}, at::kBFloat16);
  cpu::gelu_backward({dy.const_data_ptr<float>(), 50, 3, 50}, static_cast<const uint16_t*>(bf16.const_data_ptr()), 50,
                     static_cast<uint16_t*>(dx.mutable_data_ptr()), 50);
  EXPECT_TRUE(at::equal(dx, gelu_new_backward(dy.clone(), bf16.to(at::kFloat)).to(at::kBFloat16)));
  at::Tensor slope = at::empty({3, 50}, at::kBFloat16);
  auto* const slope_bits = static_cast<uint16_t*>(slope.mutable_data_ptr());
  cpu::gelu_and_slope(source, static_cast<uint16_t*>(y.mutable_data_ptr()), 50, slope_bits, 50);
  at::Tensor wide_slope = x.clone();
  EXPECT_TRUE(at::equal(y, gelu_new_leaving_slope(wide_slope).to(at::kBFloat16)));
  EXPECT_TRUE(at::equal(slope, wide_slope.to(at::kBFloat16)));
  cpu::scale_rows({dy.const_data_ptr<float>(), 50, 3, 50}, slope_bits, 50,
                  static_cast<uint16_t*>(dx.mutable_data_ptr()), 50);
  EXPECT_TRUE(at::equal(dx, dy.mul(slope.to(at::kFloat)).to(at::kBFloat16)));
}

TEST(Kernels, RowsAreSummedWithABiasInPlaceToo) {
  at::Tensor rows = random({5, 21}, 1.0, 1);
  const at::Tensor bias = random({21}, 1.0, 2);
  const at::Tensor expected = rows + bias;
  at::Tensor out = at::zeros({5, 30});
  const cpu::Rows source{rows.const_data_ptr<float>(), 21, 5, 21};
  cpu::sum_rows(bias.const_data_ptr<float>(), source, out.mutable_data_ptr<float>(), 30);
  EXPECT_TRUE(at::equal(out.narrow(1, 0, 21), expected));
  cpu::sum_rows(nullptr, source, out.mutable_data_ptr<float>(), 30);
  EXPECT_TRUE(at::equal(out.narrow(1, 0, 21), rows));
  cpu::sum_rows(bias.const_data_ptr<float>(), {nullptr, 0, 5, 21}, out.mutable_data_ptr<float>(), 30);
  EXPECT_TRUE(at::equal(out.narrow(1, 0, 21), bias.expand({5, 21})));
  cpu::sum_rows(bias.const_data_ptr<float>(), source, rows.mutable_data_ptr<float>(), 21);
  EXPECT_TRUE(at::equal(rows, expected));
}

TEST(Norm, TheHostsLoopsEqualATenInDouble) {
  for (const int64_t width : {1, 15, 768}) {
    const Norm norm = {random({width}, 1.0, 1), random({width}, 1.0, 2), {}, {}, 1e-5};
    const at::Tensor x = random({37, width}, 3.0, 3) + 2.0;
    const at::Tensor dy = random({37, width}, 1.0, 4);
    const Norm exact = {norm.weight.to(at::kDouble), norm.bias.to(at::kDouble), {}, {}, 1e-5};
    Norm::Statistics fp64;
    Norm::Statistics statistics;
    const at::Tensor y = norm.cpu_forward(x, &statistics, at::kFloat);
    EXPECT_LT(distance(y, exact.forward(x.to(at::kDouble), &fp64)), 4e-6) << width;
    EXPECT_LT(distance(statistics.mean, fp64.mean), 1e-6);
    EXPECT_LT(distance(statistics.rstd / fp64.rstd, at::ones_like(fp64.rstd)), 1e-6);
    EXPECT_TRUE(at::equal(norm.cpu_forward(x, nullptr, at::kBFloat16), y.to(at::kBFloat16)));
    const at::Tensor before = random({37, width}, 1.0, 5);
    const at::Tensor expected = before + exact.backward(dy.to(at::kDouble), x.to(at::kDouble), fp64);
    at::Tensor sum = before.clone();
    norm.cpu_add_gradient(dy, x, statistics, sum);
    EXPECT_LT(distance(sum, expected), 2e-5 * fp64.rstd.max().item<double>()) << width;
    at::Tensor apart = empty_rows(37, 1024, before.options()).narrow(1, 0, width);  // rows further apart
    apart.copy_(before);
    norm.cpu_add_gradient(dy, x, statistics, apart);
    EXPECT_TRUE(at::equal(apart, sum));
  }
}

}  // namespace
}  // namespace neoloom::model
