// SPDX-License-Identifier: Apache-2.0
#include "launch/planning/matmul_rate.h"

#include <ATen/ops/empty.h>

#include "model/cpu/matmul.h"
#include "model/cpu/packed_weights.h"
#include "model/scalar_type.h"
#include "runtime/core/clock.h"

namespace neoloom::launch {

double measure_matmul_rate(const model::MemorySetup& setup, int64_t rows) {
  constexpr double kSeconds = 0.5;
  const model::Dtype compute = setup.model.compute_dtype;
  const int64_t h = setup.model.config.hidden_size;
  const int64_t ff = setup.model.config.intermediate_size;
  const at::ScalarType stored = setup.model.lora ? model::scalar_type(setup.frozen_dtype) : at::kFloat;
  model::Matrix matrix(at::empty({ff, h}, at::kFloat).fill_(0.01).to(stored));
  if (setup.packed_weights) {
    matrix.packed_weights.forward = model::pack_weights(matrix.plain.t(), compute);
    if (compute != model::Dtype::kFloat32) matrix.packed_weights.backward = model::pack_weights(matrix.plain, compute);
  }
  const at::Tensor x = at::empty({rows, h}, at::kFloat).fill_(0.01);
  const at::Tensor dy = at::empty({rows, ff}, at::kFloat).fill_(0.01);
  model::Matmul matmul(compute);
  const auto both_ways = [&] {
    matmul.forward(x, matrix, {});
    matmul.input_gradient(dy, matrix);
  };
  both_ways();  // loads kernels
  const double begin = core::now_seconds();
  double seconds = 0.0;
  double operations = 0.0;
  while (seconds < kSeconds) {
    both_ways();
    operations += 2.0 * 2.0 * static_cast<double>(rows) * static_cast<double>(h) * static_cast<double>(ff);
    seconds = core::now_seconds() - begin;
  }
  return operations / seconds;
}

}  // namespace neoloom::launch
