// SPDX-License-Identifier: Apache-2.0
#include "model/gpt_neo/adapter_init.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/linalg_qr.h>
#include <ATen/ops/linalg_svd.h>
#include <ATen/ops/mm.h>
#include <c10/util/Exception.h>

#include <cmath>
#include <tuple>
#include <utility>

#include "model/gpt_neo/initial_values.h"
#include "runtime/core/error.h"

namespace neoloom::model {

namespace {

using Kind = AdapterInit::Kind;

double root(int64_t value) { return std::sqrt(static_cast<double>(value)); }

at::Tensor normal(at::IntArrayRef shape, const AdapterStart& start, const std::string& name) {
  at::Tensor values = at::empty(shape, at::kFloat);
  fill_normal(values, 1.0, start.seed, name);
  return values;
}

at::Tensor orthonormal(const at::Tensor& x) { return std::get<0>(at::linalg_qr(x)); }

/// U S V^T. Shapes: u [m, r], s [r], vh [r, n].
struct Svd {
  at::Tensor u, s, vh;
};

Svd exact_svd(const at::Tensor& x) {
  const auto [u, s, vh] = at::linalg_svd(x, /*full_matrices=*/false);
  return {u, s, vh};
}

Svd largest(const Svd& svd, int64_t rank) {
  return {svd.u.narrow(1, 0, rank), svd.s.narrow(0, 0, rank), svd.vh.narrow(0, 0, rank)};
}

/// torch.svd_lowrank: Algorithms 4.4 and 5.1 of Halko, Martinsson and Tropp, "Finding structure with randomness"
/// (2009). Shapes: x [m, n], m >= n.
Svd randomised_svd(const at::Tensor& x, int64_t rank, const AdapterStart& start) {
  at::Tensor q = orthonormal(at::mm(x, normal({x.size(1), rank}, start, start.a_name)));
  for (int64_t i = 0; i < start.init.iterations; ++i) {
    q = orthonormal(at::mm(x.t(), q));
    q = orthonormal(at::mm(x, q));
  }
  Svd svd = exact_svd(at::mm(q.t(), x));
  svd.u = at::mm(q, svd.u);
  return svd;
}

Svd largest_singular_values(const at::Tensor& weight, int64_t rank, const AdapterStart& start) {
  if (start.init.iterations < 0) return largest(exact_svd(weight), rank);
  if (weight.size(0) >= weight.size(1)) return randomised_svd(weight, rank, start);
  const Svd transposed = randomised_svd(weight.t(), rank, start);
  return {transposed.vh.t(), transposed.s, transposed.u.t()};
}

void start_pissa(const AdapterStart& start, const at::Tensor& weight, at::Tensor& a, at::Tensor& b) {
  const Svd svd = largest_singular_values(weight, a.size(0), start);
  const at::Tensor shares = svd.s.div(start.scaling).sqrt();
  a.copy_(svd.vh.mul(shares.unsqueeze(1)));
  b.copy_(svd.u.mul(shares));
}

void start_olora(const at::Tensor& weight, at::Tensor& a, at::Tensor& b) {
  const auto [q, r] = at::linalg_qr(weight);
  a.copy_(r.narrow(0, 0, a.size(0)));
  b.copy_(q.narrow(1, 0, a.size(0)));
}

/// Takes A from the even rows of an orthogonal matrix and B from the odd ones, so that B A = 0.
void start_orthogonal(const AdapterStart& start, at::Tensor& a, at::Tensor& b) {
  const int64_t rank = a.size(0);
  const at::Tensor q = orthonormal(normal({rank, rank}, start, start.a_name + ".orthogonal"));
  a.copy_(at::mm(normal({a.size(1), rank / 2}, start, start.a_name), q.slice(0, 0, rank, 2)).t().div(10.0));
  b.copy_(at::mm(normal({b.size(0), rank / 2}, start, start.b_name), q.slice(0, 1, rank, 2)).div(10.0));
}

void decompose(const AdapterStart& start, at::Tensor& a, at::Tensor& b) {
  if (start.init.kind == Kind::kOrthogonal) return start_orthogonal(start, a, b);
  const at::Tensor weight = start.weight.to(at::kCPU, at::kFloat);
  start.init.kind == Kind::kPissa ? start_pissa(start, weight, a, b) : start_olora(weight, a, b);
}

}  // namespace

void initialize_adapter(const AdapterStart& start, at::Tensor a, at::Tensor b) {
  switch (start.init.kind) {
    case Kind::kGaussian:
      fill_normal(a, 1.0 / static_cast<double>(a.size(0)), start.seed, start.a_name);
      b.zero_();
      return;
    case Kind::kTrue:
    case Kind::kFalse:
      fill_uniform(a, 1.0 / root(a.size(1)), start.seed, start.a_name);
      b.zero_();
      if (start.init.kind == Kind::kFalse) fill_uniform(b, 1.0 / root(b.size(1)), start.seed, start.b_name);
      return;
    default:
      break;
  }
  try {
    decompose(start, a, b);
  } catch (const c10::Error& error) {
    core::fail(core::ErrorKind::kWeights,
               "peft_config.init_lora_weights {}: the weight of {} cannot be decomposed ({}): does it hold values that "
               "are not finite?",
               init_name(start.init), start.a_name, error.what_without_backtrace());
  }
}

}  // namespace neoloom::model
