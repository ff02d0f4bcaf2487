// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace neoloom::data {

/// GPT-2 writes tokens with one printable code point per byte: bytes 33-126, 161-172 and 174-255 as themselves, the
/// other 68 in order as U+0100 upward. [256]
const std::array<uint32_t, 256>& byte_symbols();

/// Bytes of a token that is written in byte symbols; nullopt when it holds any other code point.
std::optional<std::string> bytes_of_symbols(std::string_view symbols);

}  // namespace neoloom::data
