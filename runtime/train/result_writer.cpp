// SPDX-License-Identifier: Apache-2.0
#include "runtime/train/result_writer.h"

#include <ATen/ops/empty.h>

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <utility>

#include "runtime/core/clock.h"
#include "runtime/core/error.h"
#include "runtime/core/files.h"

namespace neoloom::train {

using core::ErrorKind;

ResultWriter::ResultWriter(ResultWriterSetup setup, Reporter& reporter, const BestModel& best)
    : setup_(std::move(setup)), reporter_(reporter), best_(best), best_folder_(setup_.result_folder + "-best") {}

void ResultWriter::save(int64_t step, const std::function<checkpoint::State()>& snapshot) {
  const double start = core::now_seconds();
  write_side_products(step);
  try {
    const checkpoint::Directory directory(setup_.output_dir + "/checkpoints");
    const checkpoint::Published published = directory.publish(snapshot());
    last_saved_step_ = step;
    drop_old_checkpoints(directory, step);
    reporter_.event({{"event", "checkpoint"},
                     {"step", step},
                     {"path", published.path},
                     {"bytes", published.bytes},
                     {"seconds", published.seconds},
                     {"stall_seconds", core::now_seconds() - start}});
  } catch (const std::exception& error) {
    save_problem_ = error.what();
    reporter_.warn(step, fmt::format("checkpoint of step {} was not saved: {}", step, error.what()));
  }
}

// Deletes old checkpoints. One that cannot be deleted only takes disk space, so that is a warning.
void ResultWriter::drop_old_checkpoints(const checkpoint::Directory& directory, int64_t step) {
  try {
    directory.retain(setup_.save_total_limit, setup_.keeps_best ? best_.step() : -1);
  } catch (const core::Error& error) {
    reporter_.warn(step, fmt::format("an old checkpoint was not deleted: {}", error.what()));
  }
}

void ResultWriter::write_side_products(int64_t step) {
  const SideProduct::Outcome outcomes[] = {
      config_file_.write([&] {
        const std::string path = setup_.output_dir + "/config.yaml";
        std::error_code unknown;
        if (std::filesystem::is_regular_file(path, unknown) && core::read_file(path) == setup_.config_file) return;
        core::publish_file(path, setup_.config_file, ErrorKind::kOutput);
      }),
      best_folder_.write([&] { write_best_adapter(setup_.output_dir + "/" + best_folder_.name()); })};
  for (const SideProduct::Outcome& outcome : outcomes) reporter_.tell(step, outcome);
}

std::string ResultWriter::unsaved_stop(int64_t step) const {
  if (is_saved(step)) return "";
  return fmt::format("stopped on request, but step {} of {} could not be saved: {}. {}", step, setup_.total_steps,
                     save_problem_, newest_state());
}

std::string ResultWriter::write_result(const at::Tensor& params, int64_t step, bool fresh) {
  try {
    write_adapter(params, step, fresh);
    return "";
  } catch (const std::exception& error) {
    return fmt::format("all {} steps are done, but the result could not be written to {}/{}: {}. {}", step,
                       setup_.output_dir, setup_.result_folder, error.what(), newest_state());
  }
}

std::string ResultWriter::done(int64_t step) const {
  const std::string found =
      setup_.keeps_best && best_.step() >= 0
          ? fmt::format("; the best model: step {}, {} {:.4f}", best_.step(), best_.judge().metric, best_.metric())
          : reporter_.last_evaluation();
  return fmt::format("done after {} steps: {}/{} is the result{}", step, setup_.output_dir, setup_.result_folder,
                     found);
}

std::string ResultWriter::newest_state() const {
  constexpr const char* kRepair = "Make room or remove what is in the way, then run the same command again";
  if (last_saved_step_ < 0) return fmt::format("There is no checkpoint either. {}: it starts over", kRepair);
  return fmt::format("There is a checkpoint of step {}. {}: it resumes from that step", last_saved_step_, kRepair);
}

void ResultWriter::write_adapter(const at::Tensor& params, int64_t step, bool fresh) {
  const std::string folder = setup_.output_dir + "/" + setup_.result_folder;
  if (!setup_.keeps_best || best_.step() == step) return setup_.write_adapter(params, folder, step);
  if (best_.step() >= 0) {
    write_best_adapter(folder);
    reporter_.notice(fmt::format("{}/ holds the best model: step {}, {} {:.4f}", setup_.result_folder, best_.step(),
                                 best_.judge().metric, best_.metric()));
    return;
  }
  const bool stays = !fresh && std::filesystem::exists(folder);
  reporter_.warn(
      step, fmt::format("there is no best model by {} to load: no evaluation has given a finite value; "
                        "{}/ {}",
                        best_.judge().metric, setup_.result_folder, stays ? "stays as it is" : "holds the last state"));
  if (!stays) setup_.write_adapter(params, folder, step);
}

void ResultWriter::write_best_adapter(const std::string& folder) const {
  const std::vector<float>& values = best_.params();
  const at::Tensor best = at::empty({static_cast<int64_t>(values.size())}, at::kFloat);
  std::copy(values.begin(), values.end(), best.mutable_data_ptr<float>());
  setup_.write_adapter(best, folder, best_.step());
}

}  // namespace neoloom::train
