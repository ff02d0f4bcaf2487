// SPDX-License-Identifier: Apache-2.0
#include "runtime/train/update.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/ops/full.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <utility>
#include <vector>

#include "runtime/train/gradient_reducer.h"
#include "tests/support/no_ranks.h"
#include "tests/support/operator_record.h"
#include "tests/unit/model/random_model.h"
#include "tests/unit/model/reference_operators.h"

namespace neoloom::train {
namespace {

using testing::IsEmpty;

constexpr int64_t kElements = 5000;
constexpr int64_t kTargets = 7;

at::Tensor random(uint64_t seed, double size) {
  return at::randn({kElements}, at::detail::createCPUGenerator(seed)).mul_(size);
}

optim::FlatBuffers start() {
  return {random(1, 1.0), at::zeros({kElements}), at::zeros({kElements}), at::zeros({kElements})};
}

UpdateSetup update_setup(int64_t updates_done = 0, int64_t total_steps = 20) {
  UpdateSetup setup;
  setup.ranges = {{0, 3008, true}, {3008, kElements, false}};
  setup.optimizer.adamw.weight_decay = 0.1;
  setup.max_grad_norm = 1.0;
  setup.learning_rate = 1e-2;
  setup.schedule = optim::make_schedule({.warmup_steps = 3, .total_steps = total_steps});
  setup.total_steps = total_steps;
  setup.updates_done = updates_done;
  return setup;
}

// Stands for a device that is done when the test says so.
struct FakeDevice {
  int64_t marks = 0;
  int64_t done = 0;  // marks that the device has passed
  int64_t blocks = 0;

