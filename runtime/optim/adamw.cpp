// SPDX-License-Identifier: Apache-2.0
#include "runtime/optim/adamw.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/full.h>

#include <map>
#include <utility>

#include "runtime/core/error.h"
#include "runtime/optim/device_step.h"

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

// Merges adjacent ranges of the same decay and rate: fewer kernels, same arithmetic.
std::vector<ParameterRange> merged(const std::vector<ParameterRange>& ranges, int64_t elements) {
  std::vector<ParameterRange> result;
  int64_t end = 0;
  for (const ParameterRange& range : ranges) {
    core::require(range.begin >= end && range.begin <= range.end && range.end <= elements, ErrorKind::kInternal,
                  "AdamW: range [{}, {}) is not ascending inside {} elements", range.begin, range.end, elements);
    end = range.end;
    if (range.begin == range.end) continue;
    if (!result.empty() && result.back().end == range.begin && result.back().decay == range.decay &&
        result.back().rate == range.rate) {
      result.back().end = range.end;
    } else {
      result.push_back(range);
    }
  }
  return result;
}

// Calls update(lists, weight decay, rate) once for each pair of decay and rate that ranges have.
template <typename Update>
void for_each_decay(const FlatBuffers& buffers, const std::vector<ParameterRange>& ranges, const AdamWOptions& options,
                    const Update& update) {
  require_flat(buffers.params, buffers.params, "params");
  require_flat(buffers.grads, buffers.params, "grads");
  require_flat(buffers.exp_avg, buffers.params, "exp_avg");
  require_flat(buffers.exp_avg_sq, buffers.params, "exp_avg_sq");
  std::map<std::pair<bool, double>, TensorLists> groups;
  for (const ParameterRange& range : merged(ranges, buffers.params.numel())) {
    TensorLists& lists = groups[{!range.decay, range.rate}];
    lists.params.push_back(buffers.params.slice(0, range.begin, range.end));
    lists.grads.push_back(buffers.grads.slice(0, range.begin, range.end));
    lists.exp_avg.push_back(buffers.exp_avg.slice(0, range.begin, range.end));
    lists.exp_avg_sq.push_back(buffers.exp_avg_sq.slice(0, range.begin, range.end));
  }
  for (auto& [group, lists] : groups) update(lists, group.first ? 0.0 : options.weight_decay, group.second);
}

}  // namespace

// LibTorch's fused kernel gives threads whole cache lines, so its bits do not depend on the number of threads. It reads
// the count of updates as fp32, which is exact up to 2^24.
void adamw_step(at::Tensor& params, const at::Tensor& grads, at::Tensor& exp_avg, at::Tensor& exp_avg_sq,
                const std::vector<ParameterRange>& ranges, const AdamWOptions& options, double learning_rate,
                int64_t update) {
  core::require(update >= 1, ErrorKind::kInternal, "AdamW: update {} is not counted from 1", update);
  const at::Tensor count = at::full({}, static_cast<double>(update), params.options());
  for_each_decay(
      {params, grads, exp_avg, exp_avg_sq}, ranges, options, [&](TensorLists& lists, double decay, double rate) {
        const std::vector<at::Tensor> counts(lists.params.size(), count);
        at::_fused_adamw_(lists.params, lists.grads, lists.exp_avg, lists.exp_avg_sq, /*max_exp_avg_sqs=*/{}, counts,
                          learning_rate * rate, options.beta1, options.beta2, decay, options.epsilon, /*amsgrad=*/false,
                          /*maximize=*/false);
      });
}

void fused_adamw(TensorLists& lists, const AdamWOptions& options, double decay, const DeviceNumbers& numbers) {
  const std::vector<at::Tensor> counts(lists.params.size(), numbers.update);
  at::_fused_adamw_(lists.params, lists.grads, lists.exp_avg, lists.exp_avg_sq, /*max_exp_avg_sqs=*/{}, counts,
                    numbers.learning_rate, options.beta1, options.beta2, decay, options.epsilon, /*amsgrad=*/false,
                    /*maximize=*/false, /*grad_scale=*/{}, /*found_inf=*/numbers.skip);
}

void adamw_step_on_device(const FlatBuffers& buffers, const std::vector<ParameterRange>& ranges,
                          const AdamWOptions& options, const DeviceNumbers& numbers, const FusedAdamW& fused) {
  for_each_decay(buffers, ranges, options, [&](TensorLists& lists, double decay, double rate) {
    DeviceNumbers scaled = numbers;
    if (rate != 1.0) scaled.learning_rate = numbers.learning_rate.mul(rate);
    fused(lists, options, decay, scaled);
  });
}

}  // namespace neoloom::optim
