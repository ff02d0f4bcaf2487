// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

#include "runtime/cuda/kernels/bias_gelu.h"
#include "runtime/cuda/kernels/choose.h"
#include "runtime/cuda/kernels/residual_norm.h"

namespace neoloom::support {

namespace kernels = cuda::kernels;

// Runs neoloom's CUDA kernels on the CPU: the same functions and geometry, the threads of a block one after the other,
// the block's sums in the GPU's order.

/// Returns what block_sum of fused_kernels.cu returns. `of_thread`: a multiple of kWarp values.
inline float block_sum(std::vector<float> of_thread) {
  for (int distance = kernels::kWarp / 2; distance > 0; distance /= 2) {
    const std::vector<float> before = of_thread;
    for (size_t i = 0; i < before.size(); ++i) of_thread[i] = before[i] + before[i ^ static_cast<size_t>(distance)];
  }
  float total = 0.0F;
  for (size_t warp = 0; warp < of_thread.size(); warp += kernels::kWarp) total += of_thread[warp];
  return total;
}

/// Calls visit(thread) for each and returns the results.
template <class Thread, class Visit>
std::vector<float> of_each(std::vector<Thread>& threads, Visit visit) {
  std::vector<float> results;
  for (Thread& thread : threads) results.push_back(visit(thread));
  return results;
}

template <class Thread, class Work>
std::vector<Thread> threads_of(const Work& work, int64_t row, const kernels::Geometry& geometry) {
  std::vector<Thread> threads;
  for (int lane = 0; lane < geometry.threads; ++lane) threads.emplace_back(work, row, lane, geometry.threads);
  return threads;
}

template <class T, int kPackSize, int kRounds>
void run_rows(const cuda::ResidualNorm& work, const kernels::Geometry& geometry) {
  using Thread = kernels::ResidualNormThread<T, kPackSize, kRounds>;
  for (int64_t row = 0; row < work.rows; ++row) {
    auto threads = threads_of<Thread>(work, row, geometry);
    const auto columns = static_cast<float>(work.columns);
    const float mean = block_sum(of_each(threads, [](Thread& thread) { return thread.add(); })) / columns;
    const float variance =
        block_sum(of_each(threads, [&](Thread& thread) { return thread.squared_distances(mean); })) / columns;
    work.mean[row] = mean;
    work.rstd[row] = 1.0F / std::sqrt(variance + work.epsilon);
    for (const Thread& thread : threads) thread.normalize(mean, work.rstd[row]);
  }
}

template <int kPackSize, int kRounds>
void run_rows(const cuda::ResidualNormGrad& work, const kernels::Geometry& geometry) {
  using Thread = kernels::ResidualNormGradThread<kPackSize, kRounds>;
  for (int64_t row = 0; row < work.rows; ++row) {
    auto threads = threads_of<Thread>(work, row, geometry);
    std::vector<float> gradients, projections;
    for (Thread& thread : threads) {
      const kernels::NormGradSums sums = thread.read();
      gradients.push_back(sums.gradient);
      projections.push_back(sums.projection);
    }
    const kernels::NormGradSums sums{block_sum(gradients), block_sum(projections)};
    for (const Thread& thread : threads) thread.add(sums);
  }
}

/// Returns 0, as a launch does.
template <class Work>
int run_packs(const Work& work, bool aligned) {
  const kernels::Geometry geometry = kernels::elementwise_geometry(work.rows, work.columns, aligned);
  return kernels::with_type(work.type, [&]<class T>() {
    for (int64_t position = 0; position < work.rows * work.columns; position += geometry.pack) {
      if (geometry.pack == kernels::kPack) {
        kernels::run_pack<T, kernels::kPack>(work, position);
      } else {
        kernels::run_pack<T, 1>(work, position);
      }
    }
    return 0;
  });
}

inline cuda::FusedKernels fused_kernels_on_host() {
  cuda::FusedKernels table;
  table.residual_norm = [](const cuda::ResidualNorm& work, cuda::StreamHandle) {
    const auto geometry = kernels::row_geometry(work.rows, work.columns, kernels::aligned(work));
    return kernels::with_type(work.type, [&]<class T>() {
      return kernels::with_rounds(geometry, [&]<int kPackSize, int kRounds>() {
        run_rows<T, kPackSize, kRounds>(work, *geometry);
        return 0;
      });
    });
  };
  table.residual_norm_grad = [](const cuda::ResidualNormGrad& work, cuda::StreamHandle) {
    const auto geometry = kernels::row_geometry(work.rows, work.columns, kernels::aligned(work));
    return kernels::with_rounds(geometry, [&]<int kPackSize, int kRounds>() {
      run_rows<kPackSize, kRounds>(work, *geometry);
      return 0;
    });
  };
  table.bias_gelu = [](const cuda::BiasGelu& work, cuda::StreamHandle) {
    return run_packs(work, kernels::aligned(work));
  };
  table.bias_gelu_grad = [](const cuda::BiasGeluGrad& work, cuda::StreamHandle) {
    return run_packs(work, kernels::aligned(work));
  };
  return table;
}

}  // namespace neoloom::support
