// SPDX-License-Identifier: Apache-2.0
#include "launch/selftest/gpu_self_test.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/mm.h>
#include <fmt/format.h>

#include <array>

#include "model/batch/pinned.h"
#include "model/cuda/attention.h"
#include "model/cuda/operators.h"
#include "runtime/core/error.h"

namespace neoloom::launch {
namespace {

using model::AttentionKernel;

constexpr int64_t kTestedHeads = 2;
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
    return model::choose_attention(device, model::Dtype::kBFloat16, kChannels / kTestedHeads, 0) == kernel;
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

Tensors all_of(const at::Tensor& out, const model::AttentionGradients& gradients) {
  return {out, gradients.dq, gradients.dk, gradients.dv};
}

/// Holds one case in one 16-bit type: inputs, rows, and both ways to attend.
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

  /// Returns out, dq, dk, dv in fp32.
  Tensors reference() const {
    const model::Attention attention(kTestedHeads, case_.window, /*on_cuda=*/true);
    const auto in_fp32 = [](const at::Tensor& x) { return x.to(at::kFloat); };
    return all_of(attention.forward(in_fp32(q_), in_fp32(k_), in_fp32(v_), segments_),
                  attention.backward(in_fp32(grad_), in_fp32(q_), in_fp32(k_), in_fp32(v_), segments_));
  }

  Tensors on_device(const model::CudaOperators& operators) const {
    model::CuSeqlens packed = model::cu_seqlens(segments_, device_);
    packed.cu_seqlens_q = model::to_device_async(packed.cu_seqlens_q, device_);
    packed.cu_seqlens_k = model::to_device_async(packed.cu_seqlens_k, device_);
    const model::AttentionRows rows{segments_, packed};
    const model::Attention host(kTestedHeads, case_.window, /*on_cuda=*/true);
    const model::CudaAttention attention(case_.kernel, host, operators);
    const auto there = [&](const at::Tensor& x) { return x.to(device_); };
    const at::Tensor q = there(q_), k = there(k_), v = there(v_);
    model::AttentionSaved saved;
    const at::Tensor out = attention.forward(q, k, v, rows, saved);
    return all_of(out, attention.backward(there(grad_), q, k, v, out, rows, saved));
  }

 private:
  AttentionCase case_;
  at::Device device_;
  std::vector<model::SequenceSpan> segments_;
  at::Tensor q_, k_, v_, grad_;
};

struct Rounding {
  const char* name;
  at::ScalarType dtype;
  double gemm_limit, attention_limit;
};
constexpr std::array<Rounding, 2> kRoundings = {{{"fp16", at::kHalf, 1e-5, 4e-3}, {"bf16", at::kBFloat16, 1e-5, 3e-2}}};

}  // namespace

std::vector<KernelTest> device_operator_tests(const model::CudaOperators& operators, const model::DeviceTraits& traits,
                                              const std::string& device) {
  std::vector<KernelTest> tests;
  for (const Rounding& rounding : kRoundings) {
    const auto there = [=](at::IntArrayRef shape, uint64_t seed) {
      return random_values(shape, seed).to(rounding.dtype).to(at::Device(device));
    };
    tests.push_back({"GEMM, fp32 result", rounding.name, rounding.gemm_limit, [=] {
                       const at::Tensor a = there({192, 256}, 1), b = there({256, 320}, 2);
                       return Compared{{operators.gemm(a, b)}, {in_fp64(a).mm(in_fp64(b))}};
                     }});
    tests.push_back({"GEMM, accumulating", rounding.name, rounding.gemm_limit, [=] {
                       // Has the strides of a gradient of B: a transposed A, a strided sum.
                       const at::Tensor left = there({256, 192}, 1).t(), right = there({256, 64}, 2);
                       const at::Tensor start = random_values({192, 128}, 3);
                       at::Tensor sum = start.clone().to(at::Device(device));
                       at::Tensor added = sum.narrow(1, 0, 64), replaced = sum.narrow(1, 64, 64);
                       operators.add_gemm(added, left, right, /*beta=*/1.0, /*alpha=*/0.5);
                       operators.add_gemm(replaced, left, right, /*beta=*/0.0, /*alpha=*/0.5);
                       const at::Tensor expected = in_fp64(left).mm(in_fp64(right)).mul_(0.5);
                       return Compared{{added, replaced}, {expected.add(start.narrow(1, 0, 64)), expected}};
                     }});
    for (const AttentionCase& chosen : attention_cases(traits)) {
      tests.push_back({fmt::format("attention ({})", chosen.name), rounding.name, rounding.attention_limit, [=] {
                         const AttentionTrial trial(chosen, rounding.dtype, device);
                         return Compared{trial.on_device(operators), trial.reference()};
                       }});
      if (chosen.kernel != AttentionKernel::kFlash) continue;
      tests.push_back({fmt::format("same bits twice ({})", chosen.name), rounding.name, 0.0, [=] {
                         const AttentionTrial trial(chosen, rounding.dtype, device);
                         return Compared{trial.on_device(operators), trial.on_device(operators)};
                       }});
    }
  }
  return tests;
}

