// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

namespace neoloom::optim {

/// Learning-rate schedules with Hugging Face's names and formulas (transformers.optimization).
enum class Schedule { kLinear, kCosine, kConstant, kConstantWithWarmup };

/// Throws: Error(kUsage) listing the known names.
Schedule schedule_from_name(const std::string& name);

/// Factor of the learning rate for update t (0 for the first), t in [0, total_steps).
/// With warmup_steps > 0 the first update has factor 0, as in Hugging Face. kConstant ignores the warm-up.
double schedule_factor(Schedule schedule, int64_t t, int64_t warmup_steps, int64_t total_steps);

/// Hugging Face's rule: warmup_steps >= 1 is a count, a value in (0, 1) is a share of total_steps, rounded up.
int64_t resolve_warmup_steps(double warmup_steps, int64_t total_steps);

}  // namespace neoloom::optim