  DeviceReadback readback() {
    return {[this] {
              const int64_t mine = ++marks;
              return [this, mine] { return done >= mine; };
            },
            [this](size_t count_bytes) {
              ++blocks;
              return std::shared_ptr<void>(::operator new(count_bytes),
                                           [](void* memory) { ::operator delete(memory); });
            }};
  }
};

/// Stands for LibTorch's operator on a device. On CPU tensors that operator reads its numbers on the host, so here it
/// is counted once and runs unseen.
void fused_as_on_a_device(optim::TensorLists& lists, const optim::AdamWOptions& options, double decay,
                          const optim::DeviceNumbers& numbers) {
  neoloom::support::OperatorRecord::count("_fused_adamw_");
  const at::DisableRecordFunctionGuard unseen;
  optim::fused_adamw(lists, options, decay, numbers);
}

std::unique_ptr<GradientSum> sum_of(const at::Tensor& grads, double loss, bool device_operators) {
  auto sum = make_gradient_sum({.n_elements = kElements, .device_operators = device_operators});
  sum->begin(kTargets, 1.0, 1);
  sum->add(grads, 0, kElements);
  sum->add_loss(at::full({}, loss, at::kDouble));
  return sum;
}

// Returns the gradient of a step. That of step `broken` is not finite.
at::Tensor gradient_of(int64_t step, int64_t broken) {
  at::Tensor grads =
      random(100 + static_cast<uint64_t>(step), step % 2 == 0 ? 0.01 : 30.0);  // below and above the clip
  if (step == broken) grads[17].fill_(std::numeric_limits<float>::infinity());
  return grads;
}

struct Walk {
  optim::FlatBuffers buffers = start();
  std::vector<StepResult> results;
};

Walk walk(Update& update, bool device_operators, int64_t broken, size_t late) {
  Walk walk;
  for (int64_t step = 1; step <= 6; ++step) {
    update.run(*sum_of(gradient_of(step, broken), static_cast<double>(step), device_operators), walk.buffers, step,
               kTargets, kAnyLoss);
    while (update.pending() > late) walk.results.push_back(update.take([] {}));
  }
  while (update.pending() > 0) walk.results.push_back(update.take([] {}));
  return walk;
}

void expect_same_walk(const Walk& host, const Walk& device) {
  using model::testing::distance;
  EXPECT_LT(distance(device.buffers.params, host.buffers.params), 1e-6);
  EXPECT_LT(distance(device.buffers.exp_avg, host.buffers.exp_avg), 1e-6);
  EXPECT_LT(distance(device.buffers.exp_avg_sq, host.buffers.exp_avg_sq), 1e-6);
  ASSERT_EQ(device.results.size(), host.results.size());
  for (size_t i = 0; i < host.results.size(); ++i) {
    const StepResult &a = device.results[i], &b = host.results[i];
    EXPECT_EQ(a.step, b.step);
    EXPECT_EQ(a.skipped, b.skipped) << a.step;
    EXPECT_EQ(a.learning_rate, b.learning_rate) << a.step;
    EXPECT_EQ(std::isnan(a.loss), std::isnan(b.loss)) << a.step;
    if (b.skipped) continue;
    EXPECT_EQ(a.loss, b.loss);
    EXPECT_NEAR(a.grad_norm, b.grad_norm, 1e-12 * b.grad_norm);
  }
}

TEST(DeviceUpdate, IsTheHostsWhetherResultsAreReadAtOnceOrLate) {
  for (const int64_t broken : {-1, 1, 3, 6}) {
    const Walk host = walk(*make_host_update(update_setup()), false, broken, 0);
    for (const size_t late : {0, 1, 3}) {
      FakeDevice device;
      device.done = 100;
      expect_same_walk(host,
                       walk(*make_device_update(update_setup(), device.readback(), at::kCPU), true, broken, late));
    }
  }
}

TEST(DeviceUpdate, SkippedStepLeavesStateAndScheduleAsTheyWere) {
  FakeDevice device;
  device.done = 100;
  const auto update = make_device_update(update_setup(2), device.readback(), at::kCPU);
  optim::FlatBuffers buffers = start();
  const optim::FlatBuffers before = start();
  for (int64_t step = 3; step < 6; ++step)
    update->run(*sum_of(gradient_of(step, step), 1.0, true), buffers, step, 1, kAnyLoss);
  EXPECT_TRUE(buffers.params.equal(before.params));
  EXPECT_TRUE(buffers.exp_avg_sq.equal(before.exp_avg_sq));
  for (int64_t step = 3; step < 6; ++step) {
    const StepResult result = update->take([] {});
    EXPECT_EQ(result.step, step);
    EXPECT_TRUE(result.skipped);
    EXPECT_EQ(result.learning_rate, scheduled_rate(update_setup(), 2));
  }
}

TEST(Update, ALossAboveTheLimitLeavesStateAndScheduleAsTheyWere) {
  FakeDevice device;
  device.done = 100;
  const auto host = make_host_update(update_setup());
  const auto on_device = make_device_update(update_setup(), device.readback(), at::kCPU);
  for (Update* update : {host.get(), on_device.get()}) {
    optim::FlatBuffers buffers = start();
    const optim::FlatBuffers before = start();
    const double loss = 3.0 / kTargets;
    const auto result_with = [&](double limit) {
      update->run(*sum_of(gradient_of(1, -1), 3.0, update == on_device.get()), buffers, 1, kTargets, limit);
      return update->take([] {});
    };
    const StepResult spiked = result_with(loss * 0.999);
    EXPECT_TRUE(spiked.spiked);
    EXPECT_FALSE(spiked.skipped);
    EXPECT_EQ(spiked.loss, loss);
    EXPECT_GT(spiked.grad_norm, 0.0);
    EXPECT_TRUE(buffers.params.equal(before.params));
    EXPECT_TRUE(buffers.exp_avg.equal(before.exp_avg));
    const StepResult fine = result_with(loss);
    EXPECT_FALSE(fine.spiked);
    EXPECT_EQ(fine.learning_rate, spiked.learning_rate);
    EXPECT_FALSE(buffers.exp_avg.equal(before.exp_avg));
  }
}

TEST(DeviceUpdate, ResultsWaitForTheDeviceAndSomebodyLooksAfterThePeersMeanwhile) {
  FakeDevice device;
  const auto update = make_device_update(update_setup(), device.readback(), at::kCPU);
  optim::FlatBuffers buffers = start();
  update->run(*sum_of(gradient_of(1, -1), 1.0, true), buffers, 1, kTargets, kAnyLoss);
  int64_t looks = 0;
  const StepResult result = update->take([&] {
    if (++looks == 3) device.done = 1;
  });
  EXPECT_EQ(looks, 3);
  EXPECT_EQ(result.step, 1);
  EXPECT_THROW(
      {
        update->run(*sum_of(gradient_of(2, -1), 1.0, true), buffers, 2, kTargets, kAnyLoss);
        update->take([] { throw std::runtime_error("a peer is gone"); });
      },
      std::runtime_error);
}

TEST(DeviceUpdate, PageLockedMemoryIsUsedAgain) {
  FakeDevice device;
  device.done = 100;
  const auto update = make_device_update(update_setup(), device.readback(), at::kCPU);
  walk(*update, true, -1, 1);
  EXPECT_EQ(device.blocks, 2);
}

TEST(DeviceUpdate, LearningRatesGoOnBeyondTheOnesThatWereUploaded) {
  // Some of thousands of updates are skipped, and results are read three steps late.
  constexpr int64_t kSteps = 9000;
  FakeDevice device;
  device.done = kSteps;
  std::vector<float> used;
  const auto note_rate = [&](optim::TensorLists&, const optim::AdamWOptions&, double decay,
                             const optim::DeviceNumbers& numbers) {
    if (decay > 0.0 && numbers.skip.item<float>() == 0.0F) used.push_back(numbers.learning_rate.item<float>());
  };
  const auto update = make_device_update(update_setup(0, kSteps), device.readback(), at::kCPU, note_rate);
  optim::FlatBuffers buffers = start();
  const auto good = sum_of(gradient_of(1, -1), 1.0, true), bad = sum_of(gradient_of(1, 1), 1.0, true);
  for (int64_t step = 1; step <= kSteps; ++step) {
    update->run(step % 5 == 0 ? *bad : *good, buffers, step, kTargets, kAnyLoss);
    if (update->pending() > 3) update->take([] {});
  }
  ASSERT_EQ(used.size(), static_cast<size_t>(kSteps / 5 * 4));
  for (size_t i = 0; i < used.size(); ++i) {
    ASSERT_EQ(used[i], static_cast<float>(scheduled_rate(update_setup(0, kSteps), static_cast<int64_t>(i)))) << i;
  }
}

// Runs two micro-batches, the last in buckets, and the update, three times over without reading a result.
TEST(DeviceStep, NothingInItMakesTheHostWait) {
  using namespace model::testing;
  for (const char* kind : {"fixed", "float"}) {
    model::ModelSetup setup = tiny_setup(model::Head::kCausalLm, 0.1);
    setup.device.cuda = true;
    setup.device.capability_major = 9;
    setup.compute_dtype = model::Dtype::kBFloat16;
    setup.operators = ReferenceOperators::table();
    const auto model = model::Model::create(setup, random_weights(setup.config, at::kFloat));
    const model::ParameterLayout& layout = model->layout();
    at::Tensor params = random_params(*model);
    optim::FlatBuffers buffers{params, at::zeros_like(params), at::zeros_like(params), at::zeros_like(params)};
    const model::Batch batch = with_lm_labels(random_batch({9, 3, 14}, setup.config.vocab_size));
    support::NoRanks communicator;
    GradientReducer sum(
        make_gradient_sum({.kind = kind, .n_elements = layout.total_elements, .device_operators = true}), communicator,
        cut_buckets(layout.block_begin_elements, layout.total_elements, 1));
    ASSERT_EQ(sum.buckets(), 3U);
    UpdateSetup numbers = update_setup();
    numbers.ranges = {{0, layout.total_elements, true}};
    FakeDevice device;
    const auto update = make_device_update(numbers, device.readback(), at::kCPU, fused_as_on_a_device);
    update->run(sum.sum(), buffers, 0, 1, kAnyLoss);  // uploads the learning rates

    const neoloom::support::OperatorRecord record;
    for (int64_t step = 1; step <= 3; ++step) {
      sum.begin(kTargets, 1.0, 2);
      model::LossSum loss = model->forward_backward(batch, buffers.params, buffers.grads, {1, 0, step, 0}, 1.0);
      sum.add(buffers.grads, loss.loss);
      const auto last =
          model->prepare(*model->pack(batch, at::kCPU), buffers.params, buffers.grads, {1, 0, step, 1}, 1.0);
      last.begin();
      size_t bucket = 0;
      last.enqueue([&](int64_t begin_elements) {
        for (size_t count = sum.completed(bucket, begin_elements); count > 0; --count, ++bucket) {
          sum.mark_ready(buffers.grads);
        }
      });
      EXPECT_EQ(bucket, 2U);
      sum.mark_all_ready(buffers.grads, last.loss.loss);
      sum.mark_all_ready();
      sum.wait();
      update->run(sum.sum(), buffers, step, kTargets, kAnyLoss);
    }
    EXPECT_EQ(record.kernels().at("_fused_adamw_"), 3);
    EXPECT_THAT(record.waits(), IsEmpty());
    EXPECT_EQ(update->pending(), 4U);
  }
}

}  // namespace
}  // namespace neoloom::train
