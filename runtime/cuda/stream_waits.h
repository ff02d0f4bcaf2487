// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <deque>
#include <vector>

#include "runtime/cuda/api.h"

namespace neoloom::cuda {

/// Measures on the device how long a stream waits, by pairs of timed events around its waits. The host reads only pairs
/// that the device has passed, so it never waits itself. The events of a pair are reused after it was read. Thread: one
/// thread at a time.
class StreamWaits {
 public:
  /// `device` must outlive this.
  explicit StreamWaits(const DeviceApi& device) : device_(device) {}

  /// Enclose a wait of `stream`. Throws: Error(kDevice).
  void begin(StreamHandle stream);
  void end(StreamHandle stream);

  /// Returns the seconds of the waits that ended since the last call. Throws: Error(kDevice).
  double take_seconds();

  /// Destroys the events. Do not call it where a device hangs: the end of the process frees everything.
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
