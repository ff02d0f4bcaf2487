// SPDX-License-Identifier: Apache-2.0
#include "runtime/train/predictor.h"

#include <ATen/ops/cat.h>

#include <algorithm>
#include <array>
#include <utility>
#include <vector>

#include "data/batching/step_list.h"
#include "runtime/core/clock.h"
#include "runtime/train/micro_batch_loader.h"
#include "runtime/train/window_mean.h"

namespace neoloom::train {
namespace {

constexpr double kRoundSeconds = 0.5;
constexpr int64_t kMostBatchesOfRank = 64;

}  // namespace

at::Tensor predict_batch(model::Model& model, const at::Tensor& params, const EvalRequest& request, int64_t batch) {
  const std::vector<int64_t> samples = samples_of_batch(request, batch);
  const bool in_windows = !request.store->pack_begins().empty();
  // A row may have many windows, so they do not go through the model all at once.
  const int64_t most = in_windows ? request.batch_size : std::ssize(samples);
  std::vector<at::Tensor> logits;
  for (auto at = samples.begin(); at != samples.end();) {
    const auto end = at + std::min(most, samples.end() - at);
    data::RaggedBatch rows = data::collate(*request.store, {at, end}, model.setup().head, request.pad_id);
    logits.push_back(model.evaluate(to_model_batch(std::move(rows), /*has_targets=*/false), params).logits);
    at = end;
  }
  if (!in_windows) return logits.front();
  return mean_by_row(*request.store, batch * request.batch_size, at::cat(logits));
}

void run_rounds(comm::MpiSession& session, const Rounds& rounds) {
  int64_t of_rank = 1;
  for (int64_t first = 0; first < rounds.batches;) {
    const double start = core::now_seconds();
    const int64_t count = std::min(rounds.batches - first, of_rank * session.size());
    const data::Shard mine = data::shard_of_rank(count, session.rank(), session.size());
    session.run_on_all_or_fail([&] {
      for (int64_t batch = mine.begin; batch < mine.end; ++batch) rounds.compute(first + batch);
    });
    first += count;
    rounds.hand_over(first);
    // Clocks differ between ranks, so all agree on whether the round was short.
    std::array<int64_t, 1> was_short = {core::now_seconds() - start < kRoundSeconds / 2 ? 1 : 0};
    session.all_reduce_min(was_short);
    if (was_short[0] == 1) of_rank = std::min(2 * of_rank, kMostBatchesOfRank);
  }
}

}  // namespace neoloom::train
