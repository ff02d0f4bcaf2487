// SPDX-License-Identifier: Apache-2.0
#include "runtime/train/gradient_sum.h"

#include <ATen/Parallel.h>
#include <ATen/ops/abs.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/scalar_tensor.h>
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

constexpr int64_t kFlaggedElements = 0, kLossSum = 1, kFlaggedLosses = 2;
constexpr int64_t kChunkElements = int64_t{1} << 22;  // bounds the fp64 temporaries on a device
constexpr int64_t kGrainElements = int64_t{1} << 16;  // the least that a thread gets

// Computes what comm::add_fixed_point does, with ATen operators, so that the host need not read from the device.
void add_by_operators(const at::Tensor& grads, double scale, double limit, const at::Tensor& sum,
                      const at::Tensor& flagged) {
  for (int64_t begin = 0; begin < grads.numel(); begin += kChunkElements) {
    const int64_t count = std::min(kChunkElements, grads.numel() - begin);
    // Always copies, because mul_ would scale an input that is fp64 already.
    const at::Tensor scaled = grads.narrow(0, begin, count).to(at::kDouble, false, /*copy=*/true).mul_(scale);
    const at::Tensor good = scaled.abs().lt(limit);  // false for NaN and infinity too
    const at::Tensor fixed = at::where(good, scaled, 0.0).round().to(at::kLong);
    sum.narrow(0, begin, count).add_(fixed);
    flagged.add_(good.logical_not().sum());
  }
}

class ExactSum final : public GradientSum {
 public:
  explicit ExactSum(const GradientSumSetup& setup)
      : n_elements_(setup.n_elements),
        by_operators_(setup.device_operators),
        sum_(at::zeros({kHeadElements + n_elements_}, at::TensorOptions(at::kLong).device(setup.device))) {}

  void begin(double target_weight, double loss_scale, int64_t micro_batches) override;
  void add(const at::Tensor& grads, int64_t begin, int64_t end) override;
  void add_loss(const at::Tensor& loss) override;
  Part part(int64_t begin, int64_t end) override;
  Totals finish(at::Tensor& grads) const override;
  int64_t n_elements() const override { return n_elements_; }
  int64_t bytes() const override { return sum_.numel() * static_cast<int64_t>(sizeof(int64_t)); }

 private:
  at::Tensor gradients(int64_t begin, int64_t end) const { return sum_.narrow(0, kHeadElements + begin, end - begin); }

  int64_t n_elements_;
  bool by_operators_;
  at::Tensor sum_;  // [kHeadElements + n_elements] int64
  double scale_ = 1.0;
  double limit_ = 0.0;
};

void ExactSum::begin(double target_weight, double loss_scale, int64_t micro_batches) {
  sum_.zero_();
  // A step without any target has zero gradients; dividing by one keeps them so.
  scale_ = comm::fixed_point_scale(target_weight > 0 ? target_weight : 1.0, loss_scale);
  limit_ = comm::fixed_point_limit(std::max<int64_t>(1, micro_batches));
}

void ExactSum::add(const at::Tensor& grads, int64_t begin, int64_t end) {
  const at::Tensor flagged_elements = sum_.narrow(0, kFlaggedElements, 1);
  if (by_operators_) {
    add_by_operators(grads.narrow(0, begin, end - begin), scale_, limit_, gradients(begin, end), flagged_elements);
    return;
  }
  const float* gradient = grads.const_data_ptr<float>();
  int64_t* sum = sum_.mutable_data_ptr<int64_t>() + kHeadElements;
  std::atomic<int64_t> flagged{0};
  at::parallel_for(begin, end, kGrainElements, [&](int64_t first, int64_t last) {
    const auto count = static_cast<size_t>(last - first);
    flagged += comm::add_fixed_point({gradient + first, count}, scale_, limit_, {sum + first, count});
  });
  *flagged_elements.mutable_data_ptr<int64_t>() += flagged.load();
}

void ExactSum::add_loss(const at::Tensor& loss) {
  add_by_operators(loss.reshape({1}), kLossUnit, limit_, sum_.narrow(0, kLossSum, 1),
                   sum_.narrow(0, kFlaggedLosses, 1));
}

GradientSum::Part ExactSum::part(int64_t begin, int64_t end) {
  const int64_t first = begin == 0 ? 0 : kHeadElements + begin;
  return {sum_.mutable_data_ptr<int64_t>() + first, static_cast<size_t>(kHeadElements + end - first),
          comm::Element::kInt64};
}

