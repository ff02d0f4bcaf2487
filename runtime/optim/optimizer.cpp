// SPDX-License-Identifier: Apache-2.0
#include "runtime/optim/optimizer.h"

#include <ATen/ops/add.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/full.h>
#include <ATen/ops/pow.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <utility>

#include "runtime/core/error.h"

namespace neoloom::optim {
namespace {

// Bounds the memory of temporary tensors: 16 MiB each. A multiple of a block.
constexpr int64_t kChunkElements = int64_t{1} << 22;

// Adafactor's constants, as Trainer leaves them.
constexpr double kSquareOffset = 1e-30;
constexpr double kDecayExponent = -0.8;

/// Tensors of one step.
struct Step {
  FlatBuffers& buffers;
  const OptimizerOptions& options;
  const DeviceNumbers& numbers;
  at::Tensor skip;  // [] bool; undefined: the step is not skipped

  /// Writes `value` to `target`, unless the step is skipped.
  void set(const at::Tensor& target, const at::Tensor& value) const {
    target.copy_(skip.defined() ? at::where(skip, target, value) : value);
  }
};

template <typename Work>
void for_each_chunk(int64_t begin, int64_t end, const Work& work) {
  for (; begin < end; begin += kChunkElements) work(begin, std::min(end, begin + kChunkElements));
}

// Returns average * decay + value * (1 - decay).
at::Tensor averaged(const at::Tensor& average, double decay, const at::Tensor& value) {
  return average.mul(decay).add_(value, 1.0 - decay);
}

/// The functions below replace the gradient by the direction of the update, and update the moments.

void find_sgd_direction(const Step& step) {
  const OptimizerOptions& options = step.options;
  if (options.momentum == 0.0) return;
  at::Tensor share = at::full({}, 1.0 - options.dampening, step.numbers.update.options());
  share = at::where(step.numbers.update.eq(1.0), 1.0, share);  // torch starts with the whole gradient
  for_each_chunk(0, step.buffers.params.numel(), [&](int64_t begin, int64_t end) {
    at::Tensor gradient = step.buffers.grads.slice(0, begin, end);
    const at::Tensor average = step.buffers.exp_avg.slice(0, begin, end);
    const at::Tensor moment = average.mul(options.momentum).add_(gradient.mul(share));
    step.set(average, moment);
    gradient.copy_(options.nesterov ? gradient.add(moment, options.momentum) : moment);
  });
}

void find_lion_direction(const Step& step) {
  const AdamWOptions& betas = step.options.adamw;
  for_each_chunk(0, step.buffers.params.numel(), [&](int64_t begin, int64_t end) {
    at::Tensor gradient = step.buffers.grads.slice(0, begin, end);
    const at::Tensor average = step.buffers.exp_avg.slice(0, begin, end);
    const at::Tensor direction = averaged(average, betas.beta1, gradient).sign_();
    step.set(average, averaged(average, betas.beta2, gradient));
    gradient.copy_(direction);
  });
}

// Returns values / (rms(values), at least 1), in place.
at::Tensor with_bounded_rms(const at::Tensor& values) {
  return values.div_(values.square().mean().sqrt_().clamp_min_(1.0));
}

// Returns `average` after an update with `value`; `decay` [] fp32.
at::Tensor averaged(const at::Tensor& average, const at::Tensor& decay, const at::Tensor& value) {
  return average.mul(decay).add_(value.mul(decay.neg().add_(1.0)));
}

// Shapes: gradient [rows, columns], moments [rows + columns].
at::Tensor matrix_direction(const Step& step, const at::Tensor& gradient, const at::Tensor& moments,
                            const at::Tensor& decay) {
  const at::Tensor square = gradient.square().add_(kSquareOffset);
  const int64_t rows = gradient.size(0);
  const at::Tensor by_row = averaged(moments.slice(0, 0, rows), decay, square.mean(1));
  const at::Tensor by_column = averaged(moments.slice(0, rows), decay, square.mean(0));
  step.set(moments.slice(0, 0, rows), by_row);
  step.set(moments.slice(0, rows), by_column);
  return by_row.div(by_row.mean()).rsqrt_().unsqueeze(1).mul(by_column.rsqrt().unsqueeze(0)).mul_(gradient);
}

void find_adafactor_direction(const Step& step, const std::vector<ParameterRange>& ranges) {
  const at::Tensor decay = step.numbers.update.to(at::kDouble).pow(kDecayExponent).neg_().add_(1.0).to(at::kFloat);
  int64_t offset = 0;
  for (const ParameterRange& range : ranges) {
    at::Tensor gradient = step.buffers.grads.slice(0, range.begin, range.end);
    const int64_t rows = range.columns > 0 ? gradient.numel() / range.columns : 0;
    const int64_t length = range.columns > 0 ? rows + range.columns : gradient.numel();
    const at::Tensor moments = step.buffers.exp_avg_sq.slice(0, offset, offset + length);
    offset += length;
    if (range.columns > 0) {
      const at::Tensor matrix = gradient.view({rows, range.columns});
      matrix.copy_(with_bounded_rms(matrix_direction(step, matrix, moments, decay)));
    } else {
      const at::Tensor average = averaged(moments, decay, gradient.square().add_(kSquareOffset));
      step.set(moments, average);
      gradient.copy_(with_bounded_rms(average.rsqrt().mul_(gradient)));
    }
  }
}

// Returns elements [begin, end) with zeros up to the end of their last block.
at::Tensor whole_blocks(const at::Tensor& values, int64_t begin, int64_t end) {
  const int64_t missing = block_count(end - begin) * kBlockElements - (end - begin);
  const at::Tensor part = values.slice(0, begin, end);
  return missing > 0 ? at::constant_pad_nd(part, {0, missing}) : part;
}

// Returns the new moment of a chunk, and stores its codes.
at::Tensor coded_moment(const Step& step, const BlockCodes& codes, const std::pair<at::Tensor, at::Tensor>& stored,
                        const at::Tensor& value, double beta, int64_t begin, int64_t end) {
  const at::Tensor scales = stored.second.slice(0, begin / kBlockElements, block_count(end));
  const at::Tensor decoded = codes.decode(whole_blocks(stored.first, begin, end), scales);
  // The code 0 of the padding is no value of 0, so it is cut off and padded again.
  at::Tensor moment = averaged(whole_blocks(decoded, 0, end - begin), beta, value);
  const BlockCodes::Encoded encoded = codes.encode(moment);
  step.set(stored.first.slice(0, begin, end), encoded.codes.slice(0, 0, end - begin));
  step.set(scales, encoded.scales);
  return moment;
}

// Returns 1 - beta^k, [] fp32.
at::Tensor bias_correction(double beta, const at::Tensor& update) {
  return at::pow(beta, update.to(at::kDouble)).neg_().add_(1.0);
}

void find_coded_adamw_direction(const Step& step, const BlockCodes& first, const BlockCodes& second) {
  const AdamWOptions& options = step.options.adamw;
  FlatBuffers& buffers = step.buffers;
  const at::Tensor first_bias = bias_correction(options.beta1, step.numbers.update).to(at::kFloat);
  const at::Tensor second_bias = bias_correction(options.beta2, step.numbers.update).sqrt_().to(at::kFloat);
  for_each_chunk(0, buffers.params.numel(), [&](int64_t begin, int64_t end) {
    const at::Tensor gradient = whole_blocks(buffers.grads, begin, end);
    at::Tensor moment =
        coded_moment(step, first, {buffers.exp_avg_codes, buffers.exp_avg}, gradient, options.beta1, begin, end);
    at::Tensor root = coded_moment(step, second, {buffers.exp_avg_sq_codes, buffers.exp_avg_sq}, gradient.square(),
                                   options.beta2, begin, end)
                          .sqrt_();
    moment.div_(first_bias).div_(root.div_(second_bias).add_(options.epsilon));
    buffers.grads.slice(0, begin, end).copy_(moment.slice(0, 0, end - begin));
  });
}

// Adds SGD's weight decay to the gradient.
void add_decay(const Step& step, const std::vector<ParameterRange>& ranges) {
  const double decay = step.options.adamw.weight_decay;
  for (const ParameterRange& range : ranges) {
    if (!range.decay || decay == 0.0) continue;
    step.buffers.grads.slice(0, range.begin, range.end)
        .add_(step.buffers.params.slice(0, range.begin, range.end), decay);
  }
}

// Moves the parameters of a range along the direction; `decay` is decoupled.
void move(const Step& step, const ParameterRange& range, double decay) {
  const at::Tensor rate = step.numbers.learning_rate.mul(range.rate);
  for_each_chunk(range.begin, range.end, [&](int64_t begin, int64_t end) {
    const at::Tensor params = step.buffers.params.slice(0, begin, end);
    at::Tensor moved = decay == 0.0 ? params.clone() : params.mul(rate.mul(-decay).add_(1.0));
    step.set(params, moved.sub_(step.buffers.grads.slice(0, begin, end).mul(rate)));
  });
}

}  // namespace

Optimizer::Optimizer(const OptimizerOptions& options, at::Device device, FusedAdamW fused)
    : options_(options), fused_(std::move(fused)) {
  if (options.kind != OptimizerKind::kAdamW8bit) return;
  first_codes_.emplace(/*is_signed=*/true, device);
  second_codes_.emplace(/*is_signed=*/false, device);
}

void Optimizer::step(FlatBuffers& buffers, const std::vector<ParameterRange>& ranges, double learning_rate,
                     int64_t update) const {
  if (options_.kind == OptimizerKind::kAdamW) {
    adamw_step(buffers.params, buffers.grads, buffers.exp_avg, buffers.exp_avg_sq, ranges, options_.adamw,
               learning_rate, update);
    return;
  }
  const at::TensorOptions fp32 = buffers.params.options();
  step_in_operators(buffers, ranges,
                    {at::full({}, learning_rate, fp32), at::full({}, static_cast<double>(update), fp32), {}});
}

void Optimizer::step_on_device(FlatBuffers& buffers, const std::vector<ParameterRange>& ranges,
                               const DeviceNumbers& numbers) const {
  if (options_.kind == OptimizerKind::kAdamW) {
    adamw_step_on_device(buffers, ranges, options_.adamw, numbers, fused_);
  } else {
    step_in_operators(buffers, ranges, numbers);
  }
}

void Optimizer::step_in_operators(FlatBuffers& buffers, const std::vector<ParameterRange>& ranges,
                                  const DeviceNumbers& numbers) const {
  const Step step{buffers, options_, numbers, numbers.skip.defined() ? numbers.skip.gt(0.5) : at::Tensor()};
  const bool decoupled = options_.kind != OptimizerKind::kSgd;
  if (!decoupled) add_decay(step, ranges);
  if (options_.kind == OptimizerKind::kSgd) find_sgd_direction(step);
  if (options_.kind == OptimizerKind::kLion) find_lion_direction(step);
  if (options_.kind == OptimizerKind::kAdafactor) find_adafactor_direction(step, ranges);
  if (options_.kind == OptimizerKind::kAdamW8bit) find_coded_adamw_direction(step, *first_codes_, *second_codes_);
  for (const ParameterRange& range : ranges) {
    move(step, range, decoupled && range.decay ? options_.adamw.weight_decay : 0.0);
  }
}

FlatBuffers make_buffers(const OptimizerOptions& options, int64_t n_elements, int64_t factored_elements,
                         at::Device device) {
  const StateSizes sizes = state_sizes(options, n_elements, factored_elements);
  const auto zeros = [device](int64_t length, at::ScalarType dtype) {
    return at::zeros({length}, at::TensorOptions().dtype(dtype).device(device));
  };
  return {zeros(n_elements, at::kFloat),       zeros(n_elements, at::kFloat), zeros(sizes.exp_avg, at::kFloat),
          zeros(sizes.exp_avg_sq, at::kFloat), zeros(sizes.codes, at::kByte), zeros(sizes.codes, at::kByte)};
}

}  // namespace neoloom::optim
