// SPDX-License-Identifier: Apache-2.0
#include "runtime/train/predictor.h"

#include <algorithm>
#include <array>
#include <utility>

#include "data/batching/step_list.h"
#include "runtime/core/clock.h"
#include "runtime/train/micro_batch_loader.h"

namespace neoloom::train {
namespace {

constexpr double kRoundSeconds = 0.5;
constexpr int64_t kMostBatchesOfRank = 64;

}  // namespace

at::Tensor predict_batch(model::Model& model, const at::Tensor& params, const EvalRequest& request, int64_t batch) {
  data::RaggedBatch rows =
      data::collate(*request.store, samples_of_batch(request, batch), model.setup().head, request.pad_id);
  return model.evaluate(to_model_batch(std::move(rows), /*has_targets=*/false), params).logits;
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
