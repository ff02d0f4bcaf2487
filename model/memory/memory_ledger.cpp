// SPDX-License-Identifier: Apache-2.0
#include "model/memory/memory_ledger.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <torch/library.h>

#include <algorithm>
#include <array>
#include <memory>
#include <optional>
#include <tuple>
#include <vector>

namespace neoloom::model {

c10::DataPtr MemoryLedger::allocate(size_t bytes) {
  auto entry = std::make_unique<Entry>(Entry{*this, static_cast<int64_t>(bytes)});
  live_bytes_ += entry->bytes;
  peak_bytes_ = std::max(peak_bytes_, live_bytes_);
  return {nullptr, entry.release(), &release, at::Device(at::kMeta)};
}

void MemoryLedger::release(void* entry) {
  const std::unique_ptr<Entry> released(static_cast<Entry*>(entry));
  released->ledger.live_bytes_ -= released->bytes;
}

namespace {

using at::Tensor;
using OptionalTensor = std::optional<Tensor>;

Tensor index_select(const Tensor& x, int64_t dim, const Tensor& index) {
  std::vector<int64_t> sizes = x.sizes().vec();
  sizes[static_cast<size_t>(dim)] = index.size(0);
  return at::empty(sizes, x.options());
}

std::tuple<Tensor, Tensor, Tensor> layer_norm(const Tensor& x, c10::SymIntArrayRef /*shape*/, const OptionalTensor&,
                                              const OptionalTensor&, double /*epsilon*/) {
  return {at::empty_like(x), at::empty({x.size(0), 1}, x.options()), at::empty({x.size(0), 1}, x.options())};
}

std::tuple<Tensor, Tensor, Tensor> layer_norm_backward(const Tensor& /*dy*/, const Tensor& x,
                                                       c10::SymIntArrayRef /*shape*/, const Tensor& /*mean*/,
                                                       const Tensor& /*rstd*/, const OptionalTensor& weight,
                                                       const OptionalTensor& bias, std::array<bool, 3> wanted) {
  return {at::empty_like(x), wanted[1] ? at::empty_like(*weight) : Tensor(),
          wanted[2] ? at::empty_like(*bias) : Tensor()};
}

std::tuple<Tensor, Tensor> dropout(const Tensor& x, double /*probability*/, std::optional<bool> /*train*/) {
  return {at::empty_like(x), at::empty_like(x, x.options().dtype(at::kBool))};
}

Tensor dropout_backward(const Tensor& dy, const Tensor& /*mask*/, double /*scale*/) { return at::empty_like(dy); }

Tensor logical_or(const Tensor& x, const Tensor& /*other*/) { return at::empty_like(x); }

Tensor where(const Tensor& /*condition*/, const Tensor& x, const Tensor& /*other*/) { return at::empty_like(x); }

}  // namespace

/// Registers meta kernels of operators for which LibTorch has them in Python only.
TORCH_LIBRARY_IMPL(aten, Meta, library) {
  library.impl("index_select", &index_select);
  library.impl("native_layer_norm", &layer_norm);
  library.impl("native_layer_norm_backward", &layer_norm_backward);
  library.impl("native_dropout", &dropout);
  library.impl("native_dropout_backward", &dropout_backward);
  library.impl("logical_or", &logical_or);
  library.impl("where.self", &where);
}

}  // namespace neoloom::model
