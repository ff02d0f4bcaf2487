// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include "model/adapters/lora.h"

namespace neoloom::model {

/// What an adapter's forward keeps for backward along the device path.
struct AdapterSaved {
  at::Tensor mask;     // [n, in] bool, true: kept; undefined without dropout
  at::Tensor reduced;  // [n, r] fp32: drop(x) A^T
};

/// The device path of LoraBranch: x A^T is kept (r values a row), the scale rides on the products, masks are native
/// dropout's, drawn from the default generator of x's device in the order of calls. What an earlier call saved is used
/// again: no mask is drawn twice. Everything in fp32.
/// Shapes: x [n, in], y [n, out], any row stride.
void add_adapter_on_device(const LoraBranch& lora, at::Tensor& y, const at::Tensor& x, AdapterSaved& saved);

/// Gradients of A and B, and, when `dx` is not null, the adapter's part added to dx [n, in].
void adapter_backward_on_device(const LoraBranch& lora, const at::Tensor& dy, const at::Tensor& x,
                                const AdapterSaved& saved, at::Tensor* dx);

}  // namespace neoloom::model
