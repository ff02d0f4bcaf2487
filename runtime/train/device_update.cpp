// SPDX-License-Identifier: Apache-2.0
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/full.h>
#include <ATen/ops/stack.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <deque>
#include <thread>
#include <utility>

#include "runtime/train/update.h"

namespace neoloom::train {
namespace {

/// Holds the learning rates of the next updates on the device. Only the device knows how many updates were made,
/// because it skips those with gradients that are not finite.
class DeviceRates {
 public:
  explicit DeviceRates(at::Device device) : device_(device) {}

  /// Returns the rate [] fp32 of update number `updates` [] int64. The host does not know that number, only that it is
  /// in [at_least, at_most].
  at::Tensor of(const UpdateSetup& setup, const at::Tensor& updates, int64_t at_least, int64_t at_most) {
    if (!valid_ || at_most >= first_ + kUpdates) upload(setup, at_least);
    return rates_.index_select(0, updates.sub(first_).reshape({1})).squeeze(0);
  }

  /// Makes the next call upload the rates.
  void invalidate() { valid_ = false; }

 private:
  static constexpr int64_t kUpdates = 4096;

  // Copies the next kUpdates rates to the device. The host waits for the copy, but only once in thousands of steps.
  void upload(const UpdateSetup& setup, int64_t first) {
    const at::Tensor host = at::empty({kUpdates}, at::kFloat);
    for (int64_t i = 0; i < kUpdates; ++i) {
      const int64_t update = std::min(first + i, std::max<int64_t>(setup.total_steps - 1, first));
      host.mutable_data_ptr<float>()[i] = static_cast<float>(scheduled_rate(setup, update));
    }
    if (!rates_.defined()) rates_ = at::empty({kUpdates}, host.options().device(device_));
    rates_.copy_(host);
    first_ = first;
    valid_ = true;
  }

  at::Device device_;
  at::Tensor rates_;  // [kUpdates] fp32, of the updates from first_ on
  int64_t first_ = 0;
  bool valid_ = false;
};

class DeviceUpdate final : public Update {
 public:
  DeviceUpdate(UpdateSetup setup, DeviceReadback readback, at::Device device, optim::FusedAdamW fused)
      : setup_(std::move(setup)),
        readback_(std::move(readback)),
        optimizer_(setup_.optimizer, device, std::move(fused)),
        rates_(device),
        updates_(at::full({}, setup_.updates_done, at::TensorOptions(at::kLong).device(device))) {}

  void run(const GradientSum& sum, optim::FlatBuffers& buffers, int64_t step, double target_weight,
           double loss_limit) override;
  void rate_changed() override { rates_.invalidate(); }
  size_t pending() const override { return under_way_.size(); }
  StepResult take(const std::function<void()>& while_waiting) override;

 private:
  static constexpr int64_t kNumbers = 3;  // summed loss, flags, norm

  struct UnderWay {
    int64_t step = 0;
    double target_weight = 0;
    double loss_limit = 0;
    at::Tensor numbers;  // [kNumbers] fp64, pinned
    std::function<bool()> done;
  };

  at::Tensor free_numbers() {
    if (!free_.empty()) {
      at::Tensor numbers = std::move(free_.back());
      free_.pop_back();
      return numbers;
    }
    const std::shared_ptr<void> memory = readback_.pinned_memory(kNumbers * sizeof(double));
    return at::from_blob(
        memory.get(), {kNumbers}, [memory](void*) {}, at::TensorOptions(at::kDouble));
  }

  UpdateSetup setup_;  // updates_done counts only results that were taken
  DeviceReadback readback_;
  optim::Optimizer optimizer_;
  DeviceRates rates_;
  at::Tensor updates_;  // [] int64: updates done
  std::deque<UnderWay> under_way_;
  std::vector<at::Tensor> free_;
};

void DeviceUpdate::run(const GradientSum& sum, optim::FlatBuffers& buffers, int64_t step, double target_weight,
                       double loss_limit) {
  const GradientSum::Totals totals = sum.finish(buffers.grads);
  const at::Tensor norm = optim::clip_grad_norm_on_device(buffers.grads, setup_.max_grad_norm);
  at::Tensor flagged = totals.flagged.gt(0.0);
  if (std::isfinite(loss_limit)) flagged.logical_or_(totals.loss_sum.div(target_weight).gt(loss_limit));
  const int64_t known = setup_.updates_done;
  const optim::DeviceNumbers numbers{
      rates_.of(setup_, updates_, known, known + static_cast<int64_t>(under_way_.size())),
      updates_.add(1).to(at::kFloat), flagged.to(at::kFloat)};
  optimizer_.step_on_device(buffers, setup_.ranges, numbers);
  updates_.add_(flagged.logical_not());
  UnderWay& entry = under_way_.emplace_back();
  entry.step = step;
  entry.target_weight = target_weight;
  entry.loss_limit = loss_limit;
  entry.numbers = free_numbers();
  entry.numbers.copy_(at::stack({totals.loss_sum, totals.flagged, norm}), /*non_blocking=*/true);
  entry.done = readback_.record_event();
}

StepResult DeviceUpdate::take(const std::function<void()>& while_waiting) {
  UnderWay& oldest = under_way_.front();
  std::chrono::microseconds pause{10};
  while (!oldest.done()) {
    while_waiting();
    std::this_thread::sleep_for(pause);
    pause = std::min(pause * 2, std::chrono::microseconds(200));
  }
  const double* const numbers = oldest.numbers.const_data_ptr<double>();
  StepResult result;
  result.step = oldest.step;
  result.target_weight = oldest.target_weight;
  result.learning_rate = scheduled_rate(setup_, setup_.updates_done);
  result.skipped = numbers[1] > 0.0;
  result.loss = mean_loss(numbers[0], oldest.target_weight);
  result.grad_norm = numbers[2];
  if (result.skipped) result.loss = result.grad_norm = std::nan("");
  result.spiked = result.loss > oldest.loss_limit;
  if (!result.skipped && !result.spiked) ++setup_.updates_done;
  free_.push_back(std::move(oldest.numbers));
  under_way_.pop_front();
  return result;
}

}  // namespace

std::unique_ptr<Update> make_device_update(UpdateSetup setup, DeviceReadback readback, at::Device device,
                                           optim::FusedAdamW fused) {
  return std::make_unique<DeviceUpdate>(std::move(setup), std::move(readback), device, std::move(fused));
}

}  // namespace neoloom::train
