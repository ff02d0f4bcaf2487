// SPDX-License-Identifier: Apache-2.0
#include "data/readers/encoding.h"

#include <array>
#include <utility>

#include "runtime/core/error.h"
#include "runtime/core/utf8.h"

namespace neoloom::data {
namespace {

/// Code points of the bytes 0x80 to 0x9F in Windows-1252 (unicode.org/Public/MAPPINGS); 0: none. All others are those
/// of Latin-1, which are the bytes themselves.
constexpr std::array<uint16_t, 32> kWindows = {0x20AC, 0,      0x201A, 0x0192, 0x201E, 0x2026, 0x2020, 0x2021,
                                               0x02C6, 0x2030, 0x0160, 0x2039, 0x0152, 0,      0x017D, 0,
                                               0,      0x2018, 0x2019, 0x201C, 0x201D, 0x2022, 0x2013, 0x2014,
                                               0x02DC, 0x2122, 0x0161, 0x203A, 0x0153, 0,      0x017E, 0x0178};

}  // namespace

Recoder::Recoder(std::string path, const std::string& encoding, TakePiece take)
    : path_(std::move(path)),
      replaces_(encoding == "utf-8-replace"),
      windows_(encoding == "cp1252"),
      take_(std::move(take)) {}

bool Recoder::add(std::string_view piece) {
  if (!replaces_) return take_(from_one_byte_each(piece));
  tail_ += piece;
  const size_t whole = tail_.size() - core::utf8_incomplete_tail(tail_);
  const std::string text = core::utf8_lossy(std::string_view(tail_).substr(0, whole));
  tail_.erase(0, whole);
  return text.empty() || take_(text);
}

void Recoder::finish() {
  if (!tail_.empty()) take_(core::utf8_lossy(tail_));
  tail_.clear();
}

std::string Recoder::from_one_byte_each(std::string_view piece) {
  std::string text;
  text.reserve(piece.size() + piece.size() / 8);
  for (const char c : piece) {
    const auto byte = static_cast<unsigned char>(c);
    const bool special = windows_ && byte >= 0x80 && byte < 0xA0;
    const uint32_t code_point = special ? kWindows[byte - 0x80] : byte;
    core::require(code_point != 0 || byte == 0, core::ErrorKind::kData,
                  "{}: line {}: the byte 0x{:02X} is no character of cp1252; is the file in another encoding? "
                  "data.encoding: latin-1 takes every byte",
                  path_, lines_, byte);
    core::append_utf8(text, code_point);
    lines_ += c == '\n' ? 1 : 0;
  }
  return text;
}

}  // namespace neoloom::data
