// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace neoloom::model {

/// The device properties by which kernels are chosen. Known before any tensor exists.
struct DeviceTraits {
  bool cuda = false;  // use the CUDA backend; else the CPU backend
  int capability_major = 0;
  int capability_minor = 0;
  bool deterministic = true;  // runtime.deterministic

  bool at_least(int major, int minor) const {
    return capability_major > major || (capability_major == major && capability_minor >= minor);
  }
};

}  // namespace neoloom::model
