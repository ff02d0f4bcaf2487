// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <string>
#include <utility>

namespace neoloom::train {

/// A file or folder that a run writes beside its result. A full disk, a missing permission or a folder in its place
/// never ends the run: one message says so, and the next write() retries.
class SideProduct {
 public:
  /// `name` in messages.
  explicit SideProduct(std::string name) : name_(std::move(name)) {}

  const std::string& name() const { return name_; }

  /// Marks it as changed, for the next write().
  void due() { due_ = true; }

  struct Outcome {
    std::string text;  // message: the first of several failures, or that a retry succeeded; else ""
    bool failed = false;
  };
  /// Calls `work`, which may throw, if due() was called since the last success.
  Outcome write(const std::function<void()>& work);

 private:
  std::string name_;
  bool due_ = false;
  bool failing_ = false;
};

}  // namespace neoloom::train
