// SPDX-License-Identifier: Apache-2.0
#include "runtime/train/step_profiler.h"

#include <fmt/format.h>
#include <torch/csrc/autograd/profiler_kineto.h>

#include <filesystem>
#include <memory>
#include <set>
#include <system_error>

namespace neoloom::train {
namespace {

namespace profiler = torch::autograd::profiler;
using torch::profiler::impl::ActivityType;

}  // namespace

StepProfiler::~StepProfiler() {
  if (recording_) profiler::disableProfiler();
}

void StepProfiler::before(int64_t step) {
  if (recording_ || step < steps_.first || step >= steps_.first + steps_.count || steps_.first == 0) return;
  std::set<ActivityType> activities = {ActivityType::CPU};
  if (steps_.cuda) activities.insert(ActivityType::CUDA);
  const torch::profiler::impl::ProfilerConfig config(torch::profiler::impl::ProfilerState::KINETO);
  profiler::prepareProfiler(config, activities);
  profiler::enableProfiler(config, activities);
  recording_ = true;
}

std::string StepProfiler::after(int64_t step) {
  if (!recording_ || step + 1 < steps_.first + steps_.count) return "";
  recording_ = false;
  const std::unique_ptr<profiler::ProfilerResult> result = profiler::disableProfiler();
  std::error_code failure;
  std::filesystem::create_directories(std::filesystem::path(steps_.path).parent_path(), failure);
  result->save(steps_.path);
  if (!std::filesystem::exists(steps_.path, failure)) {
    return fmt::format("warning: the profile of the steps up to {} could not be written to {}", step, steps_.path);
  }
  return fmt::format("the profile of the steps up to {} is in {} (open it in ui.perfetto.dev or chrome://tracing)",
                     step, steps_.path);
}

}  // namespace neoloom::train
