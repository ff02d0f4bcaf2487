// SPDX-License-Identifier: Apache-2.0
#include "launch/planning/matmul_rate.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <vector>

#include "model/cpu/matmul.h"
#include "model/cpu/packed_weights.h"
#include "model/scalar_type.h"
#include "runtime/core/clock.h"

namespace neoloom::launch {
namespace {

model::Matrix matrix_of(const model::MemorySetup& setup, int64_t out, int64_t in) {
  const model::Dtype compute = setup.model.compute_dtype;
  const at::ScalarType stored = setup.model.lora ? model::scalar_type(setup.frozen_dtype) : at::kFloat;
  model::Matrix matrix(at::empty({out, in}, at::kFloat).fill_(0.01).to(stored));
  if (setup.packed_weights) {
    matrix.packed_weights.forward = model::pack_weights(matrix.plain.t(), compute);
    if (compute != model::Dtype::kFloat32) matrix.packed_weights.backward = model::pack_weights(matrix.plain, compute);
  }
  return matrix;
}

}  // namespace

GemmSeconds measure_gemm_seconds(const model::MemorySetup& setup, const model::StepGemm& gemm, double seconds) {
  const model::Matrix matrix = matrix_of(setup, gemm.out, gemm.in);
  model::Matmul matmul(setup.model.compute_dtype);
  const at::Tensor input =
      at::empty({gemm.rows, gemm.backward ? gemm.out : gemm.in}, matmul.input_type(matrix)).fill_(0.01);
  const auto multiply = [&] {
    const double begin = core::now_seconds();
    if (gemm.backward) {
      matmul.input_gradient(input, matrix);
    } else {
      matmul.forward(input, matrix, {});
    }
    return core::now_seconds() - begin;
  };
  multiply();  // loads kernels
  std::vector<double> times;
  for (double sum = 0.0; sum < seconds || times.size() < 3; sum += times.back()) times.push_back(multiply());
  const auto middle = times.begin() + static_cast<std::ptrdiff_t>(times.size() / 2);
  std::nth_element(times.begin(), middle, times.end());
  return {*middle, *std::min_element(times.begin(), middle + 1)};
}

}  // namespace neoloom::launch
