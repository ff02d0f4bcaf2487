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
#include "runtime/core/hash.h"
#include "runtime/core/json.h"

namespace neoloom::train {
namespace {

using core::ErrorKind;

template <typename T>
std::vector<T> to_host(const at::Tensor& tensor) {
  const at::Tensor host = tensor.cpu();
  const T* values = host.const_data_ptr<T>();
  return {values, values + host.numel()};
}

template <typename T>
void from_host(const std::vector<T>& values, at::Tensor& tensor) {
  at::Tensor host = at::empty({static_cast<int64_t>(values.size())}, tensor.options().device(at::kCPU));
  std::copy(values.begin(), values.end(), host.mutable_data_ptr<T>());
  tensor.copy_(host);
}

void require_same_optimizer(const Resumed& resumed, const TrainingState& own) {
  const checkpoint::State& state = resumed.state;
  const optim::FlatBuffers& buffers = own.buffers;
  const auto fits = [](const auto& values, const at::Tensor& buffer) {
    return static_cast<int64_t>(values.size()) == buffer.numel();
  };
  if (state.optimizer == own.optimizer && fits(state.exp_avg, buffers.exp_avg) &&
      fits(state.exp_avg_sq, buffers.exp_avg_sq) && fits(state.exp_avg_codes, buffers.exp_avg_codes) &&
      fits(state.exp_avg_sq_codes, buffers.exp_avg_sq_codes)) {
    return;
  }
  throw comm::CollectiveError(
      ErrorKind::kCheckpoint,
      fmt::format(
          "{}: it holds the optimizer state of {}, and this run's is of {}; resume with the optim and optim_args "
          "it was written with, or start over with --resume none in another output_dir",
          resumed.path, state.optimizer, own.optimizer));
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

nlohmann::json History::evaluation_before(int64_t step) const {
  const auto events = core::parse_json("[" + events_ + "]", "the history of this run", ErrorKind::kInternal);
  nlohmann::json found;
  for (const nlohmann::json& event : events) {
    const int64_t at = event.value("step", int64_t{0});
    if (event.value("event", "") != "eval" || at > step) continue;
    if (found.is_null() || found["step"] != at) found = nlohmann::json::object();
    found.update(event);  // each validation set has an event of its own
  }
  return found;
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

TrainingState::TrainingState(int64_t n_elements, const at::Device& device, double initial_loss_scale,
                             const optim::OptimizerOptions& optimizer, int64_t factored_elements)
    : buffers(optim::make_buffers(optimizer, n_elements, factored_elements, device)),
      optimizer(optim::state_name(optimizer.kind)),
      loss_scale(initial_loss_scale) {}

void TrainingState::note(const StepResult& result) {
  loss_scale.note(result.skipped);
  spikes.note(result);
  if (result.skipped || result.spiked) ++skipped_steps;
  skipped_in_a_row = result.skipped ? skipped_in_a_row + 1 : 0;
  if (result.target_weight > 0) history.add_loss(result.loss);
}

checkpoint::State TrainingState::to_checkpoint(const model::ParameterLayout& layout, int64_t steps_per_epoch,
                                               const nlohmann::json& evaluations) const {
  checkpoint::State state;
  state.index = index_of(layout);
  state.params = to_host<float>(buffers.params);
  state.optimizer = optimizer;
  state.exp_avg = to_host<float>(buffers.exp_avg);
  state.exp_avg_sq = to_host<float>(buffers.exp_avg_sq);
  state.exp_avg_codes = to_host<uint8_t>(buffers.exp_avg_codes);
  state.exp_avg_sq_codes = to_host<uint8_t>(buffers.exp_avg_sq_codes);
  if (initial_params.defined()) state.initial_params = to_host<float>(initial_params);
  state.step = step;
  state.epoch = step / steps_per_epoch;
  state.step_in_epoch = step % steps_per_epoch;
  state.loss_scale = loss_scale.value();
  state.good_steps = loss_scale.good_steps();
  state.skipped_steps = skipped_steps;
  nlohmann::json others = {{"skipped_in_a_row", skipped_in_a_row}};
  others.update(evaluations);
  if (spikes.given()) others["loss_spikes"] = spikes.state();
  if (metric_schedule) others["lr_schedule"] = metric_schedule->state();
  state.history = history.text(std::move(others));
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
  require_same_optimizer(resumed, *this);
  from_host(state.params, buffers.params);
  from_host(state.exp_avg, buffers.exp_avg);
  from_host(state.exp_avg_sq, buffers.exp_avg_sq);
  if (!state.initial_params.empty()) {
    initial_params = at::empty_like(buffers.params);
    from_host(state.initial_params, initial_params);
  }
  from_host(state.exp_avg_codes, buffers.exp_avg_codes);
  from_host(state.exp_avg_sq_codes, buffers.exp_avg_sq_codes);
  step = state.step;
  skipped_steps = state.skipped_steps;
  loss_scale.restore(state.loss_scale, state.good_steps);
  const auto text = core::parse_json(state.history, "the checkpoint's history", ErrorKind::kCheckpoint);
  try {
    history.restore(text);
    skipped_in_a_row = text.at("skipped_in_a_row");
    if (spikes.given()) spikes.restore(text.at("loss_spikes"));
    if (metric_schedule) metric_schedule->restore(text.at("lr_schedule"));
  } catch (const nlohmann::json::exception& error) {
    core::fail(ErrorKind::kCheckpoint, "the checkpoint's history cannot be read: {}", core::json_complaint(error));
  }
}

uint64_t TrainingState::hash() const {
  uint64_t hash = 0;
  for (const at::Tensor* values :
       {&buffers.params, &buffers.exp_avg, &buffers.exp_avg_sq, &buffers.exp_avg_codes, &buffers.exp_avg_sq_codes}) {
    const at::Tensor host = values->cpu();
    hash = core::xxh3(host.const_data_ptr(), static_cast<size_t>(host.nbytes()), hash);
  }
  return hash;
}

}  // namespace neoloom::train
