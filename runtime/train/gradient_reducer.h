// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "runtime/comm/communicator.h"
#include "runtime/train/gradient_sum.h"

namespace neoloom::train {

/// Cuts the gradient buffer into buckets for all-reduce, as DistributedDataParallel does. Returns the first element of
/// each bucket in the order in which the backward pass completes them: descending, ending with 0. A bucket begins where
/// a block begins and holds at least `bucket_elements`. A buffer of at most that many elements is one bucket: {0}. The
/// result is the same on every rank. `block_begin_elements` is ascending.
std::vector<int64_t> cut_buckets(const std::vector<int64_t>& block_begin_elements, int64_t n_elements,
                                 int64_t bucket_elements);

/// Bucket size in bytes for runtime.bucket_bytes: 0. An all-reduce has a fixed cost of tens of microseconds, so a small
/// buffer is one bucket and a large one at most four.
int64_t automatic_bucket_bytes(int64_t buffer_bytes);

/// A step's gradient sum and its all-reduce. With one bucket, the all-reduce runs after all micro-batches of the step.
/// With several, each bucket's all-reduce starts during this rank's last micro-batch, as soon as the backward pass has
/// completed it. The bucket with the loss and the flags is the last. Exact sums have the same bits either way. Every
/// rank starts every bucket in this order, even without a micro-batch.
class GradientReducer {
 public:
  /// `begins` as cut_buckets gives them; `communicator` must outlive this.
  GradientReducer(std::unique_ptr<GradientSum> sum, comm::Communicator& communicator, std::vector<int64_t> begins);

  const GradientSum& sum() const { return *sum_; }
  bool overlaps() const { return begins_.size() > 1; }
  size_t buckets() const { return begins_.size(); }

  /// Starts a step: see GradientSum::begin.
  void begin(double target_weight, double loss_scale, int64_t micro_batches);
  /// Adds one micro-batch. If overlaps(), do not use it for this rank's last one.
  void add(const at::Tensor& grads, const at::Tensor& loss);

  /// Counts the buckets from index `bucket` on whose gradients are final once elements from `begin_elements` on are.
  /// Never counts the last bucket.
  size_t completed(size_t bucket, int64_t begin_elements) const;
  /// Adds the next bucket of the last micro-batch and starts its all-reduce.
  /// Collective: every rank, in the same order, both mark_all_ready included.
  void mark_ready(const at::Tensor& grads);
  /// Adds the remaining buckets and the loss of the last micro-batch, and starts their all-reduce.
  void mark_all_ready(const at::Tensor& grads, const at::Tensor& loss);
  /// If overlaps(), starts the buckets that are not started yet: all of them on a rank without a micro-batch.
  void mark_all_ready();

  /// Runs the all-reduce, or completes the buckets in flight. Collective: every rank.
  void wait();
  /// Ends a step whose sum nobody needs: only completes the buckets in flight. Collective: every rank.
  void abandon();

 private:
  int64_t end_of(size_t bucket) const { return bucket == 0 ? sum_->n_elements() : begins_[bucket - 1]; }
  void start_next();

  std::unique_ptr<GradientSum> sum_;
  comm::Communicator& communicator_;
  std::vector<int64_t> begins_;
  size_t started_ = 0;  // buckets of this step
};

}  // namespace neoloom::train
