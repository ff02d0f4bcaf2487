// SPDX-License-Identifier: Apache-2.0
#include "tests/bench/probes/gemm_cases.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "model/gpt_neo/weights.h"
#include "model/memory/memory_plan.h"

namespace neoloom::probes {

namespace {

constexpr int64_t kLength = 1024;
constexpr std::array<int64_t, 2> kRanks = {8, 16};

model::GptNeoConfig shape(int64_t hidden_size, int64_t layers, int64_t heads) {
  model::GptNeoConfig config;
  config.hidden_size = hidden_size;
  config.intermediate_size = 4 * hidden_size;
  config.num_layers = layers;
  config.num_heads = heads;
  config.layer_is_local.resize(static_cast<size_t>(layers));
  for (size_t layer = 1; layer < config.layer_is_local.size(); layer += 2) config.layer_is_local[layer] = true;
  return config;
}

/// A step's GEMMs as the plan counts them on a CPU, with a GPU's chunks of logits.
std::vector<model::StepGemm> counted_gemms(const model::GptNeoConfig& config, int64_t rows) {
  model::MemorySetup setup;
  setup.model.config = config;
  setup.model.lora = model::LoraOptions();
  setup.model.compute_dtype = setup.frozen_dtype = model::Dtype::kBFloat16;
  setup.model.device.cuda = true;
  setup.model.logits_chunk_rows = model::logits_chunk_rows(setup.model);
  setup.model.device.cuda = false;
  return model::training_gemms(setup, {rows / kLength, rows, kLength, rows});
}

int64_t aligned(int64_t vocabulary) {
  return (vocabulary + model::kHeadAlignment - 1) / model::kHeadAlignment * model::kHeadAlignment;
}

const char* operation_name(Operation operation) {
  switch (operation) {
    case Operation::kGemm:
      return "gemm";
    case Operation::kGemmFp32:
      return "gemm in fp32";
    case Operation::kSumFp32:
      return "sum in fp32";
    case Operation::kMlpForward:
      return "MLP forward";
    case Operation::kMlpBackward:
      return "MLP backward";
    case Operation::kResidual:
      return "residual sum";
    case Operation::kLoraUp:
      return "LoRA up";
    case Operation::kLoraForward:
      break;
  }
  return "LoRA forward";
}

/// The candidate's name: what runs.
std::string candidate_name(Operation operation, Way way) {
  const bool plain = operation == Operation::kGemm || operation == Operation::kGemmFp32;
  switch (way) {
    case Way::kToday:
      if (operation == Operation::kMlpForward) return "at::addmm, at::gelu";
      if (operation == Operation::kMlpBackward) return "at::mm, at::gelu_backward";
      if (operation == Operation::kResidual) return "at::add, at::addmm";
      if (operation == Operation::kLoraForward) return "at::mm, at::mm, at::addmm";
      return plain ? "at::mm" : "at::addmm";
    case Way::kCublasLt:
      if (operation == Operation::kLoraForward) return "cublasLt, W last";
      return "cublasLt";
    case Way::kBiasEpilogue:
      return "cublasLt BIAS, at::gelu";
    case Way::kFusedEpilogue:
      if (operation == Operation::kMlpForward) return "cublasLt GELU_AUX_BIAS";
      return operation == Operation::kMlpBackward ? "cublasLt DGELU" : "cublasLt BIAS, beta 1";
    case Way::kFrozenFirst:
      return "cublasLt, B last";
    case Way::kExtended:
      break;
  }
  return "cublasLt, K extended by r";
}

class Items {
 public:
  Items(const GemmModel& model, int64_t rows) : model_(model), rows_(rows) {}

