// SPDX-License-Identifier: Apache-2.0
#include "runtime/train/step_runner.h"

#include <ATen/record_function.h>
#include <c10/util/Exception.h>

#include <new>
#include <string_view>
#include <utility>

#include "runtime/core/clock.h"
#include "runtime/core/error.h"

namespace neoloom::train {
namespace {

using core::ErrorKind;

bool is_out_of_memory(const std::exception& error) {
  if (dynamic_cast<const std::bad_alloc*>(&error) != nullptr) return true;
  if (dynamic_cast<const c10::OutOfMemoryError*>(&error) != nullptr) return true;
  // LibTorch's CPU allocator reports a failed allocation as a plain error.
  return std::string_view(error.what()).find("DefaultCPUAllocator: can't allocate memory") != std::string_view::npos ||
         std::string_view(error.what()).find("DefaultCPUAllocator: not enough memory") != std::string_view::npos;
}

void count(const LoadedMicroBatch& loaded, const model::Model& model, metrics::DeviceMeasure& measure) {
  measure.batches += 1;
  measure.samples += static_cast<int64_t>(loaded.sample_ids.size());
  measure.tokens += loaded.tokens();
  measure.padded_tokens += loaded.padded_tokens();
  measure.budget_tokens += loaded.budget_tokens();
  for (const int64_t length : loaded.lengths) {
    measure.flops += model.training_flops_per_token(length) * static_cast<double>(length);
  }
}

}  // namespace

StepRunner::StepRunner(model::Model& model, GradientReducer reducer, std::unique_ptr<Update> update,
                       StepRunnerSetup setup)
    : model_(model), reducer_(std::move(reducer)), update_(std::move(update)), setup_(std::move(setup)) {}

bool StepRunner::compute(MicroBatchLoader& loader, TrainingState& state, metrics::DeviceMeasure& measure) {
  LoadedMicroBatch first = next(loader, measure);
  header_ = first.header;
  core::require(header_.step == state.step, ErrorKind::kInternal, "the loader is at step {}, the trainer at step {}",
                header_.step, state.step);
  reducer_.begin(header_.target_weight, state.loss_scale.value(), header_.micro_batches);
  const bool fitted = compute_shard(loader, std::move(first), state, measure);
  // All-reduces are collective: this rank must join those of its peers, whatever became of its shard.
  if (reducer_.overlaps()) {
    guard_sums();
    reducer_.mark_all_ready();
  }
  return fitted;
}

LoadedMicroBatch StepRunner::next(MicroBatchLoader& loader, metrics::DeviceMeasure& measure) {
  RECORD_USER_SCOPE("data");
  const core::ScopedTimer timer(measure.data_seconds);
  return loader.next();
}

bool StepRunner::compute_shard(MicroBatchLoader& loader, LoadedMicroBatch loaded, TrainingState& state,
                               metrics::DeviceMeasure& measure) {
  while (loaded.index >= 0) {
    try {
      compute_micro_batch(loaded, state, measure);
    } catch (const std::exception& error) {
      if (!is_out_of_memory(error)) throw;
      core::require(setup_.survives_lack_of_memory, ErrorKind::kDevice,
                    "out of memory in step {} with micro-batches of {} samples ({}): "
                    "set trainer_config.auto_find_batch_size: true, "
                    "or lower trainer_config.{} or tokenizer_config.max_length",
                    state.step + 1, loaded.sample_ids.size(), error.what(),
                    loaded.max_tokens > 0 ? "max_tokens_per_micro_batch" : "per_device_train_batch_size");
      return false;
    }
    if (loaded.last) break;
    loaded = next(loader, measure);
  }
  return true;
}

void StepRunner::compute_micro_batch(const LoadedMicroBatch& loaded, TrainingState& state,
                                     metrics::DeviceMeasure& measure) {
  RECORD_USER_SCOPE("micro-batch");
  const core::ScopedTimer timer(measure.compute_seconds);
  if (setup_.before_micro_batch) setup_.before_micro_batch(state.step + 1, loaded.sample_ids);
  const model::DropoutKey key{setup_.seed, state.step / setup_.steps_per_epoch, state.step, loaded.index};
  at::Tensor& grads = state.buffers.grads;
  const model::Model::MicroStep step =
      model_.prepare(*loaded.packed, state.buffers.params, grads, key, state.loss_scale.value());
  run_kernels(step, grads, loaded.last);
  if (loaded.last && reducer_.overlaps()) {
    reducer_.mark_all_ready(grads, step.loss.loss);
  } else {
    reducer_.add(grads, step.loss.loss);
  }
  count(loaded, model_, measure);
}

// Cuts each micro-step into parts, between which a bucket of gradients is complete. All micro-steps of a shape have the
// same parts, but only the last of a step starts the buckets' all-reduces between them.
void StepRunner::run_kernels(const model::Model::MicroStep& step, const at::Tensor& grads, bool last) {
  cuda::RepeatedWork work;
  work.shape = step.shape;
  work.begin = step.begin;
  work.enqueue = [this, &step](const std::function<void()>& pause) {
    size_t bucket = 0;
    step.enqueue([&](int64_t begin_elements) {
      for (size_t ready = reducer_.completed(bucket, begin_elements); ready > 0; --ready, ++bucket) pause();
    });
  };
  if (last) {
    work.between = [this, &grads](size_t /*bucket*/) {
      guard_sums();
      reducer_.mark_ready(grads);
    };
  }
  work.snapshot = [&step, &grads] {
    return [&step, &grads, before = grads.clone(), loss = step.loss.loss.clone()] {
      return before.equal(grads) && loss.equal(step.loss.loss);
    };
  };
  if (setup_.run_micro_step) {
    setup_.run_micro_step(work);
  } else {
    cuda::run_eagerly(work);
  }
}

// Guards the step from its first all-reduce to the end of its last: any wait in between may be for a peer.
void StepRunner::guard_sums() {
  if (!sums_guard_ && setup_.guard) sums_guard_.emplace(setup_.guard("all-reduce of gradients"));
}

void StepRunner::end_sums(void (GradientReducer::*end)(), metrics::DeviceMeasure& measure) {
  RECORD_USER_SCOPE("sum over ranks");
  const core::ScopedTimer timer(measure.comm_seconds);
  guard_sums();
  (reducer_.*end)();
  sums_guard_.reset();
}

void StepRunner::update(TrainingState& state, metrics::DeviceMeasure& measure) {
  RECORD_USER_SCOPE("update");
  const core::ScopedTimer timer(measure.compute_seconds);
  update_->run(reducer_.sum(), state.buffers, state.step + 1, header_.target_weight, state.spikes.limit());
}

}  // namespace neoloom::train
