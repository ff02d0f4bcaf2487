// SPDX-License-Identifier: Apache-2.0
#include "runtime/optim/adamw.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/full.h>

#include <array>

#include "runtime/core/error.h"

namespace neoloom::optim {
namespace {

using core::ErrorKind;

void require_flat(const at::Tensor& buffer, const at::Tensor& params, const char* name) {
  core::require(buffer.dim() == 1 && buffer.is_contiguous() && buffer.scalar_type() == at::kFloat &&
                    buffer.numel() == params.numel() && buffer.device() == params.device(),
                ErrorKind::kInternal,
                "AdamW: {} is not a contiguous fp32 buffer of {} elements on the parameters' device", name,
                params.numel());
}

// Adjacent ranges of the same decay become one: fewer kernels, same arithmetic.
std::vector<ParameterRange> merged(const std::vector<ParameterRange>& ranges, int64_t elements) {
  std::vector<ParameterRange> result;
  int64_t end = 0;
  for (const ParameterRange& range : ranges) {
    core::require(range.begin >= end && range.begin <= range.end && range.end <= elements, ErrorKind::kInternal,
                  "AdamW: range [{}, {}) is not ascending inside {} elements", range.begin, range.end, elements);
    end = range.end;
    if (range.begin == range.end) continue;
    if (!result.empty() && result.back().end == range.begin && result.back().decay == range.decay) {
      result.back().end = range.end;
    } else {
      result.push_back(range);
    }
  }
  return result;
}

}  // namespace

void adamw_step(at::Tensor& params, const at::Tensor& grads, at::Tensor& exp_avg, at::Tensor& exp_avg_sq,
                const std::vector<ParameterRange>& ranges, const AdamWOptions& options, double learning_rate,
                int64_t update) {
  require_flat(params, params, "params");
  require_flat(grads, params, "grads");
  require_flat(exp_avg, params, "exp_avg");
  require_flat(exp_avg_sq, params, "exp_avg_sq");
  core::require(update >= 1, ErrorKind::kInternal, "AdamW: update {} is not counted from 1", update);
  // The fused kernel shares elements out in whole cache lines, so its bits do not depend on the number of threads.
  // It reads the count of updates as fp32: exact up to 2^24.
  const at::Tensor count = at::full({}, static_cast<double>(update), params.options());
  for (const bool decay : {true, false}) {
    std::vector<at::Tensor> p, g, m, v;
    for (const ParameterRange& range : merged(ranges, params.numel())) {
      if (range.decay != decay) continue;
      p.push_back(params.slice(0, range.begin, range.end));
      g.push_back(grads.slice(0, range.begin, range.end));
      m.push_back(exp_avg.slice(0, range.begin, range.end));
      v.push_back(exp_avg_sq.slice(0, range.begin, range.end));
    }
    if (p.empty()) continue;
    const std::vector<at::Tensor> counts(p.size(), count);
    at::_fused_adamw_(p, g, m, v, /*max_exp_avg_sqs=*/{}, counts, learning_rate, options.beta1, options.beta2,
                      decay ? options.weight_decay : 0.0, options.epsilon, /*amsgrad=*/false, /*maximize=*/false);
  }
}

}  // namespace neoloom::optim
