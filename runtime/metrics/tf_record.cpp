// SPDX-License-Identifier: Apache-2.0
#include "runtime/metrics/tf_record.h"

#include <array>

namespace neoloom::metrics {
namespace {

constexpr std::array<uint32_t, 256> crc_table() {
  constexpr uint32_t kPolynomial = 0x82F63B78;  // reflected
  std::array<uint32_t, 256> table{};
  for (uint32_t byte = 0; byte < table.size(); ++byte) {
    uint32_t value = byte;
    for (int bit = 0; bit < 8; ++bit) value = value >> 1U ^ (value % 2 == 1 ? kPolynomial : 0);
    table[byte] = value;
  }
  return table;
}

void append_little_endian(uint64_t value, int count_bytes, std::string& bytes) {
  for (int i = 0; i < count_bytes; ++i) bytes += static_cast<char>(value >> (8U * static_cast<unsigned>(i)));
}

uint32_t masked(uint32_t crc) { return (crc >> 15U | crc << 17U) + 0xA282EAD8; }

}  // namespace

uint32_t crc32c(std::string_view bytes) {
  static constexpr std::array<uint32_t, 256> kTable = crc_table();
  uint32_t crc = ~uint32_t{0};
  for (const char c : bytes) crc = crc >> 8U ^ kTable[(crc ^ static_cast<unsigned char>(c)) & 0xFFU];
  return ~crc;
}

std::string tf_record(std::string_view data) {
  std::string record;
  record.reserve(data.size() + 16);
  append_little_endian(data.size(), 8, record);
  append_little_endian(masked(crc32c(record)), 4, record);
  record += data;
  append_little_endian(masked(crc32c(data)), 4, record);
  return record;
}

}  // namespace neoloom::metrics
