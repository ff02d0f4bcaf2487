// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <fmt/format.h>

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "runtime/core/error.h"

namespace neoloom::launch {

/// Collects the mistakes of a configuration, so that one start tells them all.
class Mistakes {
 public:
  Mistakes() = default;
  /// `places`: RunConfig::places. A mistake that begins with the name of such a key gets its place.
  explicit Mistakes(std::map<std::string, std::string> places) : places_(std::move(places)) {}

  void note(const std::string& text) { texts_.push_back(located(text)); }

  /// Runs `work` and notes the usage error that it throws.
  template <typename Work>
  void attempt(Work&& work) {
    try {
      work();
    } catch (const core::Error& error) {
      if (error.kind() != core::ErrorKind::kUsage) throw;
      note(error.what());
    }
  }

  /// Notes a mistake unless `condition` holds, which it returns.
  template <typename... Args>
  bool require(bool condition, fmt::format_string<Args...> format, Args&&... args) {
    if (!condition) note(fmt::format(format, std::forward<Args>(args)...));
    return condition;
  }

  /// Throws: Error(kUsage) with all mistakes, in the order of their lines in each file; `name` names the configuration.
  void refuse_any(const std::string& name) const;

 private:
  std::string located(const std::string& text) const;

  std::map<std::string, std::string> places_;
  std::vector<std::string> texts_;
};

}  // namespace neoloom::launch
