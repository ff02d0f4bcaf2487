// SPDX-License-Identifier: Apache-2.0
#include "runtime/train/update.h"

#include <algorithm>
#include <cmath>
#include <deque>
#include <utility>

namespace neoloom::train {
namespace {

class HostUpdate final : public Update {
 public:
  explicit HostUpdate(UpdateSetup setup) : setup_(std::move(setup)), optimizer_(setup_.optimizer, at::kCPU) {}

  void run(const GradientSum& sum, optim::FlatBuffers& buffers, int64_t step, double target_weight,
           double loss_limit) override {
    const GradientSum::Totals totals = sum.finish(buffers.grads);
    StepResult& result = results_.emplace_back();
    result.step = step;
    result.target_weight = target_weight;
    result.learning_rate = scheduled_rate(setup_, setup_.updates_done);
    result.skipped = totals.flagged.item<double>() > 0.0;
    if (result.skipped) {
      result.loss = result.grad_norm = std::nan("");
      return;
    }
    result.loss = mean_loss(totals.loss_sum.item<double>(), target_weight);
    result.spiked = result.loss > loss_limit;
    result.grad_norm = optim::clip_grad_norm(buffers.grads, setup_.max_grad_norm);
    if (!result.spiked) optimizer_.step(buffers, setup_.ranges, result.learning_rate, ++setup_.updates_done);
  }

  size_t pending() const override { return results_.size(); }

  StepResult take(const std::function<void()>& /*while_waiting*/) override {
    const StepResult result = results_.front();
    results_.pop_front();
    return result;
  }

 private:
  UpdateSetup setup_;
  optim::Optimizer optimizer_;
  std::deque<StepResult> results_;
};

}  // namespace

double mean_loss(double loss_sum, double target_weight) {
  return target_weight > 0 ? loss_sum / target_weight : std::nan("");
}

double scheduled_rate(const UpdateSetup& setup, int64_t updates_done) {
  return setup.metric_rate ? setup.metric_rate() : setup.learning_rate * setup.schedule(updates_done);
}

std::unique_ptr<Update> make_host_update(UpdateSetup setup) { return std::make_unique<HostUpdate>(std::move(setup)); }

}  // namespace neoloom::train
