// SPDX-License-Identifier: Apache-2.0
#include "runtime/train/evaluator.h"

#include <ATen/record_function.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "data/batching/step_list.h"
#include "runtime/core/clock.h"
#include "runtime/core/error.h"
#include "runtime/core/wire.h"
#include "runtime/train/gradient_sum.h"
#include "runtime/train/micro_batch_loader.h"
#include "runtime/train/predictor.h"
#include "runtime/train/score_table.h"
#include "runtime/train/window_mean.h"

namespace neoloom::metrics {
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(Mistake, row, truth, label, score, truth_score)
}  // namespace neoloom::metrics

namespace neoloom::train {
namespace {

// Holds the sums of one rank, on the host. They are integers, so their sum over ranks does not depend on the order.
struct Totals {
  int64_t loss_fixed = 0;
  int64_t not_finite = 0;
  int64_t targets = 0;
  int64_t right = 0;
  int64_t samples = 0;
  int64_t tokens = 0;
};

/// Appends the predictions [n, C] as bytes.
void append_values(const at::Tensor& logits, std::string& bytes) {
  const at::Tensor host = logits.cpu().contiguous();
  bytes.append(reinterpret_cast<const char*>(host.const_data_ptr<float>()), host.nbytes());
}

/// Joins the predictions of all ranks, whose shards ascend with the rank, and compares them with the store's values.
metrics::RegressionScores scores_of_all(comm::MpiSession& session, const data::TokenStore& store,
                                        const std::string& mine) {
  std::vector<float> predicted, truth;
  for (const std::string& part : session.all_gather(mine)) {
    const size_t before = predicted.size();
    predicted.resize(before + part.size() / sizeof(float));
    std::memcpy(predicted.data() + before, part.data(), part.size());
  }
  for (int64_t row = 0; row < store.packs(); ++row) {
    const auto values = store.values(store.pack_begin(row));
    truth.insert(truth.end(), values.begin(), values.end());
  }
  return metrics::regression_scores(predicted, truth, static_cast<int64_t>(store.label_names().size()));
}

/// Joins the most confident mistakes of all ranks.
void join_mistakes(comm::MpiSession& session, std::vector<metrics::Mistake>& mistakes) {
  const std::string mine = core::to_wire(std::exchange(mistakes, {}));
  for (const std::string& part : session.all_gather(mine)) {
    for (const auto& mistake : core::from_wire<std::vector<metrics::Mistake>>(part)) {
      metrics::add_mistake(mistakes, mistake);
    }
  }
}

/// Counts the predictions of this rank's batches, if the data are labelled.
class Predictions {
 public:
  Predictions(const data::TokenStore& store, const model::ModelSetup& setup,
              const std::optional<metrics::Calibration>& calibration, int64_t rows_of_rank, EvalResult& result)
      : store_(store), task_(setup.head), calibration_(calibration.value_or(metrics::Calibration{})), result_(result) {
    if (!store.labelled() || task_ == model::Head::kCausalLm) return;
    regression_ = task_ == model::Head::kRegression;
    if (regression_) return;
    if (task_ == model::Head::kSingleLabel) result.single_label.emplace(setup.num_labels);
    if (task_ == model::Head::kMultiLabel) result.multi_label.emplace(setup.num_labels);
    table_.emplace(rows_of_rank, setup.num_labels);
    result.majority_baseline = majority_baseline(store, task_);
  }

  void add(int64_t first_row, const at::Tensor& logits) {
    if (regression_) append_values(logits, values_);
    if (!table_) return;
    const at::Tensor host = logits.cpu().contiguous();
    const at::Tensor scores = class_scores(task_, logits, calibration_.temperature);
    table_->add(scores);
    const auto row = [](const at::Tensor& values, int64_t i) {
      const auto width = static_cast<size_t>(values.size(1));
      return std::span(values.const_data_ptr<float>() + static_cast<size_t>(i) * width, width);
    };
    for (int64_t i = 0; i < host.size(0); ++i) {
      const int64_t sample = store_.pack_begin(first_row + i);
      if (result_.single_label) {
        result_.add_single(first_row + i, store_.label(sample), row(host, i), row(scores, i));
      } else {
        result_.add_multi(store_.multi_label(sample), row(host, i), row(scores, i), calibration_.thresholds);
      }
    }
  }

  // Collective: every rank.
  void rank(comm::MpiSession& session) {
    if (regression_) result_.regression = scores_of_all(session, store_, values_);
    if (table_) result_.rankings = table_->rank(session, store_, task_);
    if (result_.single_label) join_mistakes(session, result_.mistakes);
  }

