// SPDX-License-Identifier: Apache-2.0
#include "launch/selftest/cpu_self_test.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/gelu_backward.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/native_layer_norm.h>
#include <ATen/ops/native_layer_norm_backward.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <cmath>
#include <limits>
#include <tuple>

#include "model/cpu/attention.h"
#include "model/cpu/cross_entropy.h"
#include "model/cpu/elementwise.h"
#include "model/cpu/gelu.h"
#include "model/cpu/gemm_microkernel.h"
#include "model/cpu/gemm_microkernel_avx2.h"
#include "model/cpu/low_rank_gemm.h"
#include "model/cpu/matmul.h"
#include "model/cpu/packed_weights.h"
#include "model/scalar_type.h"

namespace neoloom::launch {
namespace {

using model::Dtype;
using model::Microkernel;

/// Returns normally distributed values that `dtype` holds exactly.
at::Tensor values_in(Dtype dtype, at::IntArrayRef shape, uint64_t seed, double deviation = 1.0) {
  return random_values(shape, seed).mul_(deviation).to(model::scalar_type(dtype));
}

at::Tensor exact_gelu(const at::Tensor& x) { return at::gelu(x, "tanh"); }
at::Tensor exact_gelu_slope(const at::Tensor& x) { return at::gelu_backward(at::ones_like(x), x, "tanh"); }

constexpr int64_t kMicrokernelDepth = 300;

/// Computes c = a b and c += a b with remainders of every tile. `packed` orders the rows of b as `multiply` reads them.
template <typename Element, typename Multiply, typename Pack>
Compared microkernel(Dtype dtype, Multiply multiply, Pack packed) {
  constexpr model::GemmShape kSizes = {61, 59, kMicrokernelDepth};
  const at::Tensor a = values_in(dtype, {kSizes.m, kSizes.k}, 1), b = values_in(dtype, {kSizes.k, kSizes.n}, 2);
  const at::Tensor right = packed(b), before = random_values({kSizes.m, kSizes.n}, 3);
  const auto multiplied = [&](bool add) {
    at::Tensor c = before.clone();
    multiply(kSizes, model::Operand<const Element>{a.const_data_ptr<Element>(), kSizes.k},
             model::Operand<const Element>{right.const_data_ptr<Element>(), kSizes.n},
             model::Operand<float>{c.mutable_data_ptr<float>(), kSizes.n}, add);
    return c;
  };
  const Tensors results = {multiplied(false), multiplied(true)};
  model::release_microkernel(dtype);
  const at::Tensor exact = in_fp64(a).mm(in_fp64(b));
  return {results, {exact, exact + before}};
}

Compared microkernel_avx2() {
  return microkernel<float>(Dtype::kFloat32, model::avx2::multiply, [](const at::Tensor& b) { return b; });
}

constexpr auto kChosenMicrokernel = [](auto... arguments) { model::multiply_tile(arguments...); };

Compared microkernel_avx512() {
  return microkernel<float>(Dtype::kFloat32, kChosenMicrokernel, [](const at::Tensor& b) { return b; });
}

Compared microkernel_bf16() {
  const auto to_vnni = [](const at::Tensor& b) {
    return b.view({b.size(0) / 2, 2, b.size(1)}).transpose(1, 2).contiguous();
  };
  return microkernel<at::BFloat16>(Dtype::kBFloat16, kChosenMicrokernel, to_vnni);
}

/// Says how a linear layer's weight is stored, and what its GEMMs read.
struct LinearTypes {
  const char* name;
  Dtype weight;
  Dtype compute;

  bool bf16() const { return compute == Dtype::kBFloat16; }
};

/// Makes a linear layer with a deep sum: deeper than one tile of a packed GEMM, which is 768 in fp32 and 2048 in bf16.
struct LinearTrial {
  static constexpr int64_t kTokens = 131, kShort = 66, kRank = 8;

  LinearTypes types;
  bool packed;
  int64_t deep = depth(types);
  model::Matmul matmul{types.compute};

