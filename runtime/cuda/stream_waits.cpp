// SPDX-License-Identifier: Apache-2.0
#include "runtime/cuda/stream_waits.h"

#include "runtime/cuda/check.h"

namespace neoloom::cuda {

StreamWaits::Pair StreamWaits::make_pair() {
  if (!idle_.empty()) {
    const Pair pair = idle_.back();
    idle_.pop_back();
    return pair;
  }
  Pair pair;
  check_device(device_, device_.create_timed_event(&pair.begin), "create event");
  check_device(device_, device_.create_timed_event(&pair.end), "create event");
  return pair;
}

void StreamWaits::begin(StreamHandle stream) {
  under_way_.push_back(make_pair());
  check_device(device_, device_.record_event(under_way_.back().begin, stream), "record event");
}

void StreamWaits::end(StreamHandle stream) {
  check_device(device_, device_.record_event(under_way_.back().end, stream), "record event");
}

double StreamWaits::take_seconds() {
  double total = 0.0;
  while (!under_way_.empty()) {
    const Pair pair = under_way_.front();
    bool done = false;
    check_device(device_, device_.query_event(pair.end, &done), "query event");
    if (!done) break;
    double seconds = 0.0;
    check_device(device_, device_.seconds_between(pair.begin, pair.end, &seconds), "time between events");
    total += seconds;
    idle_.push_back(pair);
    under_way_.pop_front();
  }
  return total;
}

void StreamWaits::release() noexcept {
  idle_.insert(idle_.end(), under_way_.begin(), under_way_.end());
  under_way_.clear();
  for (const Pair& pair : idle_) {
    device_.destroy_event(pair.begin);
    device_.destroy_event(pair.end);
  }
  idle_.clear();
}

}  // namespace neoloom::cuda
