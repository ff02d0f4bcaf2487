// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "launch/config/run_config.h"
#include "runtime/core/error.h"

namespace neoloom::launch {

inline RunConfig parse(const std::string& text, const std::vector<std::string>& overrides = {}) {
  return parse_config(text, "run.yaml", overrides);
}

/// The message of the usage error that parsing ends with; "accepted" or the kind's number when there is another end.
inline std::string refusal(const std::string& text, const std::vector<std::string>& overrides = {}) {
  try {
    parse(text, overrides);
  } catch (const core::Error& error) {
    return error.kind() == core::ErrorKind::kUsage ? error.what() : "wrong kind of error";
  }
  return "accepted";
}

}  // namespace neoloom::launch
