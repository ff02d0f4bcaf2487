// SPDX-License-Identifier: Apache-2.0
#include "model/parameter_layout.h"

#include <utility>

namespace neoloom::model {

namespace {
constexpr int64_t kBoundaryElements = 16;  // 64 bytes of fp32
}

int64_t ParameterSlot::elements() const {
  int64_t product = 1;
  for (const int64_t extent : shape) product *= extent;
  return product;
}

int64_t ParameterLayout::add(std::string name, std::vector<int64_t> shape, bool decay) {
  ParameterSlot slot{std::move(name), std::move(shape), total_elements, decay};
  const int64_t elements = slot.elements();
  trainable_elements += elements;
  total_elements += (elements + kBoundaryElements - 1) / kBoundaryElements * kBoundaryElements;
  slots.push_back(std::move(slot));
  return static_cast<int64_t>(slots.size()) - 1;
}

}  // namespace neoloom::model
