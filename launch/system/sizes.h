// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <string>

namespace neoloom::launch {

/// Bytes as KiB, MiB, GiB or TiB.
inline std::string size_text(uint64_t bytes) {
  constexpr const char* kUnits[] = {"bytes", "KiB", "MiB", "GiB", "TiB"};
  auto value = static_cast<double>(bytes);
  size_t unit = 0;
  for (; value >= 1024.0 && unit < 4; ++unit) value /= 1024.0;
  return fmt::format("{:.{}f} {}", value, unit == 0 || value >= 100.0 ? 0 : 1, kUnits[unit]);
}

}  // namespace neoloom::launch
