// SPDX-License-Identifier: Apache-2.0
#include "runtime/train/gradient_sum.h"

#include <ATen/Parallel.h>
#include <ATen/ops/abs.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <span>

#include "runtime/comm/fixed_point.h"
#include "runtime/core/error.h"

namespace neoloom::train {
namespace {

constexpr double kLossUnit = 0x1.0p32;  // fixed-point steps of a summed loss of 1
constexpr int64_t kFlaggedElements = 0, kLossSum = 1, kFlaggedLosses = 2;
constexpr int64_t kChunkElements = int64_t{1} << 22;  // bounds the float64 temporaries on a device

// The CPU loop's arithmetic in ATen operators, for devices: no host read.
void add_on_device(const at::Tensor& grads, double scale, double limit, const at::Tensor& sum,
                   const at::Tensor& flagged) {
  for (int64_t begin = 0; begin < grads.numel(); begin += kChunkElements) {
    const int64_t count = std::min(kChunkElements, grads.numel() - begin);
    const at::Tensor scaled = grads.narrow(0, begin, count).to(at::kDouble).mul_(scale);
    const at::Tensor good = scaled.abs().lt(limit);  // false for NaN and infinity too
    const at::Tensor fixed = at::where(good, scaled, 0.0).round().to(at::kLong);
    sum.narrow(0, begin, count).add_(fixed);
    flagged.add_(good.logical_not().sum());
  }
}

class ExactSum final : public GradientSum {
 public:
  ExactSum(int64_t n_elements, const at::Tensor& like)
      : n_elements_(n_elements), sum_(at::zeros({n_elements + kTailElements}, like.options().dtype(at::kLong))) {}

  void begin(int64_t target_count, double loss_scale, int64_t micro_batches) override;
  void add(const at::Tensor& grads, const at::Tensor& loss) override;
  void all_reduce(comm::Communicator& communicator) override;
  Result finish(at::Tensor& grads) const override;
  int64_t bytes() const override { return sum_.numel() * static_cast<int64_t>(sizeof(int64_t)); }

 private:
  int64_t n_elements_;
  at::Tensor sum_;  // [n_elements + kTailElements] int64
  double scale_ = 1.0;
  double limit_ = 0.0;
};

void ExactSum::begin(int64_t target_count, double loss_scale, int64_t micro_batches) {
  sum_.zero_();
  // A step without any target has zero gradients; dividing by one keeps them so.
  scale_ = comm::fixed_point_scale(std::max<int64_t>(1, target_count), loss_scale);
  limit_ = comm::fixed_point_limit(std::max<int64_t>(1, micro_batches));
}

void ExactSum::add(const at::Tensor& grads, const at::Tensor& loss) {
  const at::Tensor tail = sum_.narrow(0, n_elements_, kTailElements);
  // A copy: what is fp64 already would be scaled in place.
  add_on_device(loss.clone().reshape({1}), kLossUnit, limit_, tail.narrow(0, kLossSum, 1),
                tail.narrow(0, kFlaggedLosses, 1));
  if (!grads.is_cpu()) {
    add_on_device(grads, scale_, limit_, sum_.narrow(0, 0, n_elements_), tail.narrow(0, kFlaggedElements, 1));
    return;
  }
  const float* gradient = grads.const_data_ptr<float>();
  int64_t* sum = sum_.mutable_data_ptr<int64_t>();
  std::atomic<int64_t> flagged{0};
  at::parallel_for(0, n_elements_, 1 << 16, [&](int64_t begin, int64_t end) {
    const auto count = static_cast<size_t>(end - begin);
    flagged += comm::add_fixed_point({gradient + begin, count}, scale_, limit_, {sum + begin, count});
  });
  sum[n_elements_ + kFlaggedElements] += flagged.load();
}

void ExactSum::all_reduce(comm::Communicator& communicator) {
  communicator.all_reduce_sum(sum_.mutable_data_ptr<int64_t>(), static_cast<size_t>(sum_.numel()),
                              comm::Element::kInt64);
}

GradientSum::Result ExactSum::finish(at::Tensor& grads) const {
  if (grads.is_cpu()) {
    const int64_t* sum = sum_.const_data_ptr<int64_t>();
    float* mean = grads.mutable_data_ptr<float>();
    at::parallel_for(0, n_elements_, 1 << 16, [&](int64_t begin, int64_t end) {
      const auto count = static_cast<size_t>(end - begin);
      comm::from_fixed_point({sum + begin, count}, {mean + begin, count});
    });
  } else {
    for (int64_t begin = 0; begin < n_elements_; begin += kChunkElements) {
      const int64_t count = std::min(kChunkElements, n_elements_ - begin);
      grads.narrow(0, begin, count)
          .copy_(sum_.narrow(0, begin, count).to(at::kDouble).mul_(std::ldexp(1.0, -comm::kFixedPointBits)));
    }
  }
  const at::Tensor tail = sum_.narrow(0, n_elements_, kTailElements).cpu();
  const int64_t* values = tail.const_data_ptr<int64_t>();
  return {static_cast<double>(values[kLossSum]) / kLossUnit, values[kFlaggedElements] + values[kFlaggedLosses]};
}

class FloatSum final : public GradientSum {
 public:
  FloatSum(int64_t n_elements, const at::Tensor& like)
      : n_elements_(n_elements), sum_(at::zeros({n_elements + kTailElements}, like.options().dtype(at::kFloat))) {}

