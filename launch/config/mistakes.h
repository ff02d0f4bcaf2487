// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <fmt/format.h>

#include <string>
#include <utility>
#include <vector>

#include "runtime/core/error.h"

namespace neoloom::launch {

/// Collects the mistakes of a configuration, so that one start tells them all.
class Mistakes {
 public:
  /// Runs `work` and notes the usage error that it throws.
  template <typename Work>
  void attempt(Work&& work) {
    try {
      work();
    } catch (const core::Error& error) {
      if (error.kind() != core::ErrorKind::kUsage) throw;
      texts_.emplace_back(error.what());
    }
  }

  /// Notes a mistake unless `condition` holds, which it returns.
  template <typename... Args>
  bool require(bool condition, fmt::format_string<Args...> format, Args&&... args) {
    if (!condition) texts_.push_back(fmt::format(format, std::forward<Args>(args)...));
    return condition;
  }

  /// Throws: Error(kUsage) with all mistakes, in the order of their lines in each file; `name` names the configuration.
  void refuse_any(const std::string& name) const;

 private:
  std::vector<std::string> texts_;
};

}  // namespace neoloom::launch
