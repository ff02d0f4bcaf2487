// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <deque>
#include <vector>

#include "runtime/cuda/api.h"

namespace neoloom::cuda {

/// How long a stream stands still, measured by the device: pairs of timed events around its waits. The host reads only
/// pairs that the device has passed, so it never waits itself; the events of a pair that was read are used again.
/// Thread: one thread at a time.
class StreamWaits {
 public:
  /// `device` must outlive this.
  explicit StreamWaits(const DeviceApi& device) : device_(device) {}

  /// Around what may make `stream` wait. Throws: Error(kDevice).
  void begin(StreamHandle stream);
  void end(StreamHandle stream);

  /// Seconds of the waits that are over and were not taken before. Throws: Error(kDevice).
  double take_seconds();

  /// Destroys the events. Left out where a device hangs: the end of the process closes everything.
  void release() noexcept;

 private:
  struct Pair {
    EventHandle begin = nullptr;
    EventHandle end = nullptr;
  };
  Pair make_pair();

  const DeviceApi& device_;
  std::deque<Pair> under_way_;  // oldest first
  std::vector<Pair> idle_;
};

}  // namespace neoloom::cuda
