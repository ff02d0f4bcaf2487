// SPDX-License-Identifier: Apache-2.0
#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/linalg_vector_norm.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

#include "runtime/core/error.h"
#include "runtime/optim/device_step.h"

namespace neoloom::optim {
namespace {

constexpr int64_t kSumElements = 8192;

// Adds up eight partial sums, so that the compiler can vectorize: it may not reorder a single sum.
double chunk_square_sum(const float* values, int64_t count) {
  constexpr int64_t kLanes = 8;
  std::array<double, kLanes> sums{};
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    for (int64_t lane = 0; lane < kLanes; ++lane) {
      const auto value = static_cast<double>(values[i + lane]);
      sums[lane] += value * value;
    }
  }
  for (; i < count; ++i) sums[i % kLanes] += static_cast<double>(values[i]) * static_cast<double>(values[i]);
  return ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]));
}

// Computes the norm with the same bits for any number of threads: one thread adds up each chunk, and the chunks' sums
// are added in order.
double cpu_norm(const at::Tensor& grads) {
  const int64_t n = grads.numel();
  const float* values = grads.const_data_ptr<float>();
  std::vector<double> sums(static_cast<size_t>((n + kSumElements - 1) / kSumElements));
  at::parallel_for(0, static_cast<int64_t>(sums.size()), /*grain_size=*/16, [&](int64_t begin, int64_t end) {
    for (int64_t chunk = begin; chunk < end; ++chunk) {
      const int64_t first = chunk * kSumElements;
      sums[static_cast<size_t>(chunk)] = chunk_square_sum(values + first, std::min(kSumElements, n - first));
    }
  });
  double total = 0.0;
  for (const double sum : sums) total += sum;
  return std::sqrt(total);
}

void require_flat(const at::Tensor& grads) {
  core::require(grads.dim() == 1 && grads.is_contiguous() && grads.scalar_type() == at::kFloat,
                core::ErrorKind::kInternal, "clipping needs a flat contiguous fp32 buffer");
}

}  // namespace

double clip_grad_norm(at::Tensor& grads, double max_norm) {
  require_flat(grads);
  core::require(grads.is_cpu(), core::ErrorKind::kInternal, "clip_grad_norm reads on the host: use the device's");
  const double norm = cpu_norm(grads);
  const double factor = max_norm / (norm + 1e-6);
  if (max_norm > 0.0 && std::isfinite(norm) && factor < 1.0) grads.mul_(factor);
  return norm;
}

at::Tensor clip_grad_norm_on_device(at::Tensor& grads, double max_norm) {
  require_flat(grads);
  at::Tensor norm = at::linalg_vector_norm(grads, 2, c10::nullopt, /*keepdim=*/false, at::kDouble);
  if (max_norm > 0.0) grads.mul_(at::full_like(norm, max_norm).div_(norm.add(1e-6)).clamp_max_(1.0));
  return norm;
}

}  // namespace neoloom::optim
