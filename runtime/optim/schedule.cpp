// SPDX-License-Identifier: Apache-2.0
#include "runtime/optim/schedule.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>
#include <utility>

#include "runtime/core/error.h"

namespace neoloom::optim {
namespace {

constexpr std::array<std::pair<const char*, Schedule>, 4> kNames = {
    {{"linear", Schedule::kLinear},
     {"cosine", Schedule::kCosine},
     {"constant", Schedule::kConstant},
     {"constant_with_warmup", Schedule::kConstantWithWarmup}}};

// The formulas keep the order of transformers' floating-point operations, so that the factors are equal to the bit.
double linear(int64_t t, int64_t warmup, int64_t total) {
  return std::max(0.0, static_cast<double>(total - t) / static_cast<double>(std::max<int64_t>(1, total - warmup)));
}

double cosine(int64_t t, int64_t warmup, int64_t total) {
  const double progress = static_cast<double>(t - warmup) / static_cast<double>(std::max<int64_t>(1, total - warmup));
  return std::max(0.0, 0.5 * (1.0 + std::cos(std::numbers::pi * progress)));
}

}  // namespace

Schedule schedule_from_name(const std::string& name) {
  std::string known;
  for (const auto& [text, schedule] : kNames) {
    if (name == text) return schedule;
    known += (known.empty() ? "" : ", ") + std::string(text);
  }
  core::fail(core::ErrorKind::kUsage, "lr_scheduler_type \"{}\" is not supported; expected one of {}", name, known);
}

double schedule_factor(Schedule schedule, int64_t t, int64_t warmup_steps, int64_t total_steps) {
  if (schedule == Schedule::kConstant) return 1.0;
  if (t < warmup_steps) return static_cast<double>(t) / static_cast<double>(std::max<int64_t>(1, warmup_steps));
  if (schedule == Schedule::kLinear) return linear(t, warmup_steps, total_steps);
  if (schedule == Schedule::kCosine) return cosine(t, warmup_steps, total_steps);
  return 1.0;
}

int64_t resolve_warmup_steps(double warmup_steps, int64_t total_steps) {
  core::require(std::isfinite(warmup_steps) && warmup_steps >= 0.0, core::ErrorKind::kUsage,
                "warmup_steps is {}, expected a count of steps, or a share of all steps below 1", warmup_steps);
  if (warmup_steps >= 1.0) return static_cast<int64_t>(warmup_steps);
  return static_cast<int64_t>(std::ceil(static_cast<double>(total_steps) * warmup_steps));
}

}  // namespace neoloom::optim
