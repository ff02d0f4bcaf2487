// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "runtime/optim/device_step.h"
#include "runtime/optim/schedule.h"
#include "runtime/train/gradient_sum.h"

namespace neoloom::train {

/// What a step came to.
struct StepResult {
  int64_t step = 0;   // counted from 1
  double loss = 0.0;  // NaN for a step without a target: there is no loss, and its gradient is 0
  double grad_norm = 0.0;
  double learning_rate = 0.0;
  int64_t target_count = 0;
  bool skipped = false;  // something was not finite: loss and norm are NaN, and the state stayed as it was
};

struct UpdateSetup {
  std::vector<optim::ParameterRange> ranges;
  optim::AdamWOptions adamw;
  double max_grad_norm = 1.0;
  double learning_rate = 0.0;  // the schedule's factor is of this
  optim::Schedule schedule = optim::Schedule::kLinear;
  int64_t warmup_steps = 0;
  int64_t total_steps = 0;
  int64_t updates_done = 0;  // steps that were not skipped, before this start
};

/// NaN without a target.
double mean_loss(double loss_sum, int64_t target_count);

/// The learning rate of the update after `updates_done` others.
double scheduled_rate(const UpdateSetup& setup, int64_t updates_done);

/// The optimizer's part of a step: mean gradient, norm, clipping, AdamW; or nothing, where the sum is flagged.
class Update {
 public:
  virtual ~Update() = default;

  /// `sum` is over all ranks; its mean is written to buffers.grads. target_count: N of the step.
  virtual void run(const GradientSum& sum, optim::FlatBuffers& buffers, int64_t step, int64_t target_count) = 0;

  /// Steps whose results were not taken.
  virtual size_t pending() const = 0;
  /// The oldest of them. While the device is not done with it, `while_waiting` is called again and again.
  virtual StepResult take(const std::function<void()>& while_waiting) = 0;
};

/// On the host, for CPU tensors: done when run returns.
std::unique_ptr<Update> make_host_update(UpdateSetup setup);

/// How the host learns what a device computed.
struct DeviceReads {
  /// The returned function says, without waiting, whether the device has done what is enqueued now.
  std::function<std::function<bool()>()> mark;
  std::function<std::shared_ptr<void>(size_t count_bytes)> page_locked_memory;
};

/// Enqueued, in operators that read nothing back: whether to skip, the count of updates and with it the learning rate
/// are the device's own. The host may enqueue further steps before it takes a result.
std::unique_ptr<Update> make_device_update(UpdateSetup setup, DeviceReads reads, at::Device device,
                                           optim::FusedAdamW fused = optim::fused_adamw);

}  // namespace neoloom::train
