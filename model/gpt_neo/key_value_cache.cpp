// SPDX-License-Identifier: Apache-2.0
#include "model/gpt_neo/key_value_cache.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>

#include <algorithm>

namespace neoloom::model {

KeyValueCache::KeyValueCache(int64_t max_tokens, int64_t window, int64_t channels, const at::TensorOptions& options)
    : window_(window) {
  const int64_t capacity = window == 0 ? max_tokens : std::min(max_tokens, 2 * window);
  k_ = at::empty({capacity, channels}, options);
  v_ = at::empty({capacity, channels}, options);
}

KeyValueCache::Visible KeyValueCache::append(const at::Tensor& k, const at::Tensor& v) {
  const int64_t count = k.size(0);
  const int64_t kept = window_ == 0 ? used_ : std::min(used_, window_ - 1);
  if (used_ + count > capacity()) {
    keep_last({k_.narrow(0, 0, used_), v_.narrow(0, 0, used_)}, kept);
  }
  if (used_ + count > capacity()) {  // a long prompt: attention reads it once, then its end is enough
    Visible all = {at::cat({k_.narrow(0, 0, used_), k}), at::cat({v_.narrow(0, 0, used_), v})};
    keep_last(all, window_ - 1);
    return all;
  }
  k_.narrow(0, used_, count).copy_(k);
  v_.narrow(0, used_, count).copy_(v);
  used_ += count;
  return {k_.narrow(0, used_ - kept - count, kept + count), v_.narrow(0, used_ - kept - count, kept + count)};
}

void KeyValueCache::keep_last(const Visible& visible, int64_t count) {
  // Source and target may overlap.
  k_.narrow(0, 0, count).copy_(visible.k.narrow(0, visible.k.size(0) - count, count).clone());
  v_.narrow(0, 0, count).copy_(visible.v.narrow(0, visible.v.size(0) - count, count).clone());
  used_ = count;
}

}  // namespace neoloom::model
