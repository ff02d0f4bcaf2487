// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

#include "data/token_store.h"
#include "runtime/train/options.h"
#include "runtime/train/step_schedule.h"

namespace neoloom::train {

/// How max_tokens_per_micro_batch divides steps: a sample of at most 64 steps of the first epoch.
struct BudgetUse {
  int64_t max_tokens = 0;
  double micro_batches = 0.0;  // of a step, on average
  double fill = 0.0;           // share of the micro-batches' tokens
  double step_tokens = 0.0;    // on average
  int64_t longest = 0;         // tokens of the longest sample, or pack, of the data
};

/// Needs batching.max_tokens > 0. Throws: as data::StepList.
BudgetUse measure_budget_use(const data::TokenStore& store, const Options& options, const Batching& batching);

/// "about 13.2 micro-batches a step of at most 2048 tokens, 96 % full".
std::string describe(const BudgetUse& use);

/// Says what wastes time or memory: samples above the limit, or fewer micro-batches than ranks. Empty: nothing does.
std::string warning_of(const BudgetUse& use, int64_t ranks);

/// The same without max_tokens_per_micro_batch: says that some ranks have no micro-batch in any step, and what to
/// change. `packs`: of the training data. Empty: all have one.
std::string idle_ranks_warning(const Batching& batching, int64_t packs, int64_t ranks);

/// Returns what a lack of memory leads to: half the samples of a micro-batch, or half its tokens. Steps keep their
/// samples. Throws: CollectiveError(kDevice) when a micro-batch cannot be smaller.
Batching smaller_micro_batches(Batching batching, const data::TokenStore& store);

}  // namespace neoloom::train
