// SPDX-License-Identifier: Apache-2.0
#include "runtime/train/side_product.h"

#include <fmt/format.h>

#include <exception>

namespace neoloom::train {

SideProduct::Outcome SideProduct::write(const std::function<void()>& work) {
  if (!due_) return {};
  try {
    work();
  } catch (const std::exception& error) {
    const bool told = std::exchange(failing_, true);
    return {told ? "" : fmt::format("{} was not written: {}; the run goes on and tries again", name_, error.what()),
            true};
  }
  due_ = false;
  return {std::exchange(failing_, false) ? name_ + " is written now" : "", false};
}

}  // namespace neoloom::train
