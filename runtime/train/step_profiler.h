// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <utility>

namespace neoloom::train {

struct ProfiledSteps {
  int64_t first = 0;  // from 1; 0: none
  int64_t count = 0;
  bool cuda = false;  // kernels of the GPU, too
  std::string path;   // file of the trace
};

/// Records some steps with LibTorch's profiler: its operators, the ranges that neoloom names by RECORD_USER_SCOPE, and
/// the kernels of a GPU. Writes a Chrome trace, which Perfetto and TensorBoard show. Changes no result. Call it on the
/// thread that computes.
class StepProfiler {
 public:
  explicit StepProfiler(ProfiledSteps steps) : steps_(std::move(steps)) {}
  ~StepProfiler();
  StepProfiler(const StepProfiler&) = delete;
  StepProfiler& operator=(const StepProfiler&) = delete;

  /// Call before each step, with its number from 1.
  void before(int64_t step);
  /// Call after each step. Returns "" or, after the last recorded one, what became of the trace.
  std::string after(int64_t step);

 private:
  ProfiledSteps steps_;
  bool recording_ = false;
};

}  // namespace neoloom::train
