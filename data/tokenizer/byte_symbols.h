// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace neoloom::data {

/// Returns GPT-2's printable code point of each byte, [256]: bytes 33-126, 161-172 and 174-255 map to themselves, the
/// other 68 in order to U+0100 and up.
const std::array<uint32_t, 256>& byte_symbols();

/// Returns the bytes of a token that is written in byte symbols; nullopt when it contains any other code point.
std::optional<std::string> bytes_of_symbols(std::string_view symbols);

}  // namespace neoloom::data
