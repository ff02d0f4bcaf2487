// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>

namespace neoloom::core {

/// Seconds on the monotonic clock.
inline double now_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

/// Seconds since 1970, to the millisecond.
inline double unix_seconds() {
  using std::chrono::system_clock, std::chrono::milliseconds;
  const auto now = std::chrono::duration_cast<milliseconds>(system_clock::now().time_since_epoch());
  return static_cast<double>(now.count()) / 1000.0;
}

/// Seconds since this process was started by the kernel (10 ms resolution); 0 where /proc does not say.
double process_age_seconds();

/// Adds the time between construction and destruction to `total_seconds`.
class ScopedTimer {
 public:
  explicit ScopedTimer(double& total_seconds) : total_seconds_(total_seconds) {}
  ~ScopedTimer() { total_seconds_ += now_seconds() - start_; }
  ScopedTimer(const ScopedTimer&) = delete;
  ScopedTimer& operator=(const ScopedTimer&) = delete;

 private:
  double& total_seconds_;
  double start_ = now_seconds();
};

}  // namespace neoloom::core
