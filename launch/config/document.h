// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "launch/config/node.h"

namespace neoloom::launch {

inline constexpr size_t kMaxDocumentBytes = size_t{1} << 20;
inline constexpr size_t kMaxDocumentDepth = 32;
inline constexpr size_t kMostKeys = 1000;  // of one map

/// Reads one YAML or JSON document: It is JSON if its first character that is not blank is { or [. The YAML parser
/// cannot read JSON, since yaml-cpp rejects surrogate escapes and silently accepts duplicate keys.
/// Throws: Error(kUsage) with position: syntax, duplicate keys, anchors, aliases, tags, nesting, size, not UTF-8.
Node parse_document(const std::string& text, const std::string& name);

/// Reads one value of a --set as YAML. Every node gets `position`.
Node parse_value(const std::string& text, const Position& position);

}  // namespace neoloom::launch
