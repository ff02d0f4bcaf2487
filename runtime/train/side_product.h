// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <string>
#include <utility>

namespace neoloom::train {

/// Something that a run writes beside its result. A full disk, a missing right or a folder in its place never ends the
/// run: that is told once, and the next chance is taken.
class SideProduct {
 public:
  /// `name` in messages.
  explicit SideProduct(std::string name) : name_(std::move(name)) {}

  /// There is something new to write.
  void due() { due_ = true; }

  struct Outcome {
    std::string text;  // to tell: the first failure of several, or that it is there after all; else ""
    bool failed = false;
  };
  /// Writes what is due with `work`, which may throw.
  Outcome write(const std::function<void()>& work);

 private:
  std::string name_;
  bool due_ = false;
  bool failing_ = false;
};

}  // namespace neoloom::train
