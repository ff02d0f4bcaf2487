// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <vector>

namespace neoloom::model {

/// Copies values to a host tensor of `shape`, which is pinned if `device` is a GPU.
template <typename Value>
at::Tensor to_pinned(const std::vector<Value>& values, at::IntArrayRef shape, const at::Device& device) {
  const auto options = at::TensorOptions().dtype(c10::CppTypeToScalarType<Value>::value);
  at::Tensor host = at::empty(shape, options.pinned_memory(device.is_cuda()));
  std::copy(values.begin(), values.end(), host.template mutable_data_ptr<Value>());
  return host;
}

/// Copies a pinned tensor to `device` asynchronously; returns it as it is for the CPU. LibTorch keeps the pinned memory
/// until the copy is done.
inline at::Tensor to_device_async(const at::Tensor& host, const at::Device& device) {
  if (device.is_cpu()) return host;
  at::Tensor there = at::empty(host.sizes(), host.options().pinned_memory(false).device(device));
  there.copy_(host, /*non_blocking=*/true);
  return there;
}

}  // namespace neoloom::model