std::vector<KernelTest> device_operator_tests(const model::DeviceTraits& traits, const std::string& device) {
  return device_operator_tests(model::libtorch_operators(), traits, device);
}

KernelTest graph_test(const MakeGraphCache& make_graph_cache, const std::string& device) {
  return {"CUDA graph, in two parts", "fp32", 0.0, [=] {
            constexpr int64_t kReplays = 3;
            std::string said;
            const auto graphs = make_graph_cache([&](const std::string& text) { said = text; });
            at::Tensor input = random_values({64, 96}, 1).to(at::Device(device));
            const at::Tensor weight = random_values({96, 128}, 2).to(at::Device(device));
            at::Tensor output = at::empty({64, 128}, input.options());
            const auto compute = [&](const std::function<void()>& pause) {
              const at::Tensor gemm = at::mm(input, weight);  // lives in the graph's memory, from part to part
              pause();
              output.copy_(at::gelu(gemm, "tanh"));
            };
            cuda::RepeatedWork work;
            work.shape = "self-test";
            work.begin = [] {};
            work.enqueue = compute;
            work.snapshot = [&] { return [&, before = output.clone()] { return before.equal(output); }; };
            Compared compared;
            for (int64_t run = 0; run < cuda::GraphCache::kEagerRuns + kReplays; ++run) {
              input.add_(0.25);
              graphs->run(work);
              compared.results.push_back(output.clone());
              compute([] {});
              compared.references.push_back(output.clone());
            }
            core::require(graphs->replays() == kReplays, core::ErrorKind::kDevice, "{}",
                          said.empty() ? "nothing was recorded" : said);
            return compared;
          }};
}

std::vector<KernelTest> lone_sum_tests(comm::Communicator& communicator, const std::string& device) {
  constexpr int64_t kElements = 100'003;
  const at::TensorOptions there = at::TensorOptions().device(at::Device(device));
  const at::Tensor whole = at::arange(kElements, there.dtype(at::kLong)).mul_(int64_t{1} << 40);
  const at::Tensor real = random_values({kElements}, 3).to(at::Device(device));
  const auto unchanged = [](const at::Tensor& after) {
    return [after, before = after.clone()] { return Compared{{after}, {before}}; };
  };
  return {{"two all-reduces at once", "", 0.0,
           [=, &communicator] {
             communicator.start_sum(whole.data_ptr(), static_cast<size_t>(kElements), comm::Element::kInt64);
             communicator.start_sum(real.data_ptr(), static_cast<size_t>(kElements), comm::Element::kFloat32);
             communicator.finish_sums();
             communicator.check();
             return Compared();
           }},
          {"all-reduce of int64, one rank", "int64", 0.0, unchanged(whole)},
          {"all-reduce of fp32, one rank", "fp32", 0.0, unchanged(real)}};
}

}  // namespace neoloom::launch