  static int64_t depth(const LinearTypes& types) { return types.bf16() ? 2050 : 770; }

  /// Returns a weight [out, in] for sums of order 1 over `terms`.
  model::Matrix weight(int64_t out, int64_t in, int64_t terms, uint64_t seed) const {
    const at::Tensor plain = values_in(types.weight, {out, in}, seed, 1.0 / std::sqrt(static_cast<double>(terms)));
    if (!packed) return {plain};
    return {plain,
            {model::pack_weights(plain.t(), types.compute),
             types.bf16() ? model::pack_weights(plain, types.compute) : at::Tensor()}};
  }
  at::Tensor inputs(int64_t columns, uint64_t seed) const {
    return values_in(types.compute, {kTokens, columns}, seed).to(at::kFloat);
  }
};

/// Returns what an adapter adds to a GEMM's result.
model::Epilogue adapter_terms(int64_t columns) {
  return {{},
          {},
          random_values({LinearTrial::kTokens, LinearTrial::kRank}, 21),
          random_values({LinearTrial::kRank, columns}, 22).mul_(0.3)};
}

model::Epilogue all_terms(int64_t columns) {
  model::Epilogue terms = adapter_terms(columns);
  terms.bias = random_values({columns}, 23);
  terms.residual = random_values({LinearTrial::kTokens, columns}, 24);
  terms.scale = random_values({columns}, 25);
  return terms;
}

/// Computes `inputs` times `right` [k, n], and the terms, in fp64.
at::Tensor exact_gemm(const at::Tensor& inputs, const at::Tensor& right, const model::Epilogue& terms = {}) {
  at::Tensor sum = in_fp64(inputs).mm(in_fp64(right));
  if (terms.scale.defined()) sum.mul_(terms.scale);
  if (terms.bias.defined()) sum.add_(terms.bias).add_(terms.residual);
  return terms.low_rank_u.defined() ? sum.addmm_(in_fp64(terms.low_rank_u), in_fp64(terms.low_rank_v)) : sum;
}

Compared gemm(const LinearTypes& types, bool packed) {
  LinearTrial t{types, packed};
  const model::Matrix down = t.weight(t.kShort, t.deep, t.deep, 1), up = t.weight(t.deep, t.kShort, t.deep, 2);
  const at::Tensor x = t.inputs(t.deep, 3), dy = t.inputs(t.deep, 4), before = random_values({t.kTokens, t.kShort}, 5);
  const model::Epilogue terms = all_terms(t.kShort), adapter = adapter_terms(t.kShort);
  at::Tensor added = before.clone();
  t.matmul.add_input_gradient(added, dy, up, adapter);
  const Tensors results = {t.matmul.forward(x, down, {}), t.matmul.forward(x, down, terms),
                           t.matmul.input_gradient(dy, up, adapter), added};
  const OneThread references;
  const at::Tensor dx = exact_gemm(dy, up.plain, adapter);
  return {results, {exact_gemm(x, down.plain.t()), exact_gemm(x, down.plain.t(), terms), dx, dx + before}};
}

/// Computes GELU after the GEMM of one layer, and its slope after the gradient's GEMM of the next one.
Compared gelu_epilogue(const LinearTypes& types) {
  LinearTrial t{types, /*packed=*/true};
  const model::Matrix weight = t.weight(t.kShort, t.deep, t.deep, 1), next = t.weight(32, t.kShort, 32, 2);
  const at::Tensor x = t.inputs(t.deep, 3), dy = t.inputs(32, 4);
  const model::Epilogue terms = all_terms(t.kShort);
  Tensors results;
  for (const model::GeluKeeps keeps : {model::GeluKeeps::kInput, model::GeluKeeps::kSlope}) {
    const auto [saved, values] = t.matmul.forward_activated(x, weight, terms, keeps);
    results.push_back(values);
    results.push_back(model::rows_of_tiles(saved.values, t.kShort));
    results.push_back(t.matmul.input_gradient(dy, next, {}, at::kFloat, saved));
  }
  const OneThread references;
  const at::Tensor sum = exact_gemm(x, weight.plain.t(), terms), gelu = exact_gelu(sum), slope = exact_gelu_slope(sum);
  const at::Tensor dx = exact_gemm(dy, next.plain).mul_(slope);
  return {results, {gelu, sum, dx, gelu, slope, dx}};
}

Compared low_rank_gemm(Dtype dtype) {
  const at::Tensor x = values_in(dtype, {300, 770}, 1);
  const at::Tensor down = random_values({LinearTrial::kRank, 770}, 2).t();
  const at::Tensor left = random_values({300, LinearTrial::kRank}, 3);
  const Tensors results = {model::low_rank_gemm(x, down), model::low_rank_outer_product(left, x)};
  const OneThread references;
  return {results, {in_fp64(x).mm(in_fp64(down)), in_fp64(left).t().mm(in_fp64(x))}};
}

constexpr int64_t kHeads = 2, kHeadSize = 64, kLongestSample = 301;

/// Describes which tokens attend: the last `queries` of a sample's `keys` tokens.
struct Sample {
  int64_t queries, keys;
};

/// Returns out, dq, dk and dv by the definition. `inputs`: the gradient of out, q, k, v.
Tensors exact_attention(const Tensors& inputs, const std::vector<model::SequenceSpan>& segments, int64_t window) {
  const at::Tensor grads = in_fp64(inputs[0]), qs = in_fp64(inputs[1]), ks = in_fp64(inputs[2]),
                   vs = in_fp64(inputs[3]);
  Tensors all = {at::zeros_like(qs), at::zeros_like(qs), at::zeros_like(ks), at::zeros_like(ks)};
  for (const model::SequenceSpan& s : segments) {
    const at::Tensor keys = at::arange(s.key_rows);
    const at::Tensor distance = keys.narrow(0, s.key_rows - s.query_rows, s.query_rows).unsqueeze(1) - keys;
    const at::Tensor hidden = distance.lt(0).logical_or(distance.ge(window > 0 ? window : s.key_rows));
    for (int64_t head = 0; head < kHeads; ++head) {
      const auto of_queries = [&](const at::Tensor& x) {
        return x.narrow(0, s.query_begin, s.query_rows).narrow(1, head * kHeadSize, kHeadSize);
      };
      const auto of_keys = [&](const at::Tensor& x) {
        return x.narrow(0, s.key_begin, s.key_rows).narrow(1, head * kHeadSize, kHeadSize);
      };
      const at::Tensor q = of_queries(qs), k = of_keys(ks), v = of_keys(vs), grad = of_queries(grads);
      const at::Tensor p = at::softmax(q.mm(k.t()).masked_fill(hidden, -std::numeric_limits<double>::infinity()), 1);
      const at::Tensor dp = grad.mm(v.t());
      const at::Tensor ds = p * (dp - (p * dp).sum(1, /*keepdim=*/true));
      of_queries(all[0]).copy_(p.mm(v));
      of_queries(all[1]).copy_(ds.mm(k));
      of_keys(all[2]).copy_(ds.t().mm(q));
      of_keys(all[3]).copy_(p.t().mm(grad));
    }
  }
  return all;
}

Compared attention(const std::vector<Sample>& samples, int64_t window, Dtype dtype) {
  std::vector<model::SequenceSpan> segments;
  int64_t queries = 0, keys = 0;
  for (const Sample& sample : samples) {
    segments.push_back({queries, sample.queries, keys, sample.keys});
    queries += sample.queries;
    keys += sample.keys;
  }
  constexpr int64_t kChannels = kHeads * kHeadSize;
  // Scores of order 1, as in trained models.
  const Tensors in = {values_in(dtype, {queries, kChannels}, 1), values_in(dtype, {queries, kChannels}, 2, 0.35),
                      values_in(dtype, {keys, kChannels}, 3, 0.35), values_in(dtype, {keys, kChannels}, 4)};
  const model::Attention kernel(kHeads, window, /*on_cuda=*/false, dtype);
  const model::AttentionGradients d = kernel.backward(in[0], in[1], in[2], in[3], segments);
  const Tensors results = {kernel.forward(in[1], in[2], in[3], segments), d.dq, d.dk, d.dv};
  const OneThread references;
  return {results, exact_attention(in, segments, window)};
}

Compared gelu_fp32() {
  const at::Tensor x = values_in(Dtype::kFloat32, {4099}, 1, 3.0), dy = random_values({4099}, 2);
  at::Tensor slope = x.clone();
  const at::Tensor beside_slope = model::gelu_new_leaving_slope(slope);
  const at::Tensor exact = exact_gelu(in_fp64(x)), exact_slope = exact_gelu_slope(in_fp64(x));
  return {{model::gelu_new(x), beside_slope, slope, model::gelu_new_backward(dy.clone(), x)},
          {exact, exact, exact_slope, exact_slope * dy}};
}

Compared gelu_bf16() {
  const at::Tensor x = values_in(Dtype::kBFloat16, {4099}, 1, 3.0);
  return {{model::gelu_new(x)}, {exact_gelu(in_fp64(x))}};
}

constexpr int64_t kNormWidth = 768;

Compared layer_norm(Dtype dtype) {
  constexpr int64_t kTokens = 37;
  const at::Tensor weight = random_values({kNormWidth}, 1), bias = random_values({kNormWidth}, 2);
  const at::Tensor x = random_values({kTokens, kNormWidth}, 3).mul_(3.0).add_(2.0), dy = random_values(x.sizes(), 4);
  const at::Tensor before = random_values(x.sizes(), 5), dx = before.clone();
  const at::Tensor y = at::empty(x.sizes(), model::scalar_type(dtype));
  const at::Tensor mean = at::empty({kTokens, 1}), rstd = at::empty({kTokens, 1});
  const auto rows = [](const at::Tensor& of) {
    return model::cpu::Rows{of.const_data_ptr<float>(), kNormWidth, kTokens, kNormWidth};
  };
  const auto floats = [](const at::Tensor& of) { return of.mutable_data_ptr<float>(); };
  const model::cpu::LayerNorm norm = {floats(weight), floats(bias), 1e-5};
  const auto write = [&](auto* to) {
    model::cpu::layer_norm(norm, rows(x), to, kNormWidth, floats(mean), floats(rstd));
  };
  dtype == Dtype::kBFloat16 ? write(static_cast<uint16_t*>(y.data_ptr())) : write(floats(y));
  model::cpu::add_layer_norm_gradient(norm, rows(dy), rows(x), floats(mean), floats(rstd), floats(dx), kNormWidth);
  const at::Tensor exact_weight = in_fp64(weight), exact_bias = in_fp64(bias);
  const auto exact = at::native_layer_norm(in_fp64(x), {kNormWidth}, exact_weight, exact_bias, norm.epsilon);
  const auto exact_dx =
      at::native_layer_norm_backward(in_fp64(dy), in_fp64(x), {kNormWidth}, std::get<1>(exact), std::get<2>(exact),
                                     exact_weight, exact_bias, {true, false, false});
  if (dtype == Dtype::kBFloat16) return {{y}, {std::get<0>(exact)}};
  return {{y, mean, rstd, dx},
          {std::get<0>(exact), std::get<1>(exact), std::get<2>(exact), std::get<0>(exact_dx) + before}};
}

/// Computes softmax of rows that see fewer and fewer keys, as in tiles of attention.
Compared softmax() {
  constexpr int64_t kRows = 9, kWidth = 301;
  const at::Tensor scores = values_in(Dtype::kFloat32, {kRows, kWidth}, 1, 2.0), dy = random_values(scores.sizes(), 2);
  const at::Tensor p = scores.clone(), dx = dy.clone();
  const at::Tensor exact_p = at::zeros(scores.sizes(), at::kDouble), exact_dx = at::zeros_like(exact_p);
  for (int64_t row = 0; row < kRows; ++row) {
    const int64_t begin = 7 * row, end = kWidth - 20 * row;
    auto* const probabilities = p[row].mutable_data_ptr<float>();
    model::cpu::softmax_range(probabilities, begin, end, kWidth);
    model::cpu::softmax_backward_range(probabilities, dx[row].mutable_data_ptr<float>(), begin, end, kWidth);
    const auto seen = [&](const at::Tensor& x) { return x[row].narrow(0, begin, end - begin); };
    seen(exact_p).copy_(at::softmax(in_fp64(seen(scores)), 0));
    seen(exact_dx).copy_(seen(exact_p) * (in_fp64(seen(dy)) - (seen(exact_p) * seen(dy)).sum()));
  }
  return {{p, dx}, {exact_p, exact_dx}};
}

Compared cross_entropy() {
  constexpr int64_t kTokens = 5;
  Compared compared;
  for (const int64_t vocabulary : {17, 50257}) {
    const at::Tensor logits = values_in(Dtype::kFloat32, {kTokens, vocabulary}, 1, 3.0);
    const at::Tensor targets = at::arange(kTokens).mul_(vocabulary - 1).div_(kTokens - 1, "floor");
    at::Tensor gradient = logits.clone();
    const at::Tensor loss = model::cross_entropy_rows(gradient, targets, {.gradients = true, .loss_scale = 2.0});
    const OneThread references;
    const at::Tensor log_p = at::log_softmax(in_fp64(logits), 1), column = targets.unsqueeze(1);
    const at::Tensor exact = log_p.exp().scatter_add_(1, column, at::full(column.sizes(), -1.0, at::kDouble)).mul_(2.0);
    compared.results.insert(compared.results.end(), {loss, gradient});
    compared.references.insert(compared.references.end(), {log_p.gather(1, column).squeeze(1).neg(), exact});
  }
  return compared;
}

/// Says why a kernel never runs on this CPU; "" when it runs.
struct NotUsed {
  const Microkernel fp32_kernel = model::microkernel(Dtype::kFloat32);
  const bool has_bf16 = model::microkernel(Dtype::kBFloat16) != Microkernel::kNone;

