// SPDX-License-Identifier: Apache-2.0
#include "runtime/optim/schedule.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <numbers>
#include <utility>

#include "runtime/core/error.h"
#include "runtime/core/text.h"
#include "runtime/optim/schedule_arguments.h"

namespace neoloom::optim {
namespace {

using core::ErrorKind;

double as_double(int64_t value) { return static_cast<double>(value); }
int64_t at_least_one(int64_t value) { return std::max<int64_t>(1, value); }

// All formulas keep the order of transformers' floating-point operations, so that the factors are equal to the bit.

double warmed_up(int64_t t, int64_t warmup) { return as_double(t) / as_double(at_least_one(warmup)); }

double progress_after(int64_t t, int64_t warmup, int64_t total) {
  return as_double(t - warmup) / as_double(at_least_one(total - warmup));
}

double cosine(double cycles, double progress) {
  return 0.5 * (1.0 + std::cos(std::numbers::pi * cycles * 2.0 * progress));
}

double raised(double factor, double least) { return factor * (1.0 - least) + least; }

Schedule constant(const ScheduleSettings& /*settings*/, Arguments& /*arguments*/) {
  return [](int64_t) { return 1.0; };
}

Schedule constant_with_warmup(const ScheduleSettings& s, Arguments& /*arguments*/) {
  return [warmup = s.warmup_steps](int64_t t) { return t < warmup ? warmed_up(t, warmup) : 1.0; };
}

Schedule linear(const ScheduleSettings& s, Arguments& /*arguments*/) {
  return [warmup = s.warmup_steps, total = s.total_steps](int64_t t) {
    if (t < warmup) return warmed_up(t, warmup);
    return std::max(0.0, as_double(total - t) / as_double(at_least_one(total - warmup)));
  };
}

Schedule cosine_to(const ScheduleSettings& s, double cycles, double least) {
  return [warmup = s.warmup_steps, total = s.total_steps, cycles, least](int64_t t) {
    if (t < warmup) return warmed_up(t, warmup);
    return std::max(0.0, raised(cosine(cycles, progress_after(t, warmup, total)), least));
  };
}

Schedule cosine_schedule(const ScheduleSettings& s, Arguments& arguments) {
  return cosine_to(s, arguments.number("num_cycles", 0.5), 0.0);
}

Schedule cosine_with_restarts(const ScheduleSettings& s, Arguments& arguments) {
  const double cycles = as_double(arguments.count("num_cycles").value_or(1));
  return [warmup = s.warmup_steps, total = s.total_steps, cycles](int64_t t) {
    if (t < warmup) return warmed_up(t, warmup);
    const double progress = progress_after(t, warmup, total);
    if (progress >= 1.0) return 0.0;
    return std::max(0.0, 0.5 * (1.0 + std::cos(std::numbers::pi * std::fmod(cycles * progress, 1.0))));
  };
}

/// Reads min_lr or min_lr_rate: returns the least factor.
double least_factor(const ScheduleSettings& s, Arguments& arguments) {
  const std::optional<double> rate = arguments.number("min_lr"), factor = arguments.number("min_lr_rate");
  core::require(rate.has_value() != factor.has_value(), ErrorKind::kUsage,
                "lr_scheduler_kwargs: {} needs min_lr or min_lr_rate, one of them", s.name);
  return factor ? *factor : *rate / s.learning_rate;
}

Schedule cosine_with_min_lr(const ScheduleSettings& s, Arguments& arguments) {
  return cosine_to(s, arguments.number("num_cycles", 0.5), least_factor(s, arguments));
}

Schedule cosine_warmup_with_min_lr(const ScheduleSettings& s, Arguments& arguments) {
  const double cycles = arguments.number("num_cycles", 0.5), least = least_factor(s, arguments);
  const std::optional<double> first = arguments.number("warmup_lr_rate");
  const double warmup = as_double(s.warmup_steps), total = as_double(s.total_steps);
  return [=](int64_t update) {
    const double t = as_double(update);
    if (t < warmup && !first) return (t + 1.0) / std::max(1.0, warmup);
    if (t < warmup) return *first + (1.0 - *first) * t / std::max(1.0, warmup - 1);
    const double progress = (t - warmup + 1.0) / std::max(1.0, total - warmup);
    return std::max(0.0, raised(cosine(cycles, progress), least));
  };
}

Schedule polynomial(const ScheduleSettings& s, Arguments& arguments) {
  const double end = arguments.number("lr_end", 1e-7), power = arguments.number("power", 1.0);
  const double start = s.learning_rate;
  core::require(start > end, ErrorKind::kUsage,
                "lr_scheduler_kwargs.lr_end: expected less than learning_rate {}, found {}", start, end);
  return [=, warmup = s.warmup_steps, total = s.total_steps](int64_t t) {
    if (t < warmup) return warmed_up(t, warmup);
    const double remaining = 1.0 - as_double(t - warmup) / as_double(total - warmup);
    return ((start - end) * std::pow(remaining, power) + end) / start;
  };
}

Schedule inverse_sqrt(const ScheduleSettings& s, Arguments& arguments) {
  const int64_t usual = s.warmup_steps > 0 ? s.warmup_steps : 10'000;
  const int64_t timescale = arguments.count("timescale", /*least=*/1).value_or(usual);
  return [warmup = s.warmup_steps, timescale](int64_t t) {
    if (t < warmup) return warmed_up(t, warmup);
    return 1.0 / std::sqrt(as_double(t + timescale - warmup) / as_double(timescale));
  };
}

Schedule warmup_stable_decay(const ScheduleSettings& s, Arguments& arguments) {
  const std::vector<std::string> shapes = {"linear", "cosine", "1-sqrt"};
  const std::string warmup_type = arguments.choice("warmup_type", "linear", shapes);
  const std::string decay_type = arguments.choice("decay_type", "cosine", shapes);
  const double least = arguments.number("min_lr_ratio", 0.0), cycles = arguments.number("num_cycles", 0.5);
  const std::optional<int64_t> decay = arguments.count("num_decay_steps");
  core::require(decay.has_value(), ErrorKind::kUsage, "lr_scheduler_kwargs: {} needs num_decay_steps", s.name);
  const int64_t stable = arguments.count("num_stable_steps").value_or(s.total_steps - s.warmup_steps - *decay);
  return [=, decay = *decay, warmup = s.warmup_steps](int64_t t) {
    if (t < warmup) {
      const double progress = warmed_up(t, warmup);
      const double factor = warmup_type == "linear"   ? progress
                            : warmup_type == "cosine" ? 0.5 * (1.0 - std::cos(std::numbers::pi * progress))
                                                      : 1.0 - std::sqrt(1.0 - progress);
      return std::max(0.0, raised(factor, least));
    }
    if (t < warmup + stable) return 1.0;
    if (t >= warmup + stable + decay) return least;
    const double progress = as_double(t - warmup - stable) / as_double(at_least_one(decay));
    const double factor = decay_type == "linear"   ? 1.0 - progress
                          : decay_type == "cosine" ? cosine(cycles, progress)
                                                   : 1.0 - std::sqrt(progress);
    return std::max(0.0, raised(factor, least));
  };
}

struct Entry {
  const char* name;
  Schedule (*make)(const ScheduleSettings& settings, Arguments& arguments);
};
constexpr Entry kSchedules[] = {{"linear", linear},
                                {"cosine", cosine_schedule},
                                {"cosine_with_restarts", cosine_with_restarts},
                                {"polynomial", polynomial},
                                {"constant", constant},
                                {"constant_with_warmup", constant_with_warmup},
                                {"inverse_sqrt", inverse_sqrt},
                                {"cosine_with_min_lr", cosine_with_min_lr},
                                {"cosine_warmup_with_min_lr", cosine_warmup_with_min_lr},
                                {"warmup_stable_decay", warmup_stable_decay}};

}  // namespace

std::vector<std::string> schedule_names() {
  std::vector<std::string> names;
  for (const Entry& entry : kSchedules) names.emplace_back(entry.name);
  return names;
}

Schedule make_schedule(const ScheduleSettings& settings) {
  for (const Entry& entry : kSchedules) {
    if (settings.name != entry.name) continue;
    Arguments arguments(settings);
    Schedule schedule = entry.make(settings, arguments);
    arguments.check_all_read();
    return schedule;
  }
  core::fail(ErrorKind::kUsage, "lr_scheduler_type {} is not supported; expected one of {}",
             core::quoted(settings.name), fmt::join(schedule_names(), ", "));
}

int64_t resolve_warmup_steps(double warmup_steps, int64_t total_steps) {
  core::require(std::isfinite(warmup_steps) && warmup_steps >= 0.0, ErrorKind::kUsage,
                "warmup_steps is {}, expected a count of steps, or a share of all steps below 1", warmup_steps);
  if (warmup_steps >= 1.0) return static_cast<int64_t>(warmup_steps);
  return static_cast<int64_t>(std::ceil(static_cast<double>(total_steps) * warmup_steps));
}

}  // namespace neoloom::optim
