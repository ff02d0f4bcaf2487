// SPDX-License-Identifier: Apache-2.0
// Runs residual_norm.h and bias_gelu.h on a GPU. No atomics; every sum has a fixed order.
#include "runtime/cuda/fused_kernels.h"

#include <cuda_runtime.h>

#include "runtime/cuda/kernels/bias_gelu.h"
#include "runtime/cuda/kernels/choose.h"
#include "runtime/cuda/kernels/residual_norm.h"

namespace neoloom::cuda {
namespace {

using namespace kernels;

constexpr unsigned kAllLanes = 0xffffffffU;
constexpr int kWarps = kMaxThreads / kWarp;

/// Returns the sum over the block, the same in every thread: halves of a warp in turn, then warp by warp.
__device__ float block_sum(float x) {
  __shared__ float of_warp[kWarps];
#pragma unroll
  for (int distance = kWarp / 2; distance > 0; distance /= 2) x += __shfl_xor_sync(kAllLanes, x, distance);
  __syncthreads();  // an earlier sum has been read
  if (threadIdx.x % kWarp == 0) of_warp[threadIdx.x / kWarp] = x;
  __syncthreads();
  float total = 0.0F;
  for (int warp = 0; warp < blockDim.x / kWarp; ++warp) total += of_warp[warp];
  return total;
}

template <class T, int kPackSize, int kRounds>
__global__ void __launch_bounds__(kMaxThreads) residual_norm(const ResidualNorm work) {
  for (int64_t row = blockIdx.x; row < work.rows; row += gridDim.x) {
    ResidualNormThread<T, kPackSize, kRounds> thread(work, row, threadIdx.x, blockDim.x);
    const float columns = static_cast<float>(work.columns);
    const float mean = block_sum(thread.add()) / columns;
    const float variance = block_sum(thread.squared_distances(mean)) / columns;
    const float rstd = 1.0F / sqrtf(variance + work.epsilon);
    if (threadIdx.x == 0) {
      work.mean[row] = mean;
      work.rstd[row] = rstd;
    }
    thread.normalize(mean, rstd);
  }
}

template <int kPackSize, int kRounds>
__global__ void __launch_bounds__(kMaxThreads) residual_norm_grad(const ResidualNormGrad work) {
  for (int64_t row = blockIdx.x; row < work.rows; row += gridDim.x) {
    ResidualNormGradThread<kPackSize, kRounds> thread(work, row, threadIdx.x, blockDim.x);
    NormGradSums sums = thread.read();
    sums.gradient = block_sum(sums.gradient);
    sums.projection = block_sum(sums.projection);
    thread.add(sums);
  }
}

template <class T, int kPackSize, class Work>
__global__ void __launch_bounds__(kMaxThreads) pack_by_pack(const Work work) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x * kPackSize;
  const int64_t begin = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) * kPackSize;
  for (int64_t position = begin; position < work.rows * work.columns; position += step)
    run_pack<T, kPackSize>(work, position);
}

int start_residual_norm(const ResidualNorm& work, StreamHandle stream) {
  const auto geometry = row_geometry(work.rows, work.columns, aligned(work));
  return with_type(work.type, [&]<class T>() {
    return with_rounds(geometry, [&]<int kPackSize, int kRounds>() {
      residual_norm<T, kPackSize, kRounds>
          <<<geometry->blocks, geometry->threads, 0, static_cast<cudaStream_t>(stream)>>>(work);
      return static_cast<int>(cudaGetLastError());
    });
  });
}

int start_residual_norm_grad(const ResidualNormGrad& work, StreamHandle stream) {
  const auto geometry = row_geometry(work.rows, work.columns, aligned(work));
  return with_rounds(geometry, [&]<int kPackSize, int kRounds>() {
    residual_norm_grad<kPackSize, kRounds>
        <<<geometry->blocks, geometry->threads, 0, static_cast<cudaStream_t>(stream)>>>(work);
    return static_cast<int>(cudaGetLastError());
  });
}

template <class Work>
int start_pack_by_pack(const Work& work, StreamHandle stream) {
  const Geometry geometry = elementwise_geometry(work.rows, work.columns, aligned(work));
  if (geometry.blocks == 0) return cudaSuccess;
  const auto on = static_cast<cudaStream_t>(stream);
  return with_type(work.type, [&]<class T>() {
    if (geometry.pack == kPack) {
      pack_by_pack<T, kPack><<<geometry.blocks, geometry.threads, 0, on>>>(work);
    } else {
      pack_by_pack<T, 1><<<geometry.blocks, geometry.threads, 0, on>>>(work);
    }
    return static_cast<int>(cudaGetLastError());
  });
}

}  // namespace

FusedKernels fused_kernels() {
  static_assert(kNotSupported == cudaErrorNotSupported);
  return {.residual_norm = start_residual_norm,
          .residual_norm_grad = start_residual_norm_grad,
          .bias_gelu = start_pack_by_pack<BiasGelu>,
          .bias_gelu_grad = start_pack_by_pack<BiasGeluGrad>};
}

}  // namespace neoloom::cuda
