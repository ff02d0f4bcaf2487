// SPDX-License-Identifier: Apache-2.0
#include "tests/bench/probes/work.h"

#include <cmath>
#include <limits>

namespace neoloom::probes {

double relative_error(const at::Tensor& found, const at::Tensor& expected) {
  const at::Tensor reference = expected.to(at::kFloat);
  const double off = found.to(at::kFloat).sub(reference).abs().max().item().toDouble();
  const double error = off / reference.abs().max().item().toDouble();
  return std::isfinite(error) ? error : std::numeric_limits<double>::infinity();
}

}  // namespace neoloom::probes
