// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace neoloom::model {

/// Where one trainable tensor lies in the flat fp32 buffers (values, gradients, moments).
struct ParameterSlot {
  std::string name;             // PEFT's saved key, or Hugging Face's name in full-parameter mode
  std::vector<int64_t> shape;   // row-major
  int64_t offset_elements = 0;  // multiple of 16 elements: 64 bytes in fp32
  bool decay = true;            // weight decay applies (not for biases and LayerNorm parameters)
  int64_t elements() const;
};

/// All trainable tensors in a stable order, padded to 64-byte boundaries.
struct ParameterLayout {
  std::vector<ParameterSlot> slots;
  int64_t total_elements = 0;      // length of the flat buffer, padding included
  int64_t trainable_elements = 0;  // without padding: PEFT's count of trainable parameters
  /// Offset of each block's first tensor. Later blocks and then the head follow.
  std::vector<int64_t> block_begin_elements;
  /// Appends a slot at the next boundary and returns its index.
  int64_t add(std::string name, std::vector<int64_t> shape, bool decay);
};

}  // namespace neoloom::model
