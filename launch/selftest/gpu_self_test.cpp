// SPDX-License-Identifier: Apache-2.0
#include "launch/selftest/gpu_self_test.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/mm.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <utility>

#include "model/batch/pinned.h"
#include "model/cuda/attention.h"
#include "model/cuda/operators.h"
#include "runtime/core/error.h"

namespace neoloom::launch {
namespace {

using model::AttentionKernel;

constexpr int64_t kHeads = 2;
constexpr int64_t kChannels = 128;  // of all heads

struct AttentionCase {
  std::string name;
  AttentionKernel kernel = AttentionKernel::kFlash;
  int64_t window = 0;
  std::vector<int64_t> lengths;
  bool last_tokens_only = false;
};

std::vector<AttentionCase> attention_cases(const model::DeviceTraits& traits) {
  std::vector<AttentionCase> cases;
  const auto chosen = [&](model::DeviceTraits device, AttentionKernel kernel) {
    return model::choose_attention(device, model::Dtype::kBFloat16, kChannels / kHeads, 0) == kernel;
  };
  model::DeviceTraits fastest = traits;
  fastest.deterministic = false;
  model::DeviceTraits repeating = traits;
  repeating.deterministic = true;
  if (chosen(repeating, AttentionKernel::kFlash)) {
    cases.push_back({"flash, global", AttentionKernel::kFlash, 0, {300}, false});
    cases.push_back({"flash, window 256", AttentionKernel::kFlash, 256, {255, 256, 257, 600}, false});
    cases.push_back({"flash, many samples", AttentionKernel::kFlash, 0, {96, 1, 200, 37}, false});
    cases.push_back({"flash, last tokens", AttentionKernel::kFlash, 256, {96, 300, 1}, true});
  }
  if (chosen(fastest, AttentionKernel::kCudnn)) {
    cases.push_back({"cuDNN, samples of one length", AttentionKernel::kCudnn, 0, {200, 200, 200}, false});
  }
  return cases;
}

struct Attended {
  at::Tensor out;
  model::AttentionGradients gradients;

  std::vector<at::Tensor> all() const { return {out, gradients.dq, gradients.dk, gradients.dv}; }
};

/// One case in one 16-bit type: inputs, rows, and both ways to attend.
class AttentionTrial {
 public:
  AttentionTrial(const AttentionCase& chosen, at::ScalarType dtype, const std::string& device)
      : case_(chosen), device_(device) {
    int64_t queries = 0, keys = 0;
    for (const int64_t length : case_.lengths) {
      const int64_t query_rows = case_.last_tokens_only ? 1 : length;
      segments_.push_back({queries, query_rows, keys, length});
      queries += query_rows;
      keys += length;
    }
    q_ = random_values({queries, kChannels}, 11).mul_(0.3).to(dtype);
    k_ = random_values({keys, kChannels}, 12).mul_(0.3).to(dtype);
    v_ = random_values({keys, kChannels}, 13).to(dtype);
    grad_ = random_values({queries, kChannels}, 14).to(dtype);
  }

  Attended reference() const {
    const model::Attention attention(kHeads, case_.window, /*on_device=*/true);
    const auto wide = [](const at::Tensor& x) { return x.to(at::kFloat); };
    return {attention.forward(wide(q_), wide(k_), wide(v_), segments_),
            attention.backward(wide(grad_), wide(q_), wide(k_), wide(v_), segments_)};
  }

  Attended on_device(const model::CudaOperators& operators) const {
    model::CuSeqlens packed = model::cu_seqlens(segments_, device_);
    packed.cu_seqlens_q = model::to_device_async(packed.cu_seqlens_q, device_);
    packed.cu_seqlens_k = model::to_device_async(packed.cu_seqlens_k, device_);
    const model::AttentionRows rows{segments_, packed};
    const model::Attention host(kHeads, case_.window, /*on_device=*/true);
    const model::CudaAttention attention(case_.kernel, host, operators);
    const auto there = [&](const at::Tensor& x) { return x.to(device_); };
    const at::Tensor q = there(q_), k = there(k_), v = there(v_);
    model::AttentionSaved saved;
    const at::Tensor out = attention.forward(q, k, v, rows, saved);
    return {out, attention.backward(there(grad_), q, k, v, out, rows, saved)};
  }

