// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <vector>

#include "runtime/optim/adamw.h"

// The optimizer's part of a step on flat buffers. Clipping and AdamW for a GPU do not synchronize with the host: they
// read no value back.
namespace neoloom::optim {

/// Inputs of the update that the host does not know when it enqueues it. They lie on the parameters' device.
struct DeviceNumbers {
  at::Tensor learning_rate;  // [] fp32
  at::Tensor update;         // [] fp32, counted from 1
  at::Tensor skip;           // [] fp32: 1 leaves every value as it is, 0 updates; undefined on the host: updates
};

/// params, grads: [n] fp32. The lengths of the moments depend on the optimizer: StateSizes in
/// runtime/optim/optimizer.h.
struct FlatBuffers {
  at::Tensor params, grads;
  at::Tensor exp_avg, exp_avg_sq;                        // fp32
  at::Tensor exp_avg_codes = {}, exp_avg_sq_codes = {};  // uint8; undefined or empty without 8-bit moments
};

/// Views of the buffers for the ranges of one weight decay, as the fused operator takes them.
struct TensorLists {
  std::vector<at::Tensor> params, grads, exp_avg, exp_avg_sq;
};

/// LibTorch's fused AdamW as a function, which tests on CPU tensors replace: the CPU operator reads its numbers back.
using FusedAdamW =
    std::function<void(TensorLists& lists, const AdamWOptions& options, double decay, const DeviceNumbers& numbers)>;
void fused_adamw(TensorLists& lists, const AdamWOptions& options, double decay, const DeviceNumbers& numbers);

/// adamw_step with its numbers on the device. LibTorch's operator takes the learning rate as fp32.
void adamw_step_on_device(const FlatBuffers& buffers, const std::vector<ParameterRange>& ranges,
                          const AdamWOptions& options, const DeviceNumbers& numbers,
                          const FusedAdamW& fused = fused_adamw);

/// clip_grad_norm without a read-back. Returns the norm before clipping, [] fp64. A norm that is not finite makes
/// `grads` unusable: skip such a step.
at::Tensor clip_grad_norm_on_device(at::Tensor& grads, double max_norm);

}  // namespace neoloom::optim
