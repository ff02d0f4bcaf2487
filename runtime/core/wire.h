// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "runtime/core/error.h"

namespace neoloom::core {

// Small structs on their way between ranks of one job, as CBOR: numbers keep every bit, NaN included, and texts every
// byte. A struct takes part by NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE in its own namespace. Nothing of this is stored.

template <typename Struct>
std::string to_wire(const Struct& value) {
  const std::vector<uint8_t> bytes = nlohmann::json::to_cbor(nlohmann::json(value));
  return {bytes.begin(), bytes.end()};
}

/// Throws: Error(kInternal) for bytes that to_wire of this struct did not write.
template <typename Struct>
Struct from_wire(const std::string& bytes) {
  try {
    return nlohmann::json::from_cbor(bytes).get<Struct>();
  } catch (const nlohmann::json::exception& error) {
    fail(ErrorKind::kInternal, "a rank sent what cannot be read: {}", error.what());
  }
}

}  // namespace neoloom::core
