// SPDX-License-Identifier: Apache-2.0
// Measures attention, LayerNorm, GELU and cross entropy at the sizes of GPT-Neo 125M.
#include <ATen/ops/arange.h>
#include <ATen/ops/full.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/gelu_backward.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/native_layer_norm_backward.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/zeros_like.h>
#include <fmt/format.h>

#include <memory>

#include "model/cpu/attention.h"
#include "model/cpu/cross_entropy.h"
#include "model/cpu/gelu.h"
#include "model/gpt_neo/linear.h"
#include "model/scalar_type.h"
#include "tests/bench/micro/micro.h"

namespace neoloom::bench {
namespace {

constexpr int64_t kTokens = 2048, kWidth = 768, kHeads = 12, kWindow = 256, kVocabulary = 50257;

/// Holds `kTokens` tokens in samples of `length`.
struct AttentionInputs {
  int64_t length;
  at::Tensor q, k, v, grad;  // [kTokens, kWidth]
  std::vector<model::SequenceSpan> segments;

  AttentionInputs(int64_t tokens_per_sample, at::ScalarType type) : length(tokens_per_sample) {
    q = random_matrix(kTokens, kWidth, 1).mul_(0.2).to(type);
    k = random_matrix(kTokens, kWidth, 2).mul_(0.2).to(type);
    v = random_matrix(kTokens, kWidth, 3).to(type);
    grad = random_matrix(kTokens, kWidth, 4).to(type);
    for (int64_t begin = 0; begin < kTokens; begin += length) segments.push_back({begin, length, begin, length});
  }
  at::Tensor heads(const at::Tensor& rows) const {
    return rows.to(at::kFloat).view({kTokens / length, length, kHeads, kWidth / kHeads}).transpose(1, 2);
  }
  at::Tensor rows(const at::Tensor& heads) const { return heads.transpose(1, 2).reshape({kTokens, kWidth}); }

