// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "launch/config/node.h"

namespace neoloom::launch {

inline constexpr size_t kMaxDocumentBytes = size_t{1} << 20;
inline constexpr size_t kMaxDocumentDepth = 32;
inline constexpr size_t kMostKeys = 1000;  // of one map

/// Reads one YAML or JSON document: JSON when the first character that is not blank is { or [, because yaml-cpp refuses
/// surrogate escapes and loads duplicate keys in silence.
/// Throws: Error(kUsage) with position: syntax, duplicate keys, anchors, aliases, tags, nesting, size, not UTF-8.
Node parse_document(const std::string& text, const std::string& name);

/// Reads one value as YAML; every position is `position` (that of the --set it came from).
Node parse_value(const std::string& text, const Position& position);

}  // namespace neoloom::launch
