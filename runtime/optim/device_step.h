// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <vector>

#include "runtime/optim/adamw.h"

// Clipping and AdamW for a device whose host runs ahead: nothing here reads a value back.
namespace neoloom::optim {

/// What the host does not know when it enqueues the update; on the parameters' device.
struct DeviceNumbers {
  at::Tensor learning_rate;  // [] fp32
  at::Tensor update;         // [] fp32, counted from 1
  at::Tensor skip;           // [] fp32: 1 leaves every value as it is, 0 updates
};

/// Shapes as in adamw_step: [n] fp32.
struct FlatBuffers {
  at::Tensor params, grads, exp_avg, exp_avg_sq;
};

/// Ranges of equal decay, as views of the buffers.
struct TensorLists {
  std::vector<at::Tensor> params, grads, exp_avg, exp_avg_sq;
};

/// LibTorch's fused AdamW, as a function, so that tests on CPU tensors can stand in for it: there it reads its numbers.
using FusedAdamW =
    std::function<void(TensorLists& lists, const AdamWOptions& options, double decay, const DeviceNumbers& numbers)>;
void fused_adamw(TensorLists& lists, const AdamWOptions& options, double decay, const DeviceNumbers& numbers);

/// adamw_step (see there) with numbers of the device. LibTorch's operator takes the learning rate as fp32.
void adamw_step_on_device(const FlatBuffers& buffers, const std::vector<ParameterRange>& ranges,
                          const AdamWOptions& options, const DeviceNumbers& numbers,
                          const FusedAdamW& fused = fused_adamw);

/// clip_grad_norm (see there): the norm before clipping, [] fp64. A norm that is not finite spoils `grads`: such a step
/// is to be skipped anyway.
at::Tensor clip_grad_norm_on_device(at::Tensor& grads, double max_norm);

}  // namespace neoloom::optim
