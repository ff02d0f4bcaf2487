// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <vector>

#include "runtime/optim/device_step.h"
#include "runtime/optim/optimizer.h"
#include "runtime/optim/schedule.h"
#include "runtime/train/gradient_sum.h"

namespace neoloom::train {

/// Result of one optimizer step.
struct StepResult {
  int64_t step = 0;   // counted from 1
  double loss = 0.0;  // mean; NaN for a step without a target, whose gradient is 0
  double grad_norm = 0.0;
  double learning_rate = 0.0;
  double target_weight = 0;  // sum over the targets; without class_weights, their count
  bool skipped = false;      // something was not finite: loss and norm are NaN, the state did not change
  bool spiked = false;       // the loss was above the limit: the state did not change
};

inline constexpr double kAnyLoss = std::numeric_limits<double>::infinity();

struct UpdateSetup {
  std::vector<optim::ParameterRange> ranges;
  optim::OptimizerOptions optimizer;
  double max_grad_norm = 1.0;
  double learning_rate = 0.0;  // peak, which the schedule's factor multiplies
  optim::Schedule schedule = {};
  /// The learning rate, instead of both, where it follows evaluations: MetricSchedule::learning_rate. May be empty.
  std::function<double()> metric_rate = {};
  int64_t total_steps = 0;   // of the schedule
  int64_t updates_done = 0;  // steps that were not skipped, before this start
};

/// NaN without a target.
double mean_loss(double loss_sum, double target_weight);

/// Learning rate of update `updates_done`, counted from 0.
double scheduled_rate(const UpdateSetup& setup, int64_t updates_done);

/// The optimizer's part of a step: mean gradient, norm, clipping, new values. A step whose sum is flagged is skipped.
class Update {
 public:
  virtual ~Update() = default;

  /// Writes the mean of `sum`, which is over all ranks, to buffers.grads, and updates `buffers`, unless the mean loss
  /// is above loss_limit (kAnyLoss: never). target_weight: N of the step.
  virtual void run(const GradientSum& sum, optim::FlatBuffers& buffers, int64_t step, double target_weight,
                   double loss_limit) = 0;

  /// Says that UpdateSetup::metric_rate has changed. No results may be pending.
  virtual void rate_changed() {}

  /// Number of steps whose results are not taken yet.
  virtual size_t pending() const = 0;
  /// Returns the oldest of these results. Calls `while_waiting` repeatedly while the device is not done with it.
  virtual StepResult take(const std::function<void()>& while_waiting) = 0;
};

/// For CPU tensors: the update is done when run returns.
std::unique_ptr<Update> make_host_update(UpdateSetup setup);

/// What the host needs to read results of a device without a wait.
struct DeviceReadback {
  /// Records an event. The returned function queries it: whether all work enqueued before is done.
  std::function<std::function<bool()>()> record_event;
  std::function<std::shared_ptr<void>(size_t count_bytes)> pinned_memory;
};

/// For GPUs: run enqueues operators without a read-back. Whether to skip, the count of updates and so the learning rate
/// are computed on the device. The host may enqueue further steps before it takes a result.
std::unique_ptr<Update> make_device_update(UpdateSetup setup, DeviceReadback readback, at::Device device,
                                           optim::FusedAdamW fused = optim::fused_adamw);

}  // namespace neoloom::train
