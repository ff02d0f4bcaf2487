// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <vector>

namespace neoloom::model {

/// Values as a host tensor of `shape`, page-locked where it will travel to a GPU.
template <typename Value>
at::Tensor to_pinned(const std::vector<Value>& values, at::IntArrayRef shape, const at::Device& device) {
  const auto options = at::TensorOptions().dtype(c10::CppTypeToScalarType<Value>::value);
  at::Tensor host = at::empty(shape, options.pinned_memory(device.is_cuda()));
  std::copy(values.begin(), values.end(), host.template mutable_data_ptr<Value>());
  return host;
}

/// A pinned tensor on `device`; itself on the host. The host does not wait: LibTorch keeps page-locked memory until
/// its values have arrived.
inline at::Tensor to_device_async(const at::Tensor& host, const at::Device& device) {
  if (device.is_cpu()) return host;
  at::Tensor there = at::empty(host.sizes(), host.options().pinned_memory(false).device(device));
  there.copy_(host, /*non_blocking=*/true);
  return there;
}

}  // namespace neoloom::model
