// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "runtime/core/error.h"

namespace neoloom::core {

// Limits on JSON from outside, checked before parsing: nlohmann's documents copy, print and compare recursively, and
// take up to 100 bytes a value.
inline constexpr size_t kMaxJsonDepth = 100;
inline constexpr size_t kMaxJsonValues = 4'000'000;

/// Returns which limit a text exceeds, or "". Makes one pass without allocating, and stops at the first excess.
std::string json_excess(std::string_view text, size_t most_levels = kMaxJsonDepth);

/// Returns the parser's message as one short line, without nlohmann's error number.
std::string json_complaint(const nlohmann::json::exception& error);

/// Whether a value is an integer in [least, most]. nlohmann compares an unsigned value as if it were signed: 2^64 - 1
/// would be -1.
bool json_integer_within(const nlohmann::json& value, int64_t least, int64_t most);

/// The one way in which neoloom parses JSON into a document; `where` names the text in messages.
/// Throws: Error(kind).
template <typename Json = nlohmann::json>
Json parse_json(std::string_view text, const std::string& where, ErrorKind kind) {
  if (const std::string excess = json_excess(text); !excess.empty()) fail(kind, "{}: {}", where, excess);
  try {
    return Json::parse(text);
  } catch (const nlohmann::json::exception& error) {
    fail(kind, "{}: not valid JSON: {}", where, json_complaint(error));
  }
}

}  // namespace neoloom::core