 private:
  const AttentionCase& case_;
  at::Device device_;
  std::vector<model::SequenceSpan> segments_;
  at::Tensor q_, k_, v_, grad_;
};

double largest_difference(const Attended& result, const Attended& reference) {
  double largest = 0.0;
  const auto results = result.all(), references = reference.all();
  for (size_t i = 0; i < results.size(); ++i) {
    largest = std::max(largest, relative_difference(results[i], references[i].to(at::kDouble)));
  }
  return largest;
}

/// The same call twice: 0 where every bit repeats.
double difference_of_repetition(const Attended& first, const Attended& second) {
  const auto a = first.all(), b = second.all();
  for (size_t i = 0; i < a.size(); ++i) {
    if (!a[i].equal(b[i])) return 1.0;
  }
  return 0.0;
}

struct Rounding {
  const char* name;
  at::ScalarType dtype;
  double product_tolerance, attention_tolerance;
};
constexpr std::array<Rounding, 2> kRoundings = {{{"fp16", at::kHalf, 1e-5, 4e-3}, {"bf16", at::kBFloat16, 1e-5, 3e-2}}};

}  // namespace

std::vector<KernelResult> test_device_operators(const model::CudaOperators& operators,
                                                const model::DeviceTraits& traits, const std::string& device) {
  std::vector<KernelResult> results;
  for (const Rounding& rounding : kRoundings) {
    results.push_back(measured(
        fmt::format("{} product, fp32 sums", rounding.name), rounding.product_tolerance, [&](KernelResult& result) {
          const at::Tensor a = random_values({192, 256}, 1).to(rounding.dtype);
          const at::Tensor b = random_values({256, 320}, 2).to(rounding.dtype);
          const at::Tensor product = operators.product(a.to(at::Device(device)), b.to(at::Device(device)));
          result.difference = relative_difference(product, at::mm(a.to(at::kDouble), b.to(at::kDouble)));
        }));
    results.push_back(measured(
        fmt::format("{} product, added to", rounding.name), rounding.product_tolerance, [&](KernelResult& result) {
          // As a gradient of B: a turned left side, a strided sum.
          const at::Tensor a = random_values({256, 192}, 1).to(rounding.dtype);
          const at::Tensor b = random_values({256, 64}, 2).to(rounding.dtype);
          const at::Tensor start = random_values({192, 128}, 3);
          const at::Tensor expected = at::mm(a.t().to(at::kDouble), b.to(at::kDouble)).mul_(0.5);
          at::Tensor sum = start.clone().to(at::Device(device));
          at::Tensor added = sum.narrow(1, 0, 64), replaced = sum.narrow(1, 64, 64);
          const at::Tensor left = a.to(at::Device(device)).t(), right = b.to(at::Device(device));
          operators.add_product(added, left, right, /*beta=*/1.0, /*alpha=*/0.5);
          operators.add_product(replaced, left, right, /*beta=*/0.0, /*alpha=*/0.5);
          result.difference = std::max(relative_difference(added, expected.add(start.narrow(1, 0, 64).to(at::kDouble))),
                                       relative_difference(replaced, expected));
        }));
    for (const AttentionCase& chosen : attention_cases(traits)) {
      const AttentionTrial trial(chosen, rounding.dtype, device);
      results.push_back(measured(fmt::format("{} attention ({})", rounding.name, chosen.name),
                                 rounding.attention_tolerance, [&](KernelResult& result) {
                                   result.difference =
                                       largest_difference(trial.on_device(operators), trial.reference());
                                 }));
      if (chosen.kernel != AttentionKernel::kFlash) continue;
      results.push_back(measured(
          fmt::format("{} the same bits again ({})", rounding.name, chosen.name), 0.0, [&](KernelResult& result) {
            result.difference = difference_of_repetition(trial.on_device(operators), trial.on_device(operators));
          }));
    }
  }
  return results;
}

KernelResult test_graphs(const MakeGraphCache& make_graph_cache, const std::string& device) {
  return measured("CUDA graph, in two parts", 0.0, [&](KernelResult& result) {
    constexpr int64_t kReplays = 3;
    std::string said;
    const auto graphs = make_graph_cache([&](const std::string& text) { said = text; });
    at::Tensor input = random_values({64, 96}, 1).to(at::Device(device));
    const at::Tensor weight = random_values({96, 128}, 2).to(at::Device(device));
    at::Tensor output = at::empty({64, 128}, input.options());
    const auto compute = [&](const std::function<void()>& pause) {
      const at::Tensor product = at::mm(input, weight);  // lives in the graph's memory, from part to part
      pause();
      output.copy_(at::gelu(product, "tanh"));
    };
    cuda::RepeatedWork work;
    work.shape = "self-test";
    work.begin = [] {};
    work.enqueue = compute;
    work.snapshot = [&] { return [&, before = output.clone()] { return before.equal(output); }; };
    for (int64_t run = 0; run < cuda::GraphCache::kEagerRuns + kReplays; ++run) {
      input.add_(0.25);
      graphs->run(work);
      const at::Tensor played = output.clone();
      compute([] {});
      if (!played.equal(output)) result.difference = 1.0;
    }
    core::require(graphs->replays() == kReplays, core::ErrorKind::kDevice, "{}",
                  said.empty() ? "nothing was recorded" : said);
  });
}

std::vector<KernelResult> test_lone_sums(comm::Communicator& communicator, const std::string& device) {
  constexpr int64_t kElements = 100'003;
  const auto options = at::TensorOptions().device(at::Device(device));
  at::Tensor whole = at::arange(kElements, options.dtype(at::kLong)).mul_(int64_t{1} << 40);
  at::Tensor real = random_values({kElements}, 3).to(at::Device(device));
  const at::Tensor whole_before = whole.clone(), real_before = real.clone();
  const auto unchanged = [](const at::Tensor& after, const at::Tensor& before) {
    return [&after, &before](KernelResult& result) { result.difference = after.equal(before) ? 0.0 : 1.0; };
  };
  KernelResult started = measured("sums under way together", 0.0, [&](KernelResult&) {
    communicator.start_sum(whole.data_ptr(), static_cast<size_t>(kElements), comm::Element::kInt64);
    communicator.start_sum(real.data_ptr(), static_cast<size_t>(kElements), comm::Element::kFloat32);
    communicator.finish_sums();
    communicator.check();
  });
  return {started, measured("all-reduce of int64, one rank", 0.0, unchanged(whole, whole_before)),
          measured("all-reduce of fp32, one rank", 0.0, unchanged(real, real_before))};
}

}  // namespace neoloom::launch
