// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "runtime/comm/communicator.h"

namespace neoloom::support {

/// The communicator of a world of one.
class NoRanks final : public comm::Communicator {
 public:
  void all_reduce_sum(void*, size_t, comm::Element) override {}
  std::string description() const override { return "alone"; }
};

}  // namespace neoloom::support
