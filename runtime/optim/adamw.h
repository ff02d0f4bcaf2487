// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

// Forward declaration, so that including this costs no LibTorch headers.
namespace at {
class Tensor;
}

namespace neoloom::optim {

struct AdamWOptions {
  double beta1 = 0.9;
  double beta2 = 0.999;
  double epsilon = 1e-8;
  double weight_decay = 0.0;
};

/// A half-open range of the flat buffer, in elements, and whether weight decay applies to it. As in Hugging Face, it
/// does not apply to biases and LayerNorm parameters.
struct ParameterRange {
  int64_t begin = 0;
  int64_t end = 0;
  bool decay = true;
  double rate = 1.0;    // multiplies the learning rate (LoRA+)
  int64_t columns = 0;  // of a matrix, for Adafactor's factored moments; 0: a vector, or several tensors
};

/// Decoupled weight decay (Loshchilov & Hutter), torch.optim.AdamW's arithmetic, on flat fp32 buffers, in place.
/// Shapes: params, grads, exp_avg, exp_avg_sq [n], contiguous, same device; ranges inside [0, n), ascending.
/// `update` counts from 1. Same bits for the same inputs, whatever the number of ranks.
void adamw_step(at::Tensor& params, const at::Tensor& grads, at::Tensor& exp_avg, at::Tensor& exp_avg_sq,
                const std::vector<ParameterRange>& ranges, const AdamWOptions& options, double learning_rate,
                int64_t update);

/// Returns the global L2 norm of `grads` [n], accumulated in float64 in a fixed order. Scales `grads` in place as
/// torch.nn.utils.clip_grad_norm_ does: factor = max_norm / (norm + 1e-6), at most 1. max_norm <= 0 only returns the
/// norm. For CPU tensors. Same bits for any number of threads. Leaves `grads` as they are when the norm is not finite:
/// skip such a step.
double clip_grad_norm(at::Tensor& grads, double max_norm);

}  // namespace neoloom::optim
