// SPDX-License-Identifier: Apache-2.0
// How a run of the trainer ends: its result, or why there is none.
#include <ATen/ops/empty.h>

#include <algorithm>
#include <filesystem>

#include "runtime/comm/collective_error.h"
#include "runtime/core/clock.h"
#include "runtime/core/error.h"
#include "runtime/train/trainer.h"

namespace neoloom::train {

using core::ErrorKind;

void Trainer::finish(RunStatus status) {
  const auto phase = session_.phase("publishing the result");
  const double seconds = start_seconds_ > 0.0 ? core::now_seconds() - start_seconds_ : 0.0;
  if (start_seconds_ > 0.0) since_log_.seconds = core::now_seconds() - log_seconds_;
  measure_sums();
  metrics::accumulate(since_log_, since_start_);
  since_start_.peak_memory_bytes = std::max(since_start_.peak_memory_bytes, setup_.hooks.peak_memory_bytes());
  const std::vector<metrics::DeviceMeasure> devices = gather_measures(since_start_);
  if (status == RunStatus::kCompleted) require_updates();
  session_.run_on_root([&]() -> std::string {
    console_->finish();
    write_side_products();
    const std::string problem = unsaved_result(status);
    const char* const good = status == RunStatus::kCompleted ? "completed" : "stopped";
    write_run_end(problem.empty() ? good : "failed", seconds, devices);
    core::require(problem.empty(), ErrorKind::kOutput, "{}", problem);
    if (status == RunStatus::kStopped) {
      console_->notice(
          fmt::format("stopped on request at step {} of {}; the same command resumes", step_, schedule_.total_steps));
    }
    return "";
  });
}

// A run without any update has learnt nothing, and its adapter would not say so.
void Trainer::require_updates() {
  if (skipped_in_a_row_ == 0) return;
  if (skipped_steps_ < step_) {
    warn(fmt::format(
        "the last {} of {} steps made no update, because their gradients were not finite: the result is the "
        "state of step {}",
        skipped_in_a_row_, step_, step_ - skipped_in_a_row_));
    return;
  }
  write_event({{"event", "run_end"}, {"status", "failed"}, {"step", step_}, {"skipped_steps", skipped_steps_}});
  throw comm::CollectiveError(
      ErrorKind::kNumeric,
      fmt::format(
          "none of the {} steps made an update, because no gradient was finite: nothing was learnt, and no "
          "adapter is written. Lower the learning rate, use frozen_dtype float32 or bfloat16, check the weights "
          "(runtime.verify_weights: always), and start again in another trainer_config.output_dir",
          step_));
}

void Trainer::write_run_end(const std::string& status, double seconds,
                            const std::vector<metrics::DeviceMeasure>& devices) {
  nlohmann::ordered_json event = {{"event", "run_end"}, {"status", status}, {"step", step_}};
  if (skipped_steps_ > 0) event["skipped_steps"] = skipped_steps_;
  event["train_runtime"] = seconds;
  if (step_ == first_step_) return write_event(event);
  int64_t samples = 0, tokens = 0;
  for (const metrics::DeviceMeasure& device : devices) {
    samples += device.samples;
    tokens += device.tokens;
  }
  event["train_samples_per_second"] = static_cast<double>(samples) / seconds;
  event["train_tokens_per_second"] = static_cast<double>(tokens) / seconds;
  write_event(event);
  console_->notice(metrics::device_table(devices));
}

// Writes what a run is for. Returns what went wrong, and what to do; else "".
std::string Trainer::unsaved_result(RunStatus status) {
  if (status == RunStatus::kStopped) {
    if (last_saved_step_ == step_) return "";
    return fmt::format("stopped on request, but step {} of {} could not be saved: {}. {}", step_, schedule_.total_steps,
                       save_problem_, newest_state());
  }
  try {
    write_final_adapter();
    return "";
  } catch (const std::exception& error) {
    return fmt::format("all {} steps are done, but the result could not be written to {}/adapter: {}. {}", step_,
                       setup_.options.output_dir, error.what(), newest_state());
  }
}

std::string Trainer::newest_state() const {
  constexpr const char* kRepair = "Make room, or take away what is in the way, and run the same command again";
  if (last_saved_step_ < 0) return fmt::format("There is no checkpoint either. {}: it starts over", kRepair);
  return fmt::format("The checkpoint of step {} is there. {}: it goes on from that step", last_saved_step_, kRepair);
}

void Trainer::write_final_adapter() {
  const std::string folder = setup_.options.output_dir + "/adapter";
  if (!setup_.options.load_best_model_at_end || best_.step() == step_) {
    return setup_.hooks.write_adapter(buffers_.params, folder);
  }
  if (best_.step() >= 0) {
    write_best_adapter(folder);
    console_->notice(fmt::format("adapter/ holds the best model: step {}, {} {:.4f}", best_.step(),
                                 best_.judge().metric, best_.metric()));
    return;
  }
  const bool before = step_ == first_step_ && std::filesystem::exists(folder);
  warn(fmt::format("there is no best model by {} to load: no evaluation since gave a finite value; adapter/ {}",
                   best_.judge().metric, before ? "stays as it is" : "holds the last state"));
  if (!before) setup_.hooks.write_adapter(buffers_.params, folder);
}

void Trainer::write_best_adapter(const std::string& folder) const {
  const std::vector<float>& values = best_.params();
  const at::Tensor best = at::empty({static_cast<int64_t>(values.size())}, at::kFloat);
  std::copy(values.begin(), values.end(), best.mutable_data_ptr<float>());
  setup_.hooks.write_adapter(best, folder);
}

}  // namespace neoloom::train