  void begin(int64_t target_count, double loss_scale, int64_t /*micro_batches*/) override {
    sum_.zero_();
    scale_ = 1.0 / (static_cast<double>(std::max<int64_t>(1, target_count)) * loss_scale);
  }

  void add(const at::Tensor& grads, const at::Tensor& loss) override {
    sum_.narrow(0, 0, n_elements_).add_(grads, scale_);
    sum_.narrow(0, n_elements_, 1).add_(loss);
  }

  void all_reduce(comm::Communicator& communicator) override {
    communicator.all_reduce_sum(sum_.mutable_data_ptr<float>(), static_cast<size_t>(sum_.numel()),
                                comm::Element::kFloat32);
  }

  Result finish(at::Tensor& grads) const override {
    grads.copy_(sum_.narrow(0, 0, n_elements_));
    return {static_cast<double>(sum_.select(0, n_elements_).item<float>()), count_not_finite()};
  }

  int64_t bytes() const override { return sum_.numel() * static_cast<int64_t>(sizeof(float)); }

 private:
  // One pass on CPUs, where ATen takes five.
  int64_t count_not_finite() const {
    if (!sum_.is_cpu()) return at::isfinite(sum_).logical_not().sum().item<int64_t>();
    const float* const values = sum_.const_data_ptr<float>();
    std::atomic<int64_t> count{0};
    at::parallel_for(0, sum_.numel(), 1 << 16, [&](int64_t begin, int64_t end) {
      count += std::count_if(values + begin, values + end, [](float value) { return !std::isfinite(value); });
    });
    return count.load();
  }

  int64_t n_elements_;
  at::Tensor sum_;  // [n_elements + kTailElements] fp32; the first of the tail is the loss
  double scale_ = 1.0;
};

bool is_exact(const std::string& kind) {
  core::require(kind == "fixed" || kind == "float", core::ErrorKind::kUsage,
                "runtime.gradient_sum: expected fixed or float, found {}", kind);
  return kind == "fixed";
}

}  // namespace

std::unique_ptr<GradientSum> make_gradient_sum(const std::string& kind, int64_t n_elements, const at::Tensor& like) {
  if (is_exact(kind)) return std::make_unique<ExactSum>(n_elements, like);
  return std::make_unique<FloatSum>(n_elements, like);
}

int64_t gradient_sum_bytes(const std::string& kind, int64_t n_elements) {
  return (n_elements + GradientSum::kTailElements) *
         static_cast<int64_t>(is_exact(kind) ? sizeof(int64_t) : sizeof(float));
}

}  // namespace neoloom::train
