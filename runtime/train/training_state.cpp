// SPDX-License-Identifier: Apache-2.0
#include "runtime/train/training_state.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros.h>

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "runtime/comm/collective_error.h"
#include "runtime/core/error.h"
#include "runtime/core/json.h"

namespace neoloom::train {
namespace {

using core::ErrorKind;

std::vector<float> to_host(const at::Tensor& tensor) {
  const at::Tensor host = tensor.cpu();
  const float* values = host.const_data_ptr<float>();
  return {values, values + host.numel()};
}

void from_host(const std::vector<float>& values, at::Tensor& tensor) {
  at::Tensor host = at::empty({static_cast<int64_t>(values.size())}, at::kFloat);
  std::copy(values.begin(), values.end(), host.mutable_data_ptr<float>());
  tensor.copy_(host);
}

}  // namespace

void LossScale::note(bool skipped) {
  if (!moves_) return;
  if (skipped) {
    value_ = std::max(1.0, value_ / 2.0);
    good_steps_ = 0;
  } else if (++good_steps_ >= kGrowthSteps) {
    value_ = std::min(2.0 * value_, kLargest);
    good_steps_ = 0;
  }
}

void LossScale::restore(double value, int64_t good_steps) {
  value_ = value;
  good_steps_ = good_steps;
}

void History::remember(const nlohmann::json& event) {
  if (!events_.empty()) events_ += ',';
  events_ += event.dump();
}

void History::add_loss(double loss) {
  loss_ += loss;
  ++steps_;
}

double History::mean_loss() const { return train::mean_loss(loss_, steps_); }

void History::reset() {
  loss_ = 0.0;
  steps_ = 0;
}

std::string History::text(nlohmann::json others) const {
  others["loss_since_log"] = loss_;
  others["steps_since_log"] = steps_;
  return fmt::format("{{\"events\":[{}],{}", events_, others.dump().substr(1));
}

void History::restore(const nlohmann::json& text) {
  for (const nlohmann::json& event : text.at("events")) remember(event);
  const nlohmann::json& loss = text.at("loss_since_log");
  loss_ = loss.is_null() ? std::nan("") : loss.get<double>();  // null stands for NaN, the loss of a skipped step
  steps_ = text.at("steps_since_log");
}

TrainingState::TrainingState(int64_t n_elements, const at::Device& device, double initial_loss_scale)
    : loss_scale(initial_loss_scale) {
  for (at::Tensor* buffer : {&buffers.params, &buffers.grads, &buffers.exp_avg, &buffers.exp_avg_sq}) {
    *buffer = at::zeros({n_elements}, at::TensorOptions().dtype(at::kFloat).device(device));
  }
}

void TrainingState::note(const StepResult& result) {
  loss_scale.note(result.skipped);
  if (result.skipped) {
    ++skipped_steps;
    ++skipped_in_a_row;
  } else {
    skipped_in_a_row = 0;
  }
  if (result.target_weight > 0) history.add_loss(result.loss);
}

checkpoint::State TrainingState::to_checkpoint(const model::ParameterLayout& layout, int64_t steps_per_epoch,
                                               const nlohmann::json& best_judge) const {
  checkpoint::State state;
  state.index = index_of(layout);
  state.params = to_host(buffers.params);
  state.exp_avg = to_host(buffers.exp_avg);
  state.exp_avg_sq = to_host(buffers.exp_avg_sq);
  if (initial_params.defined()) state.initial_params = to_host(initial_params);
  state.step = step;
  state.epoch = step / steps_per_epoch;
  state.step_in_epoch = step % steps_per_epoch;
  state.loss_scale = loss_scale.value();
  state.good_steps = loss_scale.good_steps();
  state.skipped_steps = skipped_steps;
  state.history = history.text({{"skipped_in_a_row", skipped_in_a_row}, {"best_judge", best_judge}});
  return state;
}

void TrainingState::restore(const Resumed& resumed, const model::ParameterLayout& layout) {
  const checkpoint::State& state = resumed.state;
  if (state.index != index_of(layout)) {
    throw comm::CollectiveError(
        ErrorKind::kCheckpoint,
        fmt::format("{}: its {} tensors do not have the names and shapes of this model's {} trainable tensors; "
                    "resume with the configuration it was written with",
                    resumed.path, state.index.size(), layout.slots.size()));
  }
  from_host(state.params, buffers.params);
  from_host(state.exp_avg, buffers.exp_avg);
  from_host(state.exp_avg_sq, buffers.exp_avg_sq);
  if (!state.initial_params.empty()) {
    initial_params = at::empty_like(buffers.params);
    from_host(state.initial_params, initial_params);
  }
  step = state.step;
  skipped_steps = state.skipped_steps;
  loss_scale.restore(state.loss_scale, state.good_steps);
  const auto text = core::parse_json(state.history, "the checkpoint's history", ErrorKind::kCheckpoint);
  try {
    history.restore(text);
    skipped_in_a_row = text.at("skipped_in_a_row");
  } catch (const nlohmann::json::exception& error) {
    core::fail(ErrorKind::kCheckpoint, "the checkpoint's history cannot be read: {}", core::json_complaint(error));
  }
}

}  // namespace neoloom::train