  at::Tensor probabilities(int64_t window) const {
    const at::Tensor position = at::arange(length);
    const at::Tensor distance = position.unsqueeze(1).sub(position.unsqueeze(0));
    at::Tensor hidden = distance.lt(0);
    if (window > 0) hidden = hidden.logical_or(distance.ge(window));
    return at::softmax(at::matmul(heads(q), heads(k).transpose(2, 3)).masked_fill_(hidden, -1e30), 3);
  }
};

/// Returns the tolerance of fp32, or that of probabilities and score gradients rounded to bfloat16 between GEMMs.
double tolerance(const AttentionInputs& inputs, double of_fp32) {
  return inputs.q.scalar_type() == at::kFloat ? of_fp32 : 2e-2;
}

std::string check_forward(const AttentionInputs& inputs, const model::Attention& attention, int64_t window) {
  const at::Tensor expected = inputs.rows(at::matmul(inputs.probabilities(window), inputs.heads(inputs.v)));
  const at::Tensor found = attention.forward(inputs.q, inputs.k, inputs.v, inputs.segments);
  return difference(found.to(at::kFloat), expected, tolerance(inputs, 1e-5));
}

std::string check_backward(const AttentionInputs& inputs, const model::Attention& attention, int64_t window) {
  const at::Tensor p = inputs.probabilities(window);
  at::Tensor ds = at::matmul(inputs.heads(inputs.grad), inputs.heads(inputs.v).transpose(2, 3));
  ds = ds.sub(ds.mul(p).sum({3}, /*keepdim=*/true)).mul_(p);
  const model::AttentionGradients found =
      attention.backward(inputs.grad, inputs.q, inputs.k, inputs.v, inputs.segments);
  const auto compare = [&](const at::Tensor& gradient, const at::Tensor& heads) {
    return difference(gradient.to(at::kFloat), inputs.rows(heads), tolerance(inputs, 1e-4));
  };
  return compare(found.dq, at::matmul(ds, inputs.heads(inputs.k))) +
         compare(found.dk, at::matmul(ds.transpose(2, 3), inputs.heads(inputs.q))) +
         compare(found.dv, at::matmul(p.transpose(2, 3), inputs.heads(inputs.grad)));
}

void add_attention(model::Dtype dtype, int64_t length, int64_t window) {
  const auto inputs = std::make_shared<std::unique_ptr<AttentionInputs>>();
  const auto attention = std::make_shared<model::Attention>(kHeads, window, /*on_device=*/false, dtype);
  const auto with_inputs = [=](const auto& check) {
    return [=] {
      if (!*inputs) *inputs = std::make_unique<AttentionInputs>(length, model::scalar_type(dtype));
      return check(**inputs, *attention, window);
    };
  };
  const std::string name = fmt::format("attention/{}/{}/{}", dtype == model::Dtype::kFloat32 ? "fp32" : "bf16",
                                       window > 0 ? "local" : "global", length);
  add_case({name + "/forward", with_inputs(check_forward), [=] {
              const AttentionInputs& in = **inputs;
              benchmark::DoNotOptimize(attention->forward(in.q, in.k, in.v, in.segments));
            }});
  add_case({name + "/backward", with_inputs(check_backward), [=] {
              const AttentionInputs& in = **inputs;
              benchmark::DoNotOptimize(attention->backward(in.grad, in.q, in.k, in.v, in.segments));
            }});
}

void add_norm() {
  struct Work {
    at::Tensor x = random_matrix(1024, kWidth, 1), dy = random_matrix(1024, kWidth, 2);
    model::Norm norm{at::full({kWidth}, 1.5), at::full({kWidth}, 0.5), {}, {}};
    model::Norm::Statistics statistics;
    at::Tensor centred() const { return x.sub(x.mean({1}, true)); }
    at::Tensor scale() const { return centred().pow(2).mean({1}, true).add(norm.epsilon).rsqrt(); }
  };
  const auto work = std::make_shared<Work>();
  const auto forward = [=] { return work->norm.forward(work->x, &work->statistics); };
  add_case({"layer_norm/1024x768/forward",
            [=] { return difference(forward(), work->centred().mul(work->scale()).mul(1.5).add(0.5), 1e-5); },
            [=] { benchmark::DoNotOptimize(forward()); }});
  const auto backward = [=] { return work->norm.backward(work->dy, work->x, work->statistics); };
  add_case({"layer_norm/1024x768/backward",
            [=] {
              forward();
              const at::Tensor y = work->centred().mul(work->scale());
              const at::Tensor g = work->dy.mul(1.5);
              const at::Tensor expected =
                  g.sub(g.mean({1}, true)).sub(y.mul(g.mul(y).mean({1}, true))).mul(work->scale());
              return difference(backward(), expected, 1e-5);
            },
            [=] { benchmark::DoNotOptimize(backward()); }});
}

void add_gelu() {
  struct Work {
    at::Tensor x = random_matrix(1024, 4 * kWidth, 1), dy = random_matrix(1024, 4 * kWidth, 2);
    // GELU's slope is 1 here: the gradient is overwritten call after call, and must not sink into denormal numbers.
    at::Tensor steady = x.abs().add(6.0);
  };
  const auto work = std::make_shared<Work>();
  add_case({"gelu/1024x3072/forward",
            [=] { return difference(model::gelu_new(work->x), at::gelu(work->x.to(at::kDouble), "tanh"), 1e-6); },
            [=] { benchmark::DoNotOptimize(model::gelu_new(work->x)); }});
  add_case({"gelu/1024x3072/backward",
            [=] {
              const at::Tensor expected = at::gelu_backward(work->dy.to(at::kDouble), work->x.to(at::kDouble), "tanh");
              return difference(model::gelu_new_backward(work->dy.clone(), work->x), expected, 1e-6);
            },
            [=] { work->dy = model::gelu_new_backward(work->dy, work->steady); }});
}

void add_cross_entropy() {
  struct Work {
    at::Tensor logits = random_matrix(256, kVocabulary, 1), targets = at::arange(256).mul_(190);
  };
  const auto work = std::make_shared<Work>();
  add_case(
      {"cross_entropy/256x50257/loss_and_gradient",
       [=] {
         const at::Tensor log_p = at::log_softmax(work->logits.to(at::kDouble), 1);
         const at::Tensor column = work->targets.unsqueeze(1);
         at::Tensor gradient = work->logits.clone();
         const at::Tensor losses = model::cross_entropy_rows(gradient, work->targets, {.gradients = true});
         const at::Tensor onehot = at::zeros_like(log_p).scatter_(1, column, 1.0);
         return difference(losses, log_p.gather(1, column).squeeze(1).neg(), 1e-6) +
                difference(gradient, log_p.exp().sub(onehot), 1e-5);
       },
       [=] { benchmark::DoNotOptimize(model::cross_entropy_rows(work->logits, work->targets, {.gradients = true})); }});
}

}  // namespace

void register_layers() {
  for (const model::Dtype dtype : {model::Dtype::kFloat32, model::Dtype::kBFloat16}) {
    if (model::cpu_compute_dtype(dtype) != dtype) continue;
    for (const int64_t window : {int64_t{0}, kWindow}) {
      for (const int64_t length : {128, 256, 512, 1024, 2048}) add_attention(dtype, length, window);
    }
  }
  add_norm();
  add_gelu();
  add_cross_entropy();
}

}  // namespace neoloom::bench
