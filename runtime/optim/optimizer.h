// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "runtime/optim/block_codes.h"
#include "runtime/optim/device_step.h"
#include "runtime/optim/optimizer_options.h"

namespace neoloom::optim {

/// Updates flat fp32 buffers in place by one of these formulas, with weight decay w in the ranges that have it, and the
/// learning rate l times the range's rate. b1, b2: betas; k: count of updates.
///   AdamW       torch.optim.AdamW: adamw_step
///   SGD         torch.optim.SGD: g += w p; m = momentum m + (1 - dampening) g, g in the first update; p -= l m,
///               with nesterov p -= l (g + momentum m)
///   Adafactor   transformers.Adafactor as Trainer sets it (scale_parameter and relative_step false): second moments
///               g^2 + 1e-30, averaged with 1 - k^-0.8, of a matrix by rows and columns; the update's RMS is at most 1
///   Lion        Chen et al. 2023, as bitsandbytes: p = p (1 - l w) - l sign(b1 m + (1 - b1) g); m = b2 m + (1 - b2) g
///   8-bit AdamW AdamW whose moments lie in memory as BlockCodes; an update uses the fp32 moments before they are
///               encoded, as bitsandbytes does. Blocks run through the flat buffer.
/// All but AdamW work in operators without a read-back, on CPUs and GPUs alike, and use grads as scratch memory.
class Optimizer {
 public:
  /// `fused`: AdamW's operator on GPUs.
  Optimizer(const OptimizerOptions& options, at::Device device, FusedAdamW fused = fused_adamw);

  /// For CPU tensors. `update` counts from 1.
  void step(FlatBuffers& buffers, const std::vector<ParameterRange>& ranges, double learning_rate,
            int64_t update) const;
  /// For GPUs: enqueues.
  void step_on_device(FlatBuffers& buffers, const std::vector<ParameterRange>& ranges,
                      const DeviceNumbers& numbers) const;

 private:
  void step_in_operators(FlatBuffers& buffers, const std::vector<ParameterRange>& ranges,
                         const DeviceNumbers& numbers) const;

  OptimizerOptions options_;
  FusedAdamW fused_;
  std::optional<BlockCodes> first_codes_, second_codes_;  // 8-bit AdamW
};

/// Buffers of zeros. `factored_elements`: see StateSizes.
FlatBuffers make_buffers(const OptimizerOptions& options, int64_t n_elements, int64_t factored_elements,
                         at::Device device);

}  // namespace neoloom::optim
