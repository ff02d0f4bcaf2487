// SPDX-License-Identifier: Apache-2.0
#include "runtime/core/environment.h"

#include <cstdlib>

namespace neoloom::core {

std::string environment(Variable variable) { return environment_if_set(variable).value_or(""); }

std::string environment(Variables variables) {
  for (const Variable variable : variables) {
    if (std::string value = environment(variable); !value.empty()) return value;
  }
  return "";
}

std::optional<std::string> environment_if_set(Variable variable) {
  const char* const value = std::getenv(variable.name());
  return value == nullptr ? std::nullopt : std::optional<std::string>(value);
}

void set_environment(Variable variable, const std::string& value) {
  ::setenv(variable.name(), value.c_str(), /*replace=*/1);
}

void set_environment_default(Variable variable, const std::string& value) {
  ::setenv(variable.name(), value.c_str(), /*replace=*/0);
}

}  // namespace neoloom::core
