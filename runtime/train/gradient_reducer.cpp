// SPDX-License-Identifier: Apache-2.0
#include "runtime/train/gradient_reducer.h"

#include <algorithm>
#include <utility>

namespace neoloom::train {
namespace {

constexpr int64_t kSmallestBucketBytes = int64_t{16} << 20;
constexpr int64_t kMostBuckets = 4;

}  // namespace

int64_t automatic_bucket_bytes(int64_t buffer_bytes) {
  return std::max(kSmallestBucketBytes, (buffer_bytes + kMostBuckets - 1) / kMostBuckets);
}

std::vector<int64_t> cut_buckets(const std::vector<int64_t>& block_begin_elements, int64_t n_elements,
                                 int64_t bucket_elements) {
  std::vector<int64_t> begins;
  int64_t end = n_elements;
  for (auto begin = block_begin_elements.rbegin(); begin != block_begin_elements.rend(); ++begin) {
    if (end <= bucket_elements) break;
    if (*begin == 0 || end - *begin < bucket_elements) continue;
    begins.push_back(*begin);
    end = *begin;
  }
  begins.push_back(0);
  return begins;
}

GradientReducer::GradientReducer(std::unique_ptr<GradientSum> sum, comm::Communicator& communicator,
                                 std::vector<int64_t> begins)
    : sum_(std::move(sum)), communicator_(communicator), begins_(std::move(begins)) {}

void GradientReducer::begin(double target_weight, double loss_scale, int64_t micro_batches) {
  sum_->begin(target_weight, loss_scale, micro_batches);
  started_ = 0;
}

size_t GradientReducer::completed(size_t bucket, int64_t begin_elements) const {
  size_t count = 0;
  while (bucket + count + 1 < begins_.size() && begin_elements <= begins_[bucket + count]) ++count;
  return count;
}

void GradientReducer::add(const at::Tensor& grads, const at::Tensor& loss) {
  sum_->add_loss(loss);
  sum_->add(grads, 0, sum_->n_elements());
}

void GradientReducer::mark_ready(const at::Tensor& grads) {
  sum_->add(grads, begins_[started_], end_of(started_));
  start_next();
}

void GradientReducer::mark_all_ready(const at::Tensor& grads, const at::Tensor& loss) {
  sum_->add_loss(loss);
  while (started_ < begins_.size()) mark_ready(grads);
}

void GradientReducer::start_next() {
  const GradientSum::Part part = sum_->part(begins_[started_], end_of(started_));
  communicator_.start_sum(part.data, part.n_elements, part.element);
  ++started_;
}

void GradientReducer::mark_all_ready() {
  while (overlaps() && started_ < begins_.size()) start_next();
}

void GradientReducer::wait() {
  if (overlaps()) return communicator_.finish_sums();
  const GradientSum::Part whole = sum_->part(0, sum_->n_elements());
  communicator_.all_reduce_sum(whole.data, whole.n_elements, whole.element);
}

void GradientReducer::abandon() {
  if (overlaps()) communicator_.finish_sums();
}

}  // namespace neoloom::train