  static std::string needs(const std::string& what) {
    const std::string limit = model::onednn_limit();
    return "needs " + what + (limit.empty() ? "" : "; ONEDNN_MAX_CPU_ISA is " + limit);
  }
  std::string microkernel_avx2() const {
    if (fp32_kernel == Microkernel::kOneDnn) return "the AVX-512 microkernel runs instead";
    return fp32_kernel == Microkernel::kAvx2 ? "" : needs("AVX2 and FMA");
  }
  std::string microkernel_avx512() const { return fp32_kernel == Microkernel::kOneDnn ? "" : needs("AVX-512"); }
  std::string bf16() const { return has_bf16 ? "" : needs("AVX512_BF16"); }
  std::string packed(Dtype compute) const {
    if (compute == Dtype::kBFloat16) return bf16();
    return fp32_kernel == Microkernel::kNone ? needs("AVX2 and FMA") : "";
  }
  std::string batched_training() const {
    return fp32_kernel == Microkernel::kNone ? "" : "tiled attention runs instead";
  }
};

}  // namespace

std::vector<KernelTest> cpu_kernel_tests() {
  // The argument of e^x is rounded. It is at most 32 here, which makes 32 roundoffs of the result.
  constexpr double kExponential = 48 * kFp32Roundoff;
  // The unit test that compares every argument with the formula has this limit, too: 1e-6.
  constexpr double kGelu = 16 * kFp32Roundoff;
  // Probabilities, their gradient and the result are rounded to bf16 one after the other.
  constexpr double kAttentionBf16 = 4 * kBf16Roundoff;
  const double attention_limit = fp32_sum_limit(kHeadSize + kLongestSample), norm_limit = fp32_sum_limit(kNormWidth);
  const NotUsed not_used;

  std::vector<KernelTest> tests = {
      {"GEMM microkernel, AVX2", "fp32", fp32_sum_limit(kMicrokernelDepth), microkernel_avx2,
       not_used.microkernel_avx2()},
      {"GEMM microkernel, AVX-512", "fp32", fp32_sum_limit(kMicrokernelDepth), microkernel_avx512,
       not_used.microkernel_avx512()},
      {"GEMM microkernel, AVX-512", "bf16", fp32_sum_limit(kMicrokernelDepth), microkernel_bf16, not_used.bf16()},
  };
  for (const LinearTypes& types : {LinearTypes{"fp32", Dtype::kFloat32, Dtype::kFloat32},
                                   {"fp16 weights", Dtype::kFloat16, Dtype::kFloat32},
                                   {"bf16 weights", Dtype::kBFloat16, Dtype::kFloat32},
                                   {"bf16", Dtype::kBFloat16, Dtype::kBFloat16}}) {
    // A packed GEMM sums in fp32 whatever it reads. LibTorch's bf16 GEMM rounds its result. The GELU epilogue rounds
    // the slope, the gradient, and gradient * slope.
    const double sums = fp32_sum_limit(LinearTrial::depth(types)), roundoff = types.bf16() ? kBf16Roundoff : 0.0;
    tests.push_back({"packed GEMM", types.name, sums, [=] { return gemm(types, /*packed=*/true); },
                     not_used.packed(types.compute)});
    tests.push_back({"packed GEMM, GELU epilogue", types.name, sums + 3 * roundoff,
                     [=] { return gelu_epilogue(types); }, not_used.packed(types.compute)});
    tests.push_back({"GEMM, weights not packed", types.name, sums + roundoff,
                     [=] { return gemm(types, /*packed=*/false); }, types.bf16() ? not_used.bf16() : ""});
  }
  // Where x is bf16, A and B are read as sums of two bf16 values. What remains after both roundings is lost.
  tests.push_back({"low-rank GEMM", "fp32", fp32_sum_limit(770), [] { return low_rank_gemm(Dtype::kFloat32); }});
  tests.push_back({"low-rank GEMM", "bf16", fp32_sum_limit(770) + kBf16Roundoff * kBf16Roundoff,
                   [] { return low_rank_gemm(Dtype::kBFloat16); }, not_used.bf16()});
  // As in training: whole samples, a single token, and a sample of which the last tokens alone are wanted.
  const std::vector<Sample> training = {{130, 130}, {300, 300}, {1, 1}, {64, kLongestSample}};
  const std::vector<Sample> decoding = {{1, 300}, {8, kLongestSample}};
  for (const int64_t window : {0, 256}) {
    const auto add = [&](const std::string& kernel, const char* name, const std::vector<Sample>& samples, Dtype dtype,
                         double limit, const std::string& reason) {
      tests.push_back({kernel + (window > 0 ? ", local" : ", global"), name, limit,
                       [=] { return attention(samples, window, dtype); }, reason});
    };
    add("tiled attention", "fp32", training, Dtype::kFloat32, attention_limit, not_used.packed(Dtype::kFloat32));
    add("tiled attention", "bf16", training, Dtype::kBFloat16, kAttentionBf16, not_used.bf16());
    add("batched attention", "fp32", training, Dtype::kFloat32, attention_limit, not_used.batched_training());
    add("decode attention", "fp32", decoding, Dtype::kFloat32, attention_limit, "");
  }
  tests.insert(tests.end(), {{"softmax", "fp32", kExponential, softmax},
                             {"cross entropy", "fp32", kExponential, cross_entropy},
                             {"GELU", "fp32", kGelu, gelu_fp32},
                             {"GELU", "bf16", kBf16Roundoff + kGelu, gelu_bf16, not_used.bf16()},
                             {"LayerNorm", "fp32", norm_limit, [] { return layer_norm(Dtype::kFloat32); }},
                             {"LayerNorm", "bf16", kBf16Roundoff + norm_limit,
                              [] { return layer_norm(Dtype::kBFloat16); }, not_used.bf16()}});
  return tests;
}

}  // namespace neoloom::launch
