// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "runtime/comm/communicator.h"
#include "runtime/train/gradient_sum.h"

namespace neoloom::train {

/// Where the gradient buffer is cut for its all-reduce: the first elements of the buckets, last bucket of the buffer
/// first, as the backward pass completes them; the last entry is 0. Cuts lie where blocks begin; a bucket holds at
/// least `bucket_elements`, and a buffer of no more stays in one piece: {0}. The same on every rank. Shapes:
/// block_begin_elements ascending.
std::vector<int64_t> cut_buckets(const std::vector<int64_t>& block_begin_elements, int64_t n_elements,
                                 int64_t bucket_elements);

/// Bytes of a bucket for runtime.bucket_bytes: 0. A sum costs tens of microseconds beside its bytes, so small buffers
/// stay whole and large ones become four buckets at most.
int64_t automatic_bucket_bytes(int64_t buffer_bytes);

/// A step's gradient sum and its all-reduce. In one piece, the sum over ranks is made when all of the step is added. In
/// buckets it begins during this rank's last micro-batch, bucket by bucket, while earlier blocks are still computed;
/// the bucket with the loss and the flags is the last. Exact sums have the same bits either way. Every rank starts
/// every bucket, in this order, whether it has something to add or not.
class GradientReducer {
 public:
  /// `begins` as cut_buckets gives them; `communicator` must outlive this.
  GradientReducer(std::unique_ptr<GradientSum> sum, comm::Communicator& communicator, std::vector<int64_t> begins);

  const GradientSum& sum() const { return *sum_; }
  bool overlaps() const { return begins_.size() > 1; }
  size_t buckets() const { return begins_.size(); }

  /// Starts a step: see GradientSum::begin.
  void begin(int64_t target_count, double loss_scale, int64_t micro_batches);
  /// Adds one micro-batch. Not for the last one of a rank when the sum overlaps.
  void add(const at::Tensor& grads, const at::Tensor& loss);

  /// Buckets from `bucket` on whose gradients are final once those at `begin_elements` and after are; without the last.
  size_t completed(size_t bucket, int64_t begin_elements) const;
  /// The last micro-batch, in parts: adds the next bucket and starts its sum.
  /// Collective: every rank, in the same order, as are both of mark_all_ready.
  void mark_ready(const at::Tensor& grads);
  /// The rest of the last micro-batch.
  void mark_all_ready(const at::Tensor& grads, const at::Tensor& loss);
  /// Starts the buckets that are not started yet, when the sum overlaps: all of them on a rank without a micro-batch.
  void mark_all_ready();

  /// Makes the sum, or waits for what was started. Not wanted: of a step that is not made.
  /// Collective: every rank.
  void wait(bool wanted = true);

 private:
  int64_t end_of(size_t bucket) const { return bucket == 0 ? sum_->n_elements() : begins_[bucket - 1]; }
  void start_next();

  std::unique_ptr<GradientSum> sum_;
  comm::Communicator& communicator_;
  std::vector<int64_t> begins_;
  size_t started_ = 0;  // buckets of this step
};

}  // namespace neoloom::train
