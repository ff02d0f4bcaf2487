// SPDX-License-Identifier: Apache-2.0
#include "runtime/optim/schedule_arguments.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>

#include "runtime/core/error.h"
#include "runtime/core/text.h"

namespace neoloom::optim {

using core::ErrorKind;

std::optional<double> Arguments::number(const char* name) {
  names_.emplace_back(name);
  const auto found = settings_.arguments.find(name);
  if (found == settings_.arguments.end()) return std::nullopt;
  const double* value = std::get_if<double>(&found->second);
  if (value == nullptr || !std::isfinite(*value)) refuse(name, "a number");
  return *value;
}

std::optional<int64_t> Arguments::count(const char* name, int64_t least) {
  const std::optional<double> value = number(name);
  if (value && (*value < static_cast<double>(least) || *value != std::floor(*value) || *value > 0x1p53)) {
    refuse(name, fmt::format("a whole number of at least {}", least));
  }
  return value ? std::optional(static_cast<int64_t>(*value)) : std::nullopt;
}

bool Arguments::flag(const char* name, bool otherwise) {
  const double value = number(name, otherwise ? 1.0 : 0.0);
  if (value != 0.0 && value != 1.0) refuse(name, "true or false");
  return value == 1.0;
}

std::string Arguments::choice(const char* name, const std::string& otherwise, const std::vector<std::string>& known) {
  names_.emplace_back(name);
  const auto found = settings_.arguments.find(name);
  if (found == settings_.arguments.end()) return otherwise;
  const std::string* value = std::get_if<std::string>(&found->second);
  if (value == nullptr || std::find(known.begin(), known.end(), *value) == known.end()) {
    refuse(name, fmt::format("one of {}", fmt::join(known, ", ")));
  }
  return *value;
}

void Arguments::refuse(const char* name, const std::string& expected) const {
  const auto given = settings_.arguments.find(name);
  std::string found;
  if (given != settings_.arguments.end()) {
    const double* const number = std::get_if<double>(&given->second);
    found = number != nullptr ? fmt::format("{}", *number) : core::quoted(std::get<std::string>(given->second));
  }
  core::fail(ErrorKind::kUsage, "lr_scheduler_kwargs.{}: expected {}{}{}", name, expected,
             found.empty() ? "" : ", found ", found);
}

void Arguments::check_all_read() const {
  for (const auto& [name, value] : settings_.arguments) {
    core::require(std::find(names_.begin(), names_.end(), name) != names_.end(), ErrorKind::kUsage,
                  "lr_scheduler_kwargs: {} has no argument {}; {}", settings_.name, core::quoted(name),
                  names_.empty() ? "it has none" : fmt::format("it has {}", fmt::join(names_, ", ")));
  }
}

}  // namespace neoloom::optim
