// SPDX-License-Identifier: Apache-2.0
#include "model/generation/stop_strings.h"

#include <algorithm>

namespace neoloom::model {

bool StopStrings::append(std::string_view bytes) {
  if (ended_) return true;
  const size_t before = text_.size();
  text_ += bytes;
  size_t end = std::string::npos;
  for (const std::string& stop : strings_) {
    // An earlier call has looked at everything that ended before `before`.
    const size_t first = before < stop.size() ? 0 : before - stop.size() + 1;
    end = std::min(end, text_.find(stop, first));
  }
  ended_ = end != std::string::npos;
  if (ended_) text_.resize(end);
  return ended_;
}

size_t StopStrings::settled_bytes() const {
  if (ended_) return text_.size();
  size_t held = 0;
  for (const std::string& stop : strings_) {
    for (size_t length = std::min(stop.size() - 1, text_.size()); length > held; --length) {
      if (text_.ends_with(std::string_view(stop).substr(0, length))) held = length;
    }
  }
  return text_.size() - held;
}

}  // namespace neoloom::model
