// SPDX-License-Identifier: Apache-2.0
#include "launch/planning/memory_budget.h"

#include <algorithm>
#include <array>
#include <functional>
#include <limits>
#include <numeric>
#include <optional>
#include <vector>

#include "data/batching/step_list.h"
#include "launch/system/host_memory.h"
#include "model/cpu_traits.h"
#include "model/lora/trainable_count.h"
#include "runtime/core/error.h"
#include "runtime/cuda/plugin.h"
#include "runtime/metrics/events.h"
#include "runtime/metrics/text_width.h"
#include "runtime/train/calibrator.h"
#include "runtime/train/optimizer_setup.h"
#include "runtime/train/score_table.h"

namespace neoloom::launch {
namespace {

using metrics::memory_text;

using core::ErrorKind;
using train::AutoFlag;

// Is left to LibTorch's and BLAS's own buffers, and to others on the node.
constexpr double kHeadroom = 0.2;
// The heap keeps what is freed (core::settle_process), and the next tensors do not fit into it exactly. Processes of
// 125M and 1.3B took between 8 % and 65 % of their micro-step more than the other items together. With this item they
// are within 15 % of the plan: tests/e2e/test_large_memory.py.
constexpr double kHeapGaps = 0.35;

int64_t without_headroom(int64_t bytes) { return static_cast<int64_t>(static_cast<double>(bytes) * (1.0 - kHeadroom)); }

bool on_gpu(const MemoryPlanInput& question) { return question.setup.model.device.cuda; }

/// Returns the bytes of ids, and of targets with their rows for a causal LM, in 64 bits.
int64_t batch_bytes(const model::BatchShape& batch, bool causal) {
  return (batch.tokens + (causal ? 2 * batch.targets : 0)) * static_cast<int64_t>(sizeof(int64_t));
}

/// Returns a number of tokens to which micro-batches that fit with checkpointing can be limited; 0: not even the
/// longest sample fits.
int64_t fitting_tokens(MemoryPlanInput question, int64_t budget_bytes) {
  const int64_t longest = largest_batch(*question.train, 1).tokens;
  int64_t& tokens = question.batching.max_tokens;
  while (tokens > longest) {
    tokens = std::max(longest, tokens / 2);
    if (rank_memory(question, /*gradient_checkpointing=*/true).total_bytes <= budget_bytes) return tokens;
  }
  return 0;
}

/// Returns the largest number of samples of which a micro-batch fits with checkpointing; 0 when not even one does.
int64_t fitting_samples(MemoryPlanInput question, int64_t budget_bytes) {
  int64_t& samples = question.batching.micro_batch_size;
  while (--samples > 0) {
    if (rank_memory(question, /*gradient_checkpointing=*/true).total_bytes <= budget_bytes) return samples;
  }
  return 0;
}

std::string advice(const MemoryPlanInput& question, const MemoryDecision& decision, int64_t budget_bytes) {
  if (!decision.gradient_checkpointing) {
    const RankMemory less = rank_memory(question, /*gradient_checkpointing=*/true);
    if (less.total_bytes <= budget_bytes) {
      return fmt::format("trainer_config.gradient_checkpointing: auto or true would need {}",
                         memory_text(less.total_bytes));
    }
  }
  const bool by_tokens = question.batching.max_tokens > 0;
  const int64_t fitting = by_tokens ? fitting_tokens(question, budget_bytes) : fitting_samples(question, budget_bytes);
  const std::string smaller =
      fitting > 0 ? fmt::format("trainer_config.{} {} would fit, or a smaller tokenizer_config.max_length",
                                by_tokens ? "max_tokens_per_micro_batch" : "per_device_train_batch_size", fitting)
                  : std::string("lower tokenizer_config.max_length, or take a smaller model or frozen_dtype");
  return smaller + (on_gpu(question) ? "" : ", or fewer ranks on a node");
}

}  // namespace

model::BatchShape largest_batch(const data::TokenStore& store, int64_t rows, int64_t max_tokens, bool counts_packs) {
  const auto begins = counts_packs ? store.pack_begins() : std::span<const int64_t>{};
  const std::vector<int32_t> lengths = data::sums_of_packs(store.lengths(), begins);
  const int64_t limit = max_tokens > 0 ? max_tokens : std::numeric_limits<int64_t>::max();
  if (max_tokens > 0) {  // the most samples are in a micro-batch of short ones
    std::vector<int32_t> ascending = lengths;
    std::sort(ascending.begin(), ascending.end());
    int64_t tokens = 0;
    const auto above = [&](int32_t length) { return (tokens += std::max(1, length)) > max_tokens; };
    const auto end = std::find_if(ascending.begin(), ascending.end(), above);
    rows = std::clamp<int64_t>(end - ascending.begin(), 1, rows);
  }
  const auto largest = [rows](std::span<const int32_t> values) {
    std::vector<int32_t> sorted(values.begin(), values.end());
    const auto count = std::min<int64_t>(rows, static_cast<int64_t>(sorted.size()));
    std::partial_sort(sorted.begin(), sorted.begin() + count, sorted.end(), std::greater<>());
    sorted.resize(static_cast<size_t>(count));
    return sorted;
  };
  const auto sum = [](const std::vector<int32_t>& values) {
    return std::accumulate(values.begin(), values.end(), int64_t{0});
  };
  model::BatchShape batch;
  batch.samples = sum(largest(data::sums_of_packs(std::vector<int32_t>(store.lengths().size(), 1), begins)));
  const int64_t longest_pack = lengths.empty() ? 0 : *std::ranges::max_element(lengths);
  batch.tokens = std::max(longest_pack, std::min(limit, sum(largest(lengths))));
  batch.longest = store.size() == 0 ? 0 : *std::ranges::max_element(store.lengths());
  batch.targets =
      std::min(std::max(batch.tokens, batch.samples), sum(largest(data::sums_of_packs(store.target_counts(), begins))));
  return batch;
}

MemoryPlanInput memory_plan_input(const RunConfig& config, const TaskChoice& task, const Base& base,
                                  const data::TokenStore& train, const std::vector<train::ValidationSet>& validation,
                                  const model::DeviceTraits& device) {
  MemoryPlanInput question;
  model::ModelSetup& setup = question.setup.model;
  setup.config = base.config;
  setup.head = task.value;
  setup.num_labels = task.classifies() ? static_cast<int64_t>(train.label_names().size()) : 0;
  setup.lora = config.peft_config;
  setup.compute_dtype = resolve_compute_dtype(config, device.cuda ? "cuda" : "cpu");
  setup.logits_chunk_rows = config.runtime.logits_chunk_rows;
  setup.neftune_noise_alpha = config.trainer_config.neftune_noise_alpha;
  setup.device = device;
  question.setup.frozen_dtype = stored_dtype(config);
  question.setup.packed_weights = setup.lora && !device.cuda && model::has_packed_gemm(setup.compute_dtype);
  const model::TrainableCount trained = model::count_trainable(base.config, setup.lora, setup.num_labels);
  question.flat_elements = trained.flat_elements;
  question.moment_bytes = optim::state_sizes(train::optimizer_options(config.trainer_config), trained.flat_elements,
                                             trained.factored_elements)
                              .bytes();
  question.gradient_sum = config.runtime.gradient_sum;
  question.keeps_best = config.trainer_config.load_best_model_at_end;
  question.calibrates = config.trainer_config.calibrate;
  question.eval_batch_size = config.trainer_config.per_device_eval_batch_size;
  question.prefetch_batches = config.runtime.prefetch_batches;
  question.train = &train;
  question.validation = validation;
  return question;
}

model::DeviceTraits planned_device(const RunConfig& config) {
  model::DeviceTraits traits;
  traits.deterministic = config.runtime.deterministic;
  traits.cuda = config.runtime.device == "cuda" || (config.runtime.device == "auto" && cuda::gpu_present());
  if (traits.cuda) traits.capability_major = 8;
  return traits;
}

RankMemory rank_memory(const MemoryPlanInput& question, bool gradient_checkpointing) {
  model::MemorySetup setup = question.setup;
  setup.model.gradient_checkpointing = gradient_checkpointing;
  const bool causal = setup.model.head == model::Head::kCausalLm;
  RankMemory memory;
  memory.weights = model::weight_memory(setup);
  memory.state =
      train::state_memory(question.gradient_sum, question.flat_elements, question.moment_bytes, question.keeps_best,
                          setup.model.lora && setup.model.lora->init_lora_weights.splits_weights());
  const train::Batching& batching = question.batching;
  memory.batch =
      largest_batch(*question.train, batching.max_tokens > 0 ? batching.global_batch_size() : batching.micro_batch_size,
                    batching.max_tokens);
  memory.step = model::training_memory(setup, memory.batch);
  for (const train::ValidationSet& set : question.validation) {
    const auto bytes = [&](auto& of) {
      return of(set.store->packs(), setup.model.num_labels, question.eval_batch_size, question.ranks);
    };
    const int64_t scores = std::max(causal ? 0 : bytes(train::score_table_bytes),
                                    question.calibrates ? bytes(train::calibration_bytes) : 0);
    // The windows of a row need not go through the model together.
    const model::BatchShape batch =
        largest_batch(*set.store, question.eval_batch_size, /*max_tokens=*/0, /*counts_packs=*/causal);
    const int64_t peak = model::evaluation_peak_bytes(setup, batch);
    memory.score_bytes = std::max(memory.score_bytes, scores);
    memory.evaluation_bytes = std::max(memory.evaluation_bytes, peak + (on_gpu(question) ? 0 : scores));
  }
  int64_t phases = std::max(memory.step.peak_bytes, memory.evaluation_bytes);
  if (!on_gpu(question)) {
    memory.heap_gap_bytes = static_cast<int64_t>(kHeapGaps * static_cast<double>(phases));
    phases = std::max(phases, memory.state.saving_bytes) + memory.state.best_bytes;
    memory.prefetch_bytes = (question.prefetch_batches + 1) * batch_bytes(memory.batch, causal);
    memory.process_bytes = question.process_bytes;
    memory.weight_share_bytes = memory.weights.read_bytes / question.ranks_per_node;
  }
  memory.total_bytes = memory.process_bytes + memory.weights.private_bytes + memory.weight_share_bytes +
                       memory.state.total_bytes() + memory.prefetch_bytes + phases + memory.heap_gap_bytes;
  return memory;
}

std::string describe(const RankMemory& memory, const MemoryPlanInput& question) {
  std::string text;
  const auto line = [&](const char* name, const std::string& value) {
    text += fmt::format("  {:<22}{}\n", name, value);
  };
  const bool gpu = on_gpu(question);
  if (!gpu) line("program", memory_text(memory.process_bytes) + " (measured now)");
  if (gpu) {
    line("frozen weights", memory_text(memory.weights.private_bytes));
  } else {
    line("frozen weights", fmt::format("{} as its share of {} that are mapped once per node, and {} of its own",
                                       memory_text(memory.weight_share_bytes), memory_text(memory.weights.mapped_bytes),
                                       memory_text(memory.weights.private_bytes)));
  }
  line("training state",
       fmt::format("{} (values {}, gradients {}, moments {}, sums {})", memory_text(memory.state.total_bytes()),
                   memory_text(memory.state.parameter_bytes), memory_text(memory.state.gradient_bytes),
                   memory_text(memory.state.moment_bytes), memory_text(memory.state.sum_bytes)));
  line("micro-step", fmt::format("{} at most, for {} samples of {} tokens together; its blocks keep {}, {} each",
                                 memory_text(memory.step.peak_bytes), memory.batch.samples, memory.batch.tokens,
                                 memory_text(memory.step.saved_bytes), memory_text(memory.step.block_saved_bytes)));
  if (memory.evaluation_bytes > 0) {
    line("evaluation", memory_text(memory.evaluation_bytes) +
                           (memory.score_bytes == 0
                                ? ""
                                : fmt::format("{} scores of all rows take {}", gpu ? "; on the host" : ", of which",
                                              memory_text(memory.score_bytes))));
  }
  if (!gpu) {
    line("micro-batches ahead", memory_text(memory.prefetch_bytes));
    line("gaps in the heap", memory_text(memory.heap_gap_bytes));
    line("writing a checkpoint", memory_text(memory.state.saving_bytes) + " (rank 0, between steps)");
  }
  return text;
}

MemoryBudget measure_budget(const RunConfig& config, DeviceMemory memory, int64_t ranks_per_node) {
  MemoryBudget budget;
  budget.process_bytes = memory.on_gpu ? 0 : metrics::private_resident_bytes();
  budget.chosen = config.runtime.memory_budget.bytes > 0;
  if (budget.chosen) {
    budget.bytes = config.runtime.memory_budget.bytes;
  } else if (memory.host_bytes > 0) {
    budget.bytes = without_headroom(memory.host_bytes) / ranks_per_node;
  } else if (!memory.on_gpu) {
    const int64_t available = available_host_bytes();
    if (available > 0) budget.bytes = without_headroom(available) / ranks_per_node + budget.process_bytes;
  } else {
    budget.bytes = without_headroom(memory.free_device_bytes);
  }
  return budget;
}

int64_t largest_micro_batch(MemoryPlanInput question, bool gradient_checkpointing, int64_t budget_bytes) {
  const bool by_tokens = question.batching.max_tokens > 0;
  const int64_t all = by_tokens ? largest_batch(*question.train, question.batching.global_batch_size()).tokens
                                : question.train->packs();
  int64_t& size = by_tokens ? question.batching.max_tokens : question.batching.micro_batch_size;
  const auto fits = [&](int64_t tried) {
    size = tried;
    return rank_memory(question, gradient_checkpointing).total_bytes <= budget_bytes;
  };
  int64_t fitting = 0;
  int64_t above = by_tokens ? largest_batch(*question.train, 1).tokens : 1;
  while (above <= all && fits(above)) {
    fitting = above;
    above = above == all ? all + 1 : std::min(2 * above, all);
  }
  if (fitting == 0) return 0;
  while (above - fitting > 1) {
    const int64_t middle = fitting + (above - fitting) / 2;
    (fits(middle) ? fitting : above) = middle;
  }
  return fitting;
}

MemoryDecision decide_memory(const MemoryPlanInput& question, AutoFlag choice, int64_t budget_bytes) {
  MemoryDecision decision;
  decision.gradient_checkpointing = choice == AutoFlag::kTrue;
  decision.memory = rank_memory(question, decision.gradient_checkpointing);
  decision.fits = budget_bytes == 0 || decision.memory.total_bytes <= budget_bytes;
  if (decision.fits || choice != AutoFlag::kAuto) return decision;
  return decide_memory(question, AutoFlag::kTrue, budget_bytes);
}

std::string does_not_fit(const MemoryPlanInput& question, const MemoryDecision& decision, int64_t budget_bytes) {
  return fmt::format(
      "a rank would need {} of memory{}, but its budget (runtime.memory_budget) is {}:\n"
      "{}{}; or try a larger runtime.memory_budget",
      memory_text(decision.memory.total_bytes),
      decision.gradient_checkpointing ? " with gradient checkpointing" : " without gradient checkpointing",
      memory_text(budget_bytes), describe(decision.memory, question), advice(question, decision, budget_bytes));
}

MemoryNote resolve_memory(comm::MpiSession& session, const RunConfig& config, MemoryPlanInput question,
                          MemoryBudget budget, ResolvedSettings& resolved) {
  constexpr int64_t kUnknown = std::numeric_limits<int64_t>::max();
  std::array<int64_t, 2> smallest = {budget.bytes > 0 ? budget.bytes : kUnknown, question.ranks_per_node};
  std::array<int64_t, 1> largest_process = {budget.process_bytes};
  session.all_reduce_min(smallest);
  session.all_reduce_max(largest_process);
  const int64_t bytes = smallest[0] == kUnknown ? 0 : smallest[0];
  question.ranks_per_node = smallest[1];
  question.process_bytes = largest_process[0];
  AutoFlag choice = config.trainer_config.gradient_checkpointing;
  if (choice == AutoFlag::kAuto && resolved.gradient_checkpointing) choice = AutoFlag::kTrue;
  const MemoryDecision decision = decide_memory(question, choice, bytes);
  // Ranks of unlike devices plan unlike memory.
  std::array<int64_t, 2> anywhere = {decision.gradient_checkpointing ? 1 : 0, decision.fits ? 0 : 1};
  session.all_reduce_max(anywhere);
  resolved.gradient_checkpointing = anywhere[0] != 0;
  if (anywhere[1] != 0) {
    const std::string problem = decision.fits ? "" : does_not_fit(question, decision, bytes);
    if (config.trainer_config.auto_find_batch_size) {
      return {
          "memory: the plan does not fit, but the run starts (trainer_config.auto_find_batch_size: true); " + problem,
          true};
    }
    session.agree_no_error(decision.fits ? std::nullopt : std::optional(core::Error(ErrorKind::kDevice, problem)));
  }
  return {fmt::format("memory: {} planned per rank, budget {}; gradient checkpointing {}",
                      memory_text(decision.memory.total_bytes), bytes > 0 ? memory_text(bytes) : "unknown",
                      resolved.gradient_checkpointing ? "on: backward recomputes the blocks" : "off"),
          resolved.gradient_checkpointing && config.trainer_config.gradient_checkpointing == AutoFlag::kAuto};
}

}  // namespace neoloom::launch
