// SPDX-License-Identifier: Apache-2.0
#include "runtime/train/token_budget.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <vector>

#include "data/batching/step_list.h"
#include "runtime/comm/collective_error.h"

namespace neoloom::train {
namespace {

using core::ErrorKind;

constexpr int64_t kMeasuredSteps = 64;

int64_t longest_pack(const data::TokenStore& store) {
  const std::vector<int32_t> packs = data::sums_of_packs(store.lengths(), store.pack_begins());
  return *std::max_element(packs.begin(), packs.end());
}

}  // namespace

BudgetUse measure_budget_use(const data::TokenStore& store, const Options& options, const Batching& batching) {
  data::StepList list(store.lengths(), store.target_counts(), step_list_options(options, batching), {},
                      store.pack_begins());
  BudgetUse use;
  use.max_tokens = batching.max_tokens;
  use.longest = longest_pack(store);
  // The last step of an epoch may be smaller than the others.
  const int64_t steps = std::clamp<int64_t>(list.steps_per_epoch() - 1, 1, kMeasuredSteps);
  int64_t micro_batches = 0;
  int64_t all_tokens = 0;
  int64_t budget = 0;
  for (int64_t step = 0; step < steps; ++step) {
    for (const std::vector<int64_t>& batch : list.step(/*epoch=*/0, step).micro_batches) {
      int64_t tokens = 0;
      for (const int64_t sample : batch) tokens += std::max(1, store.lengths()[static_cast<size_t>(sample)]);
      ++micro_batches;
      all_tokens += tokens;
      budget += std::max(tokens, batching.max_tokens);
    }
  }
  const auto per_step = [steps](int64_t sum) { return static_cast<double>(sum) / static_cast<double>(steps); };
  use.micro_batches = per_step(micro_batches);
  use.step_tokens = per_step(all_tokens);
  use.fill = use.step_tokens / per_step(budget);
  return use;
}

std::string describe(const BudgetUse& use) {
  return fmt::format("about {:.1f} micro-batches a step of at most {} tokens, {:.0f} % full", use.micro_batches,
                     use.max_tokens, 100.0 * use.fill);
}

std::string warning_of(const BudgetUse& use, int64_t ranks) {
  if (use.longest > use.max_tokens) {
    return fmt::format(
        "trainer_config.max_tokens_per_micro_batch is {}, but the longest sample has {} tokens: a sample above the "
        "limit is a micro-batch of its own; raise it, or lower tokenizer_config.max_length",
        use.max_tokens, use.longest);
  }
  if (use.micro_batches >= static_cast<double>(ranks)) return "";
  const auto most = std::max(static_cast<double>(use.longest), use.step_tokens / static_cast<double>(ranks) * 1.05);
  return fmt::format(
      "trainer_config.max_tokens_per_micro_batch {} makes about {:.1f} micro-batches a step, so some of the {} ranks "
      "have nothing to do; lower it to about {:.0f}, or let a step have more samples",
      use.max_tokens, use.micro_batches, ranks, most);
}

std::string idle_ranks_warning(const Batching& batching, int64_t packs, int64_t ranks) {
  const int64_t size = batching.micro_batch_size;
  const int64_t filled = (packs + size - 1) / size;
  const int64_t working = std::min(batching.micro_batches_per_step, filled);
  if (working >= ranks) return "";
  std::string text = fmt::format(
      "a step has {} micro-batch{} of {}{}, so {} of the {} ranks {} nothing to do: use {} rank{}", working,
      working == 1 ? "" : "es", size, filled < batching.micro_batches_per_step ? ", and the data fill no more" : "",
      ranks - working, ranks, ranks - working == 1 ? "has" : "have", working, working == 1 ? "" : "s");
  std::vector<std::string> others;
  if (filled >= ranks) others.push_back(fmt::format("raise runtime.global_batch_size to {}", size * ranks));
  if (const int64_t most = std::min(batching.global_batch_size(), packs) / ranks; most > 0)
    others.push_back(fmt::format("lower trainer_config.per_device_train_batch_size to {}", most));
  return others.empty() ? text : fmt::format("{}; or, for a new run, {}", text, fmt::join(others, " or "));
}

Batching smaller_micro_batches(Batching batching, const data::TokenStore& store) {
  if (batching.max_tokens > 0) {
    const int64_t longest = longest_pack(store);
    if (batching.max_tokens <= longest) {
      throw comm::CollectiveError(
          ErrorKind::kDevice, fmt::format("out of memory with micro-batches of at most {} tokens, and a sample has {}: "
                                          "lower tokenizer_config.max_length, or use devices with more memory",
                                          batching.max_tokens, longest));
    }
    batching.max_tokens = std::max(longest, batching.max_tokens / 2);
    return batching;
  }
  const int64_t global = batching.global_batch_size();
  int64_t smaller = batching.micro_batch_size / 2;
  while (smaller > 1 && global % smaller != 0) --smaller;
  if (smaller < 1) {
    throw comm::CollectiveError(ErrorKind::kDevice,
                                "out of memory with a micro-batch of one sample: "
                                "lower tokenizer_config.max_length, or use devices with more memory");
  }
  batching.micro_batch_size = smaller;
  batching.micro_batches_per_step = global / smaller;
  return batching;
}

}  // namespace neoloom::train
