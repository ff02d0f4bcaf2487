// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "data/token_store.h"
#include "runtime/comm/mpi_session.h"
#include "runtime/core/task.h"
#include "runtime/metrics/ranking.h"

namespace neoloom::train {

/// The most of `samples` that a rank evaluates: ranks take contiguous shards of whole batches.
int64_t most_samples_of_rank(int64_t samples, int64_t batch_size, int64_t ranks);

/// Bytes that the ranking of an evaluation takes on the host of a rank.
int64_t score_table_bytes(int64_t samples, int64_t num_labels, int64_t batch_size, int64_t ranks);

/// One fp32 score for each label of each sample of this rank, for metrics that rank all samples.
class ScoreTable {
 public:
  ScoreTable(int64_t samples, int64_t num_labels);
  /// Appends the scores of this rank's next samples. Shapes: [B, num_labels] fp32 in host memory.
  void add(const at::Tensor& scores);
  /// Gathers one label after the other, in sample order, and ranks its scores. The result has the same bits on any
  /// number of ranks. Collective: every rank, whose shards are contiguous and ascend with the rank.
  std::vector<metrics::Ranking> rank(comm::MpiSession& session, const data::TokenStore& store, core::Task task) const;

 private:
  std::string column(int64_t label) const;

  int64_t num_labels_;
  std::vector<float> scores_;  // [samples of this rank, num_labels]
};

}  // namespace neoloom::train
