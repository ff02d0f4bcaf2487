// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <map>
#include <string>
#include <string_view>

#include "model/checkpoints/safetensors.h"

namespace neoloom::model {

inline constexpr size_t kMaxSafetensorsHeaderBytes = 100'000'000;

/// The parsed head of a safetensors file.
struct SafetensorsHeader {
  size_t data_begin_byte = 0;  // offset of the data section in the file
  std::map<std::string, TensorInfo> tensors;
  std::map<std::string, std::string> metadata;
};

/// Parses and checks the head of `file` (the whole file's bytes). `path` is for messages.
/// Throws: Error(kWeights) naming the file and the rule that does not hold.
SafetensorsHeader parse_safetensors_header(std::string_view file, const std::string& path);

/// Returns the offset of a cache file's checksum digits in `head`, the bytes before its data; npos: none.
size_t checksum_offset(std::string_view head);

}  // namespace neoloom::model
