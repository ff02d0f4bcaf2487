// SPDX-License-Identifier: Apache-2.0
// One step of the trainer: this rank's share of the gradient, the sum over ranks, the update.
#include <c10/util/Exception.h>

#include <array>
#include <new>
#include <string_view>

#include "runtime/core/clock.h"
#include "runtime/core/error.h"
#include "runtime/train/batches.h"
#include "runtime/train/trainer.h"

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

/// Tells the hook where the enqueueing of a step begins and ends, whatever way it ends.
class EnqueuedStep {
 public:
  explicit EnqueuedStep(const Hooks& hooks) : hooks_(hooks) { tell(true); }
  ~EnqueuedStep() { tell(false); }
  EnqueuedStep(const EnqueuedStep&) = delete;
  EnqueuedStep& operator=(const EnqueuedStep&) = delete;

 private:
  void tell(bool begins) const {
    if (hooks_.enqueues_step) hooks_.enqueues_step(begins);
  }
  const Hooks& hooks_;
};

}  // namespace

Trainer::StepFlags Trainer::run_step() {
  const data::Step step = steps_->step(step_ / schedule_.steps_per_epoch, step_ % schedule_.steps_per_epoch);
  StepFlags flags;
  const EnqueuedStep enqueued(setup_.hooks);
  compute_share(step, flags);
  agree_on_flags(flags);
  sum_over_ranks(flags);
  if (flags.out_of_memory) return flags;
  const core::ScopedTimer timer(since_log_.compute_seconds);
  update_->run(sum_.sum(), buffers_, step_ + 1, step.target_count);
  return flags;
}

void Trainer::compute_share(const data::Step& step, StepFlags& flags) {
  const auto micro_batches = static_cast<int64_t>(step.micro_batches.size());
  sum_.begin(step.target_count, loss_scale_, micro_batches);
  const std::vector<int64_t> share = data::dealt_to_rank(micro_batches, session_.rank(), session_.size());
  for (const int64_t index : share) {
    try {
      compute_micro_batch(index, /*last=*/index == share.back());
    } catch (const std::exception& error) {
      if (!is_out_of_memory(error)) throw;
      core::require(setup_.options.auto_find_batch_size, ErrorKind::kDevice,
                    "out of memory in step {} with micro-batches of {} samples ({}): set "
                    "trainer_config.auto_find_batch_size: true, or lower trainer_config.per_device_train_batch_size or "
                    "tokenizer_config.max_length",
                    step_ + 1, setup_.batching.micro_batch_size, error.what());
      flags.out_of_memory = true;
      break;
    }
  }
  // What the peers have begun wants every rank, whatever became of its share.
  if (!sum_.overlaps()) return;
  guard_sums();
  sum_.start_rest();
}

// `index`: place in the step's list; `last`: of this rank's.
void Trainer::compute_micro_batch(int64_t index, bool last) {
  std::optional<data::PaddedBatch> padded;
  {
    const core::ScopedTimer timer(since_log_.data_seconds);
    padded = loader_->pop();
  }
  core::require(padded.has_value(), ErrorKind::kInternal, "the loader ended before step {}", step_ + 1);
  const core::ScopedTimer timer(since_log_.compute_seconds);
  if (setup_.hooks.before_micro_batch) setup_.hooks.before_micro_batch(step_ + 1, padded->sample_ids);
  const model::Batch batch = to_model_batch(*padded, model_.setup().head, /*labelled=*/true);
  const model::DropoutKey key{static_cast<uint64_t>(setup_.options.seed), step_ / schedule_.steps_per_epoch, step_,
                              index};
  const model::Model::MicroStep step = model_.prepare(batch, buffers_.params, buffers_.grads, key, loss_scale_);
  run_kernels(step, last);
  if (last && sum_.overlaps()) {
    sum_.add_rest(buffers_.grads, step.loss.loss);
  } else {
    sum_.add(buffers_.grads, step.loss.loss);
  }
  since_log_.batches += 1;
  since_log_.samples += padded->rows;
  since_log_.tokens += padded->tokens;
  since_log_.padded_tokens += padded->rows * padded->length;
  for (const int64_t length : padded->lengths) {  // padding is never computed
    since_log_.flops += model_.training_flops_per_token(length) * static_cast<double>(length);
  }
}

// Micro-steps pause where a bucket of gradients is complete, the last as the others: their kernels are the same. Behind
// the pauses of the last one the buckets' sums begin.
void Trainer::run_kernels(const model::Model::MicroStep& step, bool last) {
  cuda::RepeatedWork work;
  work.shape = step.shape;
  work.begin = step.begin;
  work.enqueue = [this, &step](const std::function<void()>& pause) {
    size_t bucket = 0;
    step.enqueue([&](int64_t begin_elements) {
      for (size_t count = sum_.completed(bucket, begin_elements); count > 0; --count, ++bucket) pause();
    });
  };
  if (last) {
    work.between = [this](size_t /*bucket*/) {
      guard_sums();
      sum_.add_next_bucket(buffers_.grads);
    };
  }
  work.snapshot = [this, &step] {
    return [this, &step, grads = buffers_.grads.clone(), loss = step.loss.loss.clone()] {
      return grads.equal(buffers_.grads) && loss.equal(step.loss.loss);
    };
  };
  if (setup_.hooks.run_micro_step) {
    setup_.hooks.run_micro_step(work);
  } else {
    cuda::run_eagerly(work);
  }
}

// From the first sum that begins to the end of all: whatever waits in between may wait for a peer.
void Trainer::guard_sums() {
  if (!sums_guard_) sums_guard_.emplace(guard("all-reduce of gradients"));
}

void Trainer::sum_over_ranks(const StepFlags& flags) {
  const core::ScopedTimer timer(since_log_.comm_seconds);
  guard_sums();
  if (flags.out_of_memory) {
    sum_.abandon();
  } else {
    sum_.finish();
  }
  sums_guard_.reset();
}

// One small word of host flags a step: whatever one rank saw, all take the same path.
void Trainer::agree_on_flags(StepFlags& flags) {
  constexpr int64_t kStop = 1, kOutOfMemory = 2;
  // Two elements, so that a maximum keeps both flags.
  std::array<int64_t, 2> word = {setup_.hooks.stop_requested() ? kStop : 0, flags.out_of_memory ? kOutOfMemory : 0};
  {
    const core::ScopedTimer timer(since_log_.comm_seconds);
    const auto bounded = guard("agreeing on flags");
    session_.all_reduce_max(word);
  }
  flags.stop = word[0] != 0;
  flags.out_of_memory = word[1] != 0;
}

}  // namespace neoloom::train
