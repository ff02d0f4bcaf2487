// SPDX-License-Identifier: Apache-2.0
#include "runtime/train/evaluator.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>
#include <numeric>
#include <vector>

#include "data/batching/step_list.h"
#include "runtime/core/clock.h"
#include "runtime/core/error.h"
#include "runtime/train/micro_batch_loader.h"

namespace neoloom::train {
namespace {

constexpr double kLossUnit = 0x1.0p32;

// Holds the sums of one rank, on the host. They are integers, so their sum over ranks does not depend on the order.
struct Totals {
  int64_t loss_fixed = 0;
  int64_t not_finite = 0;
  int64_t targets = 0;
  int64_t samples = 0;
  int64_t tokens = 0;
};

void add_predictions(const data::TokenStore& store, int64_t first, const at::Tensor& logits, EvalResult& result) {
  const at::Tensor host = logits.cpu().contiguous();
  const float* row = host.const_data_ptr<float>();
  const int64_t labels = host.size(1);
  for (int64_t i = 0; i < host.size(0); ++i, row += labels) {
    if (result.single_label) {
      if (store.label(first + i) < 0) continue;
      result.single_label->add(store.label(first + i), std::max_element(row, row + labels) - row);
    } else {
      std::vector<uint8_t> predicted(static_cast<size_t>(labels));
      for (int64_t k = 0; k < labels; ++k) predicted[static_cast<size_t>(k)] = row[k] > 0.0F;  // sigmoid(x) > 0.5
      result.multi_label->add(store.multi_label(first + i), predicted);
    }
  }
}

void sum_over_ranks(comm::MpiSession& session, Totals& totals, EvalResult& result) {
  std::vector<int64_t> all = {totals.loss_fixed, totals.not_finite, totals.targets, totals.samples, totals.tokens};
  std::span<int64_t> cells;
  if (result.single_label) cells = result.single_label->cells();
  if (result.multi_label) cells = result.multi_label->cells();
  all.insert(all.end(), cells.begin(), cells.end());
  session.all_reduce_sum(all);
  totals = {all[0], all[1], all[2], all[3], all[4]};
  std::copy(all.begin() + 5, all.end(), cells.begin());
}

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
  for (int64_t sample = 0; sample < store.size(); ++sample) {
    const auto values = store.values(sample);
    truth.insert(truth.end(), values.begin(), values.end());
  }
  return metrics::regression_scores(predicted, truth, static_cast<int64_t>(store.label_names().size()));
}

}  // namespace

EvalResult evaluate(comm::MpiSession& session, model::Model& model, const at::Tensor& params,
                    const EvalRequest& request, const LogitsSink& sink) {
  const auto phase = session.phase("evaluation");
  const double start = core::now_seconds();
  const data::TokenStore& store = *request.store;
  const model::Head head = model.setup().head;
  EvalResult result;
  if (head == model::Head::kSingleLabel && store.labelled()) result.single_label.emplace(model.setup().num_labels);
  if (head == model::Head::kMultiLabel && store.labelled()) result.multi_label.emplace(model.setup().num_labels);

  const bool regression = head == model::Head::kRegression && store.labelled();
  std::string predicted;

  Totals totals;
  const int64_t batches = (store.size() + request.batch_size - 1) / request.batch_size;
  const data::Shard shard = data::shard_of_rank(batches, session.rank(), session.size());
  session.run_on_all_or_fail([&] {
    for (int64_t b = shard.begin; b < shard.end; ++b) {
      const int64_t first = b * request.batch_size;
      std::vector<int64_t> samples(static_cast<size_t>(std::min(request.batch_size, store.size() - first)));
      std::iota(samples.begin(), samples.end(), first);
      const bool has_targets = store.labelled() || head == model::Head::kCausalLm;
      const model::Batch batch = to_model_batch(data::collate(store, samples, head, request.pad_id), has_targets);
      const model::EvalOutput output = model.evaluate(batch, params);
      totals.samples += static_cast<int64_t>(samples.size());
      totals.tokens += batch.cu_seqlens.back();
      if (output.loss.loss.defined()) {
        const double loss = output.loss.loss.item<double>();
        totals.targets += output.loss.count;
        if (std::isfinite(loss)) {
          totals.loss_fixed += std::llrint(loss * kLossUnit);
        } else {
          ++totals.not_finite;
        }
      }
      if (result.single_label || result.multi_label) add_predictions(store, first, output.logits, result);
      if (regression) append_values(output.logits, predicted);
      if (sink) sink(first, output.logits);
    }
  });
  sum_over_ranks(session, totals, result);
  if (regression) result.regression = scores_of_all(session, store, predicted);
  result.samples = totals.samples;
  result.tokens = totals.tokens;
  result.targets = totals.targets;
  result.loss = totals.not_finite > 0 ? std::nan("")
                : totals.targets > 0
                    ? static_cast<double>(totals.loss_fixed) / kLossUnit / static_cast<double>(totals.targets)
                    : 0.0;
  result.seconds = core::now_seconds() - start;
  return result;
}

nlohmann::ordered_json EvalResult::json() const {
  nlohmann::ordered_json json;
  json["eval_samples"] = samples;
  if (targets > 0) json["eval_loss"] = loss;
  if (single_label) {
    json["eval_accuracy"] = single_label->accuracy();
    json["eval_macro_f1"] = single_label->macro_f1();
  } else if (multi_label) {
    json["eval_accuracy"] = multi_label->subset_accuracy();
    json["eval_micro_f1"] = multi_label->micro_f1();
    json["eval_macro_f1"] = multi_label->macro_f1();
  } else if (regression) {
    json["eval_mse"] = regression->mse;
    json["eval_mae"] = regression->mae;
    json["eval_pearson"] = regression->pearson;
    json["eval_spearmanr"] = regression->spearmanr;
  } else if (targets > 0) {
    json["eval_tokens"] = targets;
    json["eval_perplexity"] = std::exp(loss);
  }
  return json;
}

}  // namespace neoloom::train