 private:
  const data::TokenStore& store_;
  model::Head task_;
  metrics::Calibration calibration_;
  EvalResult& result_;
  std::optional<ScoreTable> table_;
  bool regression_ = false;
  std::string values_;  // regression: the predictions of this rank, as bytes
};

void add_loss(double loss, int64_t targets, Totals& totals) {
  totals.targets += targets;
  if (std::isfinite(loss)) {
    totals.loss_fixed += std::llrint(loss * kLossUnit);
  } else {
    ++totals.not_finite;
  }
}

/// Adds the losses of the labelled rows of a batch, as the model's head computes them of their calibrated logits.
/// Shapes: logits [rows, C].
void add_losses_of_rows(const EvalRequest& request, const model::ModelSetup& setup, int64_t batch,
                        const at::Tensor& logits, Totals& totals) {
  if (!request.store->labelled()) return;
  const double temperature = request.calibration ? request.calibration->temperature : 1.0;
  const at::Tensor host = logits.cpu().div(temperature).contiguous();
  for (int64_t i = 0; i < host.size(0); ++i) {
    const RowLoss row = loss_of_row(*request.store, batch * request.batch_size + i, setup.head,
                                    host.const_data_ptr<float>() + i * host.size(1), setup.label_smoothing);
    if (row.counts) add_loss(row.loss, 1, totals);
  }
}

/// Evaluates a batch of samples or packs. Returns the logits of the samples, undefined for a causal LM.
at::Tensor evaluate_samples(model::Model& model, const at::Tensor& params, const EvalRequest& request, int64_t number,
                            Totals& totals) {
  const data::TokenStore& store = *request.store;
  const model::Head head = model.setup().head;
  const std::vector<int64_t> samples = samples_of_batch(request, number);
  const bool has_targets = store.labelled() || head == model::Head::kCausalLm;
  const model::Batch batch = to_model_batch(data::collate(store, samples, head, request.pad_id), has_targets);
  const model::EvalOutput output = model.evaluate(batch, params);
  totals.samples += static_cast<int64_t>(samples.size());
  totals.tokens += batch.cu_seqlens.back();
  if (request.calibration) {
    add_losses_of_rows(request, model.setup(), number, output.logits, totals);
  } else if (output.loss.loss.defined()) {
    add_loss(output.loss.loss.item<double>(), output.loss.count, totals);
  }
  if (output.right.defined()) totals.right += output.right.item<int64_t>();
  return output.logits;
}

/// Evaluates a batch of rows in windows. Returns the logits of the rows.
at::Tensor evaluate_windows(model::Model& model, const at::Tensor& params, const EvalRequest& request, int64_t batch,
                            Totals& totals) {
  const data::TokenStore& store = *request.store;
  at::Tensor logits = predict_batch(model, params, request, batch);
  add_losses_of_rows(request, model.setup(), batch, logits, totals);
  totals.samples += logits.size(0);
  for (const int64_t sample : samples_of_batch(request, batch)) {
    totals.tokens += std::max(1, store.lengths()[static_cast<size_t>(sample)]);
  }
  return logits;
}

void sum_over_ranks(comm::MpiSession& session, Totals& totals, EvalResult& result) {
  std::vector<int64_t> all = {totals.loss_fixed, totals.not_finite, totals.targets,
                              totals.right,      totals.samples,    totals.tokens};
  const size_t first = all.size();
  for (const auto cells : result.cells()) all.insert(all.end(), cells.begin(), cells.end());
  session.all_reduce_sum(all);
  totals = {all[0], all[1], all[2], all[3], all[4], all[5]};
  auto next = all.begin() + static_cast<int64_t>(first);
  for (const auto cells : result.cells()) {
    std::copy_n(next, cells.size(), cells.begin());
    next += std::ssize(cells);
  }
}

}  // namespace

std::vector<std::pair<std::string, std::string>> hashes_of(const std::vector<ValidationSet>& sets) {
  std::vector<std::pair<std::string, std::string>> hashes;
  hashes.reserve(sets.size());
  for (const ValidationSet& set : sets) hashes.emplace_back(set.name, set.store->content_hash());
  return hashes;
}

std::vector<int64_t> samples_of_batch(const EvalRequest& request, int64_t batch) {
  const data::TokenStore& store = *request.store;
  const int64_t first = store.pack_begin(batch * request.batch_size);
  const int64_t end = store.pack_begin(std::min((batch + 1) * request.batch_size, store.packs()));
  std::vector<int64_t> samples(static_cast<size_t>(end - first));
  std::iota(samples.begin(), samples.end(), first);
  return samples;
}

int64_t batches_of(const EvalRequest& request) {
  return (request.store->packs() + request.batch_size - 1) / request.batch_size;
}

EvalResult evaluate(comm::MpiSession& session, model::Model& model, const at::Tensor& params,
                    const EvalRequest& request) {
  RECORD_USER_SCOPE("evaluation");
  const auto phase = session.phase("evaluation");
  const double start = core::now_seconds();
  const data::TokenStore& store = *request.store;
  const model::Head head = model.setup().head;
  const bool in_windows = head != model::Head::kCausalLm && !store.pack_begins().empty();
  const int64_t rows = in_windows ? store.packs() : store.size();
  EvalResult result;
  Totals totals;
  const data::Shard shard = data::shard_of_rank(batches_of(request), session.rank(), session.size());
  Predictions predictions(store, model.setup(), request.calibration, (shard.end - shard.begin) * request.batch_size,
                          result);
  session.run_on_all_or_fail([&] {
    for (int64_t b = shard.begin; b < shard.end; ++b) {
      const at::Tensor logits = in_windows ? evaluate_windows(model, params, request, b, totals)
                                           : evaluate_samples(model, params, request, b, totals);
      predictions.add(b * request.batch_size, logits);
      if (request.progress) request.progress((b + 1 - shard.begin) * rows / (shard.end - shard.begin), rows);
    }
  });
  sum_over_ranks(session, totals, result);
  predictions.rank(session);
  result.samples = totals.samples;
  result.tokens = totals.tokens;
  result.targets = totals.targets;
  result.right = totals.right;
  result.loss = totals.not_finite > 0 ? std::nan("")
                : totals.targets > 0
                    ? static_cast<double>(totals.loss_fixed) / kLossUnit / static_cast<double>(totals.targets)
                    : 0.0;
  result.seconds = core::now_seconds() - start;
  return result;
}

}  // namespace neoloom::train
