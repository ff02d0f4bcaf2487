// SPDX-License-Identifier: Apache-2.0
#include "data/tokenizer/byte_symbols.h"

#include "runtime/core/utf8.h"

namespace neoloom::data {
namespace {

constexpr uint32_t kSymbols = 0x100 + 68;

constexpr std::array<uint32_t, 256> make_symbols() {
  std::array<uint32_t, 256> symbols{};
  uint32_t next = 0x100;
  for (uint32_t byte = 0; byte < 256; ++byte) {
    const bool printable = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
    symbols[byte] = printable ? byte : next++;
  }
  return symbols;
}
constexpr std::array<uint32_t, 256> kByteSymbols = make_symbols();

constexpr std::array<int16_t, kSymbols> make_bytes() {
  std::array<int16_t, kSymbols> bytes{};
  for (auto& byte : bytes) byte = -1;
  for (uint32_t byte = 0; byte < 256; ++byte) bytes[kByteSymbols[byte]] = static_cast<int16_t>(byte);
  return bytes;
}
constexpr std::array<int16_t, kSymbols> kSymbolBytes = make_bytes();

}  // namespace

const std::array<uint32_t, 256>& byte_symbols() { return kByteSymbols; }

std::optional<std::string> bytes_of_symbols(std::string_view symbols) {
  std::string bytes;
  while (!symbols.empty()) {
    const core::CodePoint point = core::first_code_point(symbols);
    if (point.value >= kSymbols || kSymbolBytes[point.value] < 0) return std::nullopt;
    bytes.push_back(static_cast<char>(kSymbolBytes[point.value]));
    symbols.remove_prefix(static_cast<size_t>(point.size_bytes));
  }
  return bytes;
}

}  // namespace neoloom::data
