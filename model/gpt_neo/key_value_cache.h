// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace neoloom::model {

/// Keeps the keys and values that one block needs of one sequence while it is decoded. A global block needs all tokens,
/// a local one the window - 1 before the next: its buffers hold twice the window, so that a token is rarely moved.
class KeyValueCache {
 public:
  struct Visible {
    at::Tensor k, v;  // [tokens, h]: what the new tokens may see, then the new tokens
  };

  /// `window` 0: global. Shapes: buffers [max_tokens or 2 * window, h] of `options`.
  KeyValueCache(int64_t max_tokens, int64_t window, int64_t channels, const at::TensorOptions& options);

  /// Appends k, v [n, h] of the next tokens. The result is valid until the next call.
  Visible append(const at::Tensor& k, const at::Tensor& v);
  /// Forgets the sequence.
  void clear() { used_ = 0; }
  int64_t capacity() const { return k_.size(0); }  // tokens

 private:
  void keep_last(const Visible& visible, int64_t count);

  at::Tensor k_, v_;
  int64_t window_;
  int64_t used_ = 0;  // tokens in the buffers
};

}  // namespace neoloom::model