  void add(Operation operation, const Gemm& gemm, const std::vector<Way>& ways, int64_t rank = 0) {
    for (const Way way : ways) {
      GemmItem item;
      item.name =
          fmt::format("{} {} rows, {} {} x {} x {}{}{}", model_.name, rows_, operation_name(operation), gemm.n, gemm.k,
                      gemm.m, gemm.backward ? " backward" : "", rank > 0 ? fmt::format(" r {}", rank) : "");
      item.candidate = candidate_name(operation, way);
      item.flops = gemm.flops();
      if (operation == Operation::kLoraForward) {
        item.flops += 2.0 * static_cast<double>(gemm.n * rank) * static_cast<double>(gemm.k + gemm.m);
      }
      item.shape = {{"model", model_.name},
                    {"rows", rows_},
                    {"operation", operation_name(operation)},
                    {"n", gemm.n},
                    {"k", gemm.k},
                    {"m", gemm.m},
                    {"backward", gemm.backward},
                    {"count", gemm.count},
                    {"rank", rank}};
      item.gemm = gemm;
      item.operation = operation;
      item.way = way;
      item.rank = rank;
      items_.push_back(std::move(item));
    }
  }

  /// GEMMs in the types of a step: the head's in fp32, the others in 16 bits and as a sum in fp32, since both occur.
  void add_gemms() {
    const std::vector<Way> ways = {Way::kToday, Way::kCublasLt};
    const int64_t vocabulary = aligned(model_.config.vocab_size);
    for (const Gemm& gemm : step_gemms(model_.config, rows_)) {
      if (gemm.k == vocabulary || gemm.m == vocabulary) {
        add(Operation::kGemmFp32, gemm, ways);
      } else {
        add(Operation::kGemm, gemm, ways);
        add(Operation::kSumFp32, gemm, ways);
      }
    }
  }

  void add_fused() {
    const int64_t h = model_.config.hidden_size, ff = model_.config.intermediate_size;
    const int64_t layers = model_.config.num_layers;
    add(Operation::kMlpForward, {rows_, h, ff, false, layers}, {Way::kToday, Way::kBiasEpilogue, Way::kFusedEpilogue});
    add(Operation::kMlpBackward, {rows_, h, ff, true, layers}, {Way::kToday, Way::kFusedEpilogue});
    for (const int64_t k : {h, ff}) {
      add(Operation::kResidual, {rows_, k, h, false, layers}, {Way::kToday, Way::kFusedEpilogue});
    }
    for (const int64_t rank : kRanks) {
      add(Operation::kLoraForward, {rows_, h, h, false, 2 * layers},
          {Way::kToday, Way::kCublasLt, Way::kFrozenFirst, Way::kExtended}, rank);
      add(Operation::kLoraUp, {rows_, rank, h, false, 2 * layers}, {Way::kToday, Way::kCublasLt}, rank);
    }
  }

  std::vector<GemmItem> take() { return std::move(items_); }

 private:
  const GemmModel& model_;
  int64_t rows_;
  std::vector<GemmItem> items_;
};

}  // namespace

std::vector<GemmModel> gemm_models() {
  return {{"1.3B", shape(2048, 24, 16), {8192, 16384}},
          {"125M", shape(768, 12, 12), {16384, 8192, 1024}},
          {"2.7B", shape(2560, 32, 20), {8192, 16384}}};
}

std::vector<Gemm> step_gemms(const model::GptNeoConfig& config, int64_t rows) {
  const int64_t h = config.hidden_size;
  std::vector<Gemm> gemms;
  for (const model::StepGemm& counted : counted_gemms(config, rows)) {
    const int64_t out = counted.out == config.vocab_size ? aligned(counted.out) : counted.out;
    Gemm gemm = {counted.rows, counted.in, out, counted.backward, counted.count};
    if (counted.backward) std::swap(gemm.k, gemm.m);
    if (counted.backward && counted.in == h && counted.out == h) {  // q, k and v of a block together, and out_proj
      const int64_t alone = std::min(config.num_layers, counted.count);
      gemms.push_back({counted.rows, 3 * h, h, true, (counted.count - alone) / 3});
      gemm.count = alone;
    }
    gemms.push_back(gemm);
  }
  return gemms;
}

std::vector<GemmItem> gemm_items() {
  std::vector<GemmItem> items;
  const std::vector<GemmModel> models = gemm_models();
  for (size_t turn = 0; turn < 3; ++turn) {  // every model's most usual rows first
    for (const GemmModel& model : models) {
      if (turn >= model.rows.size()) continue;
      Items some(model, model.rows[turn]);
      some.add_fused();
      some.add_gemms();
      for (GemmItem& item : some.take()) items.push_back(std::move(item));
    }
  }
  return items;
}

}  // namespace neoloom::probes
