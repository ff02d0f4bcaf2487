// SPDX-License-Identifier: Apache-2.0
#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "model/activation.h"
#include "model/attention.h"
#include "model/cpu_kernels.h"
#include "model/panels.h"
#include "tests/unit/model/random_model.h"

namespace neoloom::model {
namespace {

using testing::distance;
using testing::random;

/// Gradients by the definition, in double, with whole matrices. Shapes: grad, q [n, h]; k, v [T, h].
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

/// Of heads of `size` channels with products that read `inputs`: the largest distance of any gradient.
double gradient_error(int64_t size, int64_t window, Dtype inputs) {
  // Whole and short tiles, fewer queries than keys, few queries among many.
  const std::vector<Segment> segments = {{0, 130, 0, 130}, {130, 37, 130, 301}, {167, 64, 431, 64}, {231, 3, 495, 90}};
  const int64_t heads = 2;
  const at::Tensor q = random({234, heads * size}, 1.0, 1);
  const at::Tensor k = random({585, heads * size}, 1.0, 2);
  const at::Tensor v = random({585, heads * size}, 1.0, 3);
  const at::Tensor grad = random({234, heads * size}, 1.0, 4);
  const Attention attention(heads, window, /*on_device=*/false, inputs);
  const AttentionGradients found = attention.backward(grad, q, k, v, segments);
  double worst = 0.0;
  for (const Segment& s : segments) {
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

TEST(Attention, SixteenBitInputsCostWhatTheirRoundingCosts) {
  // Four roundings of 2^-9 meet in dk: of q, k, grad or v, and the scores' gradient.
  for (const int64_t window : {0, 66}) {
    for (const int64_t size : {4, 7}) {
      const double error = gradient_error(size, window, Dtype::kBFloat16);
      EXPECT_LT(error, 2e-2) << "window " << window << " head size " << size;
      if (multiplies_panels(Dtype::kBFloat16)) {
        EXPECT_GT(error, 1e-4);  // they are used
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
    cpu::interleave_rows(source, static_cast<uint32_t*>(pairs.mutable_data_ptr()));
    for (int64_t row = 0; row < rows; ++row) {
      EXPECT_TRUE(at::equal(pairs[row / 2].select(1, row % 2), expected[row])) << row;
    }
    if (rows % 2 == 1) {
      EXPECT_EQ(pairs[rows / 2].select(1, 1).abs().max().item<float>(), 0.0F);
    }
  }
  in[0][0].fill_(NAN);
  at::Tensor one = at::zeros({1, 1}, at::TensorOptions().dtype(at::kBFloat16));
  cpu::copy_rows({in.const_data_ptr<float>(), 24, 1, 1}, static_cast<uint16_t*>(one.mutable_data_ptr()), 1);
  EXPECT_TRUE(std::isnan(one.item<float>()));
}

TEST(Kernels, GeluInBfloat16IsGeluRounded) {
  const at::Tensor x = random({3, 50}, 2.0, 1);
  const at::Tensor dy = random({3, 50}, 1.0, 2);
  EXPECT_TRUE(at::equal(gelu_new(x, at::kBFloat16), gelu_new(x).to(at::kBFloat16)));
  EXPECT_TRUE(
      at::equal(gelu_new_backward(dy.clone(), x, at::kBFloat16), gelu_new_backward(dy.clone(), x).to(at::kBFloat16)));
}

}  // namespace
}  // namespace neoloom::model
