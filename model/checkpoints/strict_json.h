// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <nlohmann/json.hpp>
#include <string>

namespace neoloom::model {

/// Reads a small JSON file from outside. It must be one object of at most `limit_bytes`, at most 32 levels deep,
/// without duplicate keys. Throws: Error(kWeights) naming the file and what is wrong.
nlohmann::json read_strict_json(const std::string& path, size_t limit_bytes = size_t{1} << 20);

}  // namespace neoloom::model
