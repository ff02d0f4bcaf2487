// SPDX-License-Identifier: Apache-2.0
#include "runtime/train/window_mean.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <cmath>
#include <span>

namespace neoloom::train {
namespace {

/// log(1 + e^x)
double softplus(double x) { return std::max(x, 0.0) + std::log1p(std::exp(-std::abs(x))); }

double cross_entropy(std::span<const float> logits, int64_t label, double label_smoothing) {
  const double largest = *std::max_element(logits.begin(), logits.end());
  double sum = 0.0, mean = 0.0;
  for (const float logit : logits) {
    sum += std::exp(logit - largest);
    mean += logit / static_cast<double>(logits.size());
  }
  const double log_sum = largest + std::log(sum);
  return log_sum - (1.0 - label_smoothing) * logits[static_cast<size_t>(label)] - label_smoothing * mean;
}

}  // namespace

at::Tensor mean_of_windows(const std::vector<at::Tensor>& windows) {
  const at::Tensor host = at::cat(windows).cpu().contiguous();
  const int64_t count = host.size(0);
  const int64_t width = host.size(1);
  const auto* const values = host.const_data_ptr<float>();
  at::Tensor mean = at::empty({1, width}, at::kFloat);
  for (int64_t k = 0; k < width; ++k) {
    double sum = 0.0;
    for (int64_t i = 0; i < count; ++i) sum += values[i * width + k];
    mean.mutable_data_ptr<float>()[k] = static_cast<float>(sum / static_cast<double>(count));
  }
  return mean;
}

at::Tensor mean_by_row(const data::TokenStore& store, int64_t first_row, const at::Tensor& logits) {
  const at::Tensor host = logits.cpu();
  std::vector<at::Tensor> rows;
  int64_t at = 0;
  for (int64_t row = first_row; at < host.size(0); ++row) {
    const int64_t windows = store.pack_begin(row + 1) - store.pack_begin(row);
    rows.push_back(mean_of_windows({host.narrow(0, at, windows)}));
    at += windows;
  }
  return at::cat(rows);
}

RowLoss loss_of_row(const data::TokenStore& store, int64_t row, core::Task task, const float* logits,
                    double label_smoothing) {
  const int64_t sample = store.pack_begin(row);
  if (store.target_counts()[static_cast<size_t>(sample)] == 0) return {};
  const auto width = static_cast<double>(store.label_names().size());
  if (task == core::Task::kSingleLabel) {
    return {cross_entropy({logits, store.label_names().size()}, store.label(sample), label_smoothing), true};
  }
  double loss = 0.0;
  for (size_t k = 0; k < store.label_names().size(); ++k) {
    const double logit = logits[k];
    if (task == core::Task::kMultiLabel) {
      loss += softplus(logit) - logit * store.multi_label(sample)[k];
    } else {
      const double error = logit - store.values(sample)[k];
      loss += error * error;
    }
  }
  return {loss / width, true};
}

}  // namespace neoloom::train
