// SPDX-License-Identifier: Apache-2.0
#include "runtime/train/calibrator.h"

#include <ATen/ops/empty.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <span>
#include <utility>
#include <vector>

#include "data/batching/step_list.h"
#include "runtime/core/error.h"
#include "runtime/core/text.h"
#include "runtime/metrics/score_counts.h"
#include "runtime/train/predictor.h"
#include "runtime/train/score_table.h"

namespace neoloom::train {
namespace {

using nlohmann::ordered_json;

constexpr int64_t kRowsAtOnce = 4096;
constexpr int64_t kFewSamples = 20;

/// The logits of all rows, and their truth.
struct Gathered {
  core::Task task;
  at::Tensor logits;             // [n, C] fp32, host
  std::vector<int64_t> classes;  // single-label [n]
  std::vector<uint8_t> labels;   // multi-label [n, C]

  bool multi() const { return task == core::Task::kMultiLabel; }
  std::span<const float> values() const {
    return {logits.const_data_ptr<float>(), static_cast<size_t>(logits.numel())};
  }
};

std::string logits_of_rank(const comm::MpiSession& session, model::Model& model, const at::Tensor& params,
                           const EvalRequest& request) {
  const data::Shard shard = data::shard_of_rank(batches_of(request), session.rank(), session.size());
  std::string bytes;
  bytes.reserve(static_cast<size_t>((shard.end - shard.begin) * request.batch_size * model.setup().num_labels) *
                sizeof(float));
  for (int64_t batch = shard.begin; batch < shard.end; ++batch) {
    const at::Tensor logits = predict_batch(model, params, request, batch).cpu().contiguous();
    bytes.append(reinterpret_cast<const char*>(logits.const_data_ptr<float>()), logits.nbytes());
    if (request.progress) {
      request.progress((batch + 1 - shard.begin) * request.store->packs() / (shard.end - shard.begin),
                       request.store->packs());
    }
  }
  return bytes;
}

Gathered join(std::vector<std::string> parts, const data::TokenStore& store, core::Task task, int64_t num_labels) {
  Gathered all{task, at::empty({store.packs(), num_labels}, at::kFloat), {}, {}};
  auto* to = reinterpret_cast<char*>(all.logits.mutable_data_ptr<float>());
  for (std::string& part : parts) {
    to = std::copy(part.begin(), part.end(), to);
    part = {};
  }
  for (int64_t row = 0; row < store.packs(); ++row) {
    const int64_t sample = store.pack_begin(row);
    if (all.multi()) {
      const auto labels = store.multi_label(sample);
      all.labels.insert(all.labels.end(), labels.begin(), labels.end());
    } else {
      all.classes.push_back(store.label(sample));
    }
  }
  return all;
}

double calibration_error(const Gathered& all, double temperature) {
  metrics::CalibrationBins bins;
  const int64_t width = all.logits.size(1);
  for (int64_t first = 0; first < all.logits.size(0); first += kRowsAtOnce) {
    const int64_t count = std::min(kRowsAtOnce, all.logits.size(0) - first);
    const at::Tensor scores = class_scores(all.task, all.logits.narrow(0, first, count), temperature);
    for (int64_t i = 0; i < count; ++i) {
      const float* const row = scores.const_data_ptr<float>() + i * width;
      if (all.multi()) {
        for (int64_t k = 0; k < width; ++k) {
          bins.add(row[k], all.labels[static_cast<size_t>((first + i) * width + k)] != 0);
        }
      } else {
        const int64_t predicted = std::max_element(row, row + width) - row;
        bins.add(row[predicted], predicted == all.classes[static_cast<size_t>(first + i)]);
      }
    }
  }
  return bins.expected_calibration_error();
}

std::vector<float> best_thresholds(const Gathered& all, double temperature) {
  std::vector<float> thresholds;
  const int64_t width = all.logits.size(1);
  std::vector<std::pair<float, bool>> scored;
  for (int64_t k = 0; k < width; ++k) {
    const at::Tensor scores = class_scores(all.task, all.logits.select(1, k), temperature);
    scored.clear();
    for (int64_t row = 0; row < scores.size(0); ++row) {
      scored.emplace_back(scores.const_data_ptr<float>()[row], all.labels[static_cast<size_t>(row * width + k)] != 0);
    }
    thresholds.push_back(metrics::best_threshold(scored));
  }
  return thresholds;
}

/// Returns why a calibration on these samples may not hold for others; empty: nothing speaks against it.
std::string doubt(const Gathered& all, const std::vector<std::string>& names) {
  std::string text;
  if (all.logits.size(0) < kFewSamples)
    text = fmt::format("; do not rely on it: these are less than {} samples", kFewSamples);
  const std::vector<int64_t>& classes = all.classes;
  if (!classes.empty() &&
      std::all_of(classes.begin(), classes.end(), [&](int64_t each) { return each == classes[0]; })) {
    text += fmt::format("; all samples have the label {}, so it tells nothing of the others",
                        core::quoted(names[static_cast<size_t>(classes[0])]));
  }
  return text;
}

Calibrated fit(const Gathered& all, const std::vector<std::string>& names) {
  const auto values = all.values();
  if (!std::all_of(values.begin(), values.end(), [](float value) { return std::isfinite(value); })) {
    return {.values = {}, .text = "calibration: a logit is not finite, so the result has none", .warns = true};
  }
  metrics::Calibration found;
  found.temperature = all.multi() ? metrics::fit_temperature(values, std::span<const uint8_t>(all.labels))
                                  : metrics::fit_temperature(values, std::span<const int64_t>(all.classes));
  if (all.multi()) found.thresholds = best_thresholds(all, found.temperature);
  const double before = calibration_error(all, 1.0);
  const double after = calibration_error(all, found.temperature);
  ordered_json made = {{"temperature", found.temperature}};
  made["labels"] = names;
  if (all.multi()) made["thresholds"] = found.thresholds;
  made["samples"] = all.logits.size(0);
  made["expected_calibration_error"] = {{"before", before}, {"after", after}};
  Calibrated result{.values = made, .text = {}, .warns = false};
  result.text =
      fmt::format("calibration on {} samples: temperature {:.4g}, expected calibration error {:.4f} -> {:.4f}",
                  all.logits.size(0), found.temperature, before, after);
  if (all.multi()) result.text += fmt::format(", thresholds {:.3g}", fmt::join(found.thresholds, ", "));
  result.warns = found.temperature == metrics::kMostTemperature || found.temperature == metrics::kLeastTemperature;
  if (result.warns) {
    result.text += found.temperature > 1.0
                       ? "; this is the largest one: the scores tell nothing about these samples"
                       : "; this is the smallest one: every one of these samples is predicted right";
  }
  const std::string reason = doubt(all, names);
  result.text += reason;
  result.warns = result.warns || !reason.empty();
  return result;
}

}  // namespace

int64_t calibration_bytes(int64_t samples, int64_t num_labels, int64_t batch_size, int64_t ranks) {
  const int64_t own = most_samples_of_rank(samples, batch_size, ranks);
  // The logits are in memory as this rank's text, the texts of all and, on rank 0, one table, with the truth beside it
  // and the scores of one label to sort.
  const auto cell = static_cast<int64_t>(sizeof(float));
  return cell * num_labels * (own + 2 * samples) + samples * (num_labels + 4 * cell);
}

Calibrated calibrate(comm::MpiSession& session, model::Model& model, const at::Tensor& params,
                     const EvalRequest& request) {
  const auto phase = session.phase("calibration");
  std::string mine;
  session.run_on_all_or_fail([&] { mine = logits_of_rank(session, model, params, request); });
  std::vector<std::string> parts = session.all_gather(mine);
  Calibrated result;
  session.run_on_root([&]() -> std::string {
    mine = {};
    const data::TokenStore& store = *request.store;
    result = fit(join(std::move(parts), store, model.setup().head, model.setup().num_labels), store.label_names());
    return "";
  });
  return result;
}

at::Tensor result_params(comm::MpiSession& session, const BestModel& best, bool keeps_best, int64_t step,
                         const at::Tensor& last) {
  bool other = session.is_root() && keeps_best && best.step() >= 0 && best.step() != step;
  session.broadcast(&other, sizeof other);
  if (!other) return last;
  at::Tensor host = at::empty({last.numel()}, at::kFloat);
  if (session.is_root()) std::copy(best.params().begin(), best.params().end(), host.mutable_data_ptr<float>());
  session.broadcast(host.mutable_data_ptr<float>(), host.nbytes());
  return host.to(last.device());
}

}  // namespace neoloom::train