GradientSum::Totals ExactSum::finish(at::Tensor& grads) const {
  if (by_operators_) {
    for (int64_t begin = 0; begin < n_elements_; begin += kChunkElements) {
      const int64_t end = std::min(begin + kChunkElements, n_elements_);
      grads.narrow(0, begin, end - begin)
          .copy_(gradients(begin, end).to(at::kDouble).mul_(std::ldexp(1.0, -comm::kFixedPointBits)));
    }
  } else {
    const int64_t* sum = sum_.const_data_ptr<int64_t>() + kHeadElements;
    float* mean = grads.mutable_data_ptr<float>();
    at::parallel_for(0, n_elements_, kGrainElements, [&](int64_t begin, int64_t end) {
      const auto count = static_cast<size_t>(end - begin);
      comm::from_fixed_point({sum + begin, count}, {mean + begin, count});
    });
  }
  return {sum_.select(0, kLossSum).to(at::kDouble).div_(kLossUnit),
          sum_.select(0, kFlaggedElements).add(sum_.select(0, kFlaggedLosses)).to(at::kDouble)};
}

class FloatSum final : public GradientSum {
 public:
  explicit FloatSum(const GradientSumSetup& setup)
      : n_elements_(setup.n_elements),
        by_operators_(setup.device_operators),
        sum_(at::zeros({kHeadElements + n_elements_}, at::TensorOptions(at::kFloat).device(setup.device))) {}

  void begin(double target_weight, double loss_scale, int64_t /*micro_batches*/) override {
    sum_.zero_();
    scale_ = 1.0 / ((target_weight > 0 ? target_weight : 1.0) * loss_scale);
  }

  void add(const at::Tensor& grads, int64_t begin, int64_t end) override {
    sum_.narrow(0, kHeadElements + begin, end - begin).add_(grads.narrow(0, begin, end - begin), scale_);
  }

  void add_loss(const at::Tensor& loss) override { sum_.select(0, kLossSum).add_(loss); }

  Part part(int64_t begin, int64_t end) override {
    const int64_t first = begin == 0 ? 0 : kHeadElements + begin;
    return {sum_.mutable_data_ptr<float>() + first, static_cast<size_t>(kHeadElements + end - first),
            comm::Element::kFloat32};
  }

  Totals finish(at::Tensor& grads) const override {
    grads.copy_(sum_.narrow(0, kHeadElements, n_elements_));
    return {sum_.select(0, kLossSum).to(at::kDouble), count_not_finite()};
  }

  int64_t n_elements() const override { return n_elements_; }
  int64_t bytes() const override { return sum_.numel() * static_cast<int64_t>(sizeof(float)); }

 private:
  // Needs one pass over the values on the host. ATen's operators need five.
  at::Tensor count_not_finite() const {
    if (by_operators_) return at::isfinite(sum_).logical_not_().sum().to(at::kDouble);
    const float* const values = sum_.const_data_ptr<float>();
    std::atomic<int64_t> count{0};
    at::parallel_for(0, sum_.numel(), kGrainElements, [&](int64_t begin, int64_t end) {
      count += std::count_if(values + begin, values + end, [](float value) { return !std::isfinite(value); });
    });
    return at::scalar_tensor(count.load(), at::kDouble);
  }

  int64_t n_elements_;
  bool by_operators_;
  at::Tensor sum_;  // [kHeadElements + n_elements] fp32
  double scale_ = 1.0;
};

bool is_exact(const std::string& kind) {
  core::require(kind == "fixed" || kind == "float", core::ErrorKind::kUsage,
                "runtime.gradient_sum: expected fixed or float, found {}", kind);
  return kind == "fixed";
}

}  // namespace

std::unique_ptr<GradientSum> make_gradient_sum(const GradientSumSetup& setup) {
  if (is_exact(setup.kind)) return std::make_unique<ExactSum>(setup);
  return std::make_unique<FloatSum>(setup);
}

int64_t gradient_sum_bytes(const std::string& kind, int64_t n_elements) {
  return (GradientSum::kHeadElements + n_elements) *
         static_cast<int64_t>(is_exact(kind) ? sizeof(int64_t) : sizeof(float));
}

}  // namespace neoloom::train
