// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "runtime/optim/schedule.h"

namespace neoloom::optim {

/// Reads lr_scheduler_kwargs by name, once each. check_all_read() then refuses those that the schedule does not have.
/// All throw Error(kUsage) with the name and what is expected.
class Arguments {
 public:
  explicit Arguments(const ScheduleSettings& settings) : settings_(settings) {}

  std::optional<double> number(const char* name);
  double number(const char* name, double otherwise) { return number(name).value_or(otherwise); }
  std::optional<int64_t> count(const char* name, int64_t least = 0);
  bool flag(const char* name, bool otherwise);
  /// Returns the value, one of `known`.
  std::string choice(const char* name, const std::string& otherwise, const std::vector<std::string>& known);

  [[noreturn]] void refuse(const char* name, const std::string& expected) const;
  void check_all_read() const;

 private:
  const ScheduleSettings& settings_;
  std::vector<std::string> names_;
};

}  // namespace neoloom::optim
