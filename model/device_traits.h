// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace neoloom::model {

/// What kernels are chosen by: known before the first tensor, never read from one.
struct DeviceTraits {
  bool cuda = false;  // few operators with 16-bit inputs; else the CPU's own loops
  int capability_major = 0;
  int capability_minor = 0;
  bool deterministic = true;  // runtime.deterministic

  bool at_least(int major, int minor) const {
    return capability_major > major || (capability_major == major && capability_minor >= minor);
  }
};

}  // namespace neoloom::model
