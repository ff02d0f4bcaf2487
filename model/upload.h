// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <vector>

namespace neoloom::model {

/// Values of the host as a tensor of `shape` on `device`. The host does not wait: the values travel from page-locked
/// memory, which LibTorch keeps until they have arrived.
template <typename Value>
at::Tensor upload(const std::vector<Value>& values, at::IntArrayRef shape, const at::Device& device) {
  const auto options = at::TensorOptions().dtype(c10::CppTypeToScalarType<Value>::value);
  at::Tensor host = at::empty(shape, options.pinned_memory(device.is_cuda()));
  std::copy(values.begin(), values.end(), host.template mutable_data_ptr<Value>());
  if (device.is_cpu()) return host;
  at::Tensor there = at::empty(shape, options.device(device));
  there.copy_(host, /*non_blocking=*/true);
  return there;
}

template <typename Value>
at::Tensor upload(const std::vector<Value>& values, const at::Device& device) {
  return upload(values, {static_cast<int64_t>(values.size())}, device);
}

}  // namespace neoloom::model
