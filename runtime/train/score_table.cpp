// SPDX-License-Identifier: Apache-2.0
#include "runtime/train/score_table.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "runtime/core/error.h"

namespace neoloom::train {
namespace {

bool has_label(const data::TokenStore& store, core::Task task, int64_t sample, int64_t label) {
  return task == core::Task::kMultiLabel ? store.multi_label(sample)[static_cast<size_t>(label)] != 0
                                         : store.label(sample) == label;
}

metrics::Ranking rank_column(const std::vector<std::string>& parts, const data::TokenStore& store, core::Task task,
                             int64_t label) {
  std::vector<float> with, without;
  int64_t row = 0;
  for (const std::string& part : parts) {
    for (size_t at = 0; at < part.size(); at += sizeof(float), ++row) {
      float score = 0.0F;
      std::memcpy(&score, part.data() + at, sizeof(float));
      (has_label(store, task, store.pack_begin(row), label) ? with : without).push_back(score);
    }
  }
  core::require(row == store.packs(), core::ErrorKind::kInternal, "{} scores of {} rows", row, store.packs());
  return metrics::rank_scores(std::move(with), std::move(without));
}

}  // namespace

int64_t most_samples_of_rank(int64_t samples, int64_t batch_size, int64_t ranks) {
  const int64_t batches = (samples + batch_size - 1) / batch_size;
  return std::min(samples, (batches + ranks - 1) / ranks * batch_size);
}

int64_t score_table_bytes(int64_t samples, int64_t num_labels, int64_t batch_size, int64_t ranks) {
  const int64_t own = most_samples_of_rank(samples, batch_size, ranks);
  // A column is in memory as this rank's text, the texts of all, and the two lists to sort, which grow by doubling.
  return static_cast<int64_t>(sizeof(float)) * (own * num_labels + own + 4 * samples);
}

ScoreTable::ScoreTable(int64_t samples, int64_t num_labels) : num_labels_(num_labels) {
  scores_.reserve(static_cast<size_t>(samples * num_labels));
}

void ScoreTable::add(const at::Tensor& scores) {
  const float* const values = scores.const_data_ptr<float>();
  scores_.insert(scores_.end(), values, values + scores.numel());
}

std::string ScoreTable::column(int64_t label) const {
  const size_t width = static_cast<size_t>(num_labels_);
  std::string text(scores_.size() / width * sizeof(float), '\0');
  for (size_t row = 0; row * width < scores_.size(); ++row) {
    std::memcpy(text.data() + row * sizeof(float), &scores_[row * width + static_cast<size_t>(label)], sizeof(float));
  }
  return text;
}

std::vector<metrics::Ranking> ScoreTable::rank(comm::MpiSession& session, const data::TokenStore& store,
                                               core::Task task) const {
  std::vector<metrics::Ranking> rankings;
  for (int64_t label = 0; label < num_labels_; ++label) {
    rankings.push_back(rank_column(session.all_gather(column(label)), store, task, label));
  }
  return rankings;
}

}  // namespace neoloom::train
