// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <string>

#include "runtime/checkpoint/directory.h"
#include "runtime/train/best_model.h"
#include "runtime/train/reporter.h"
#include "runtime/train/side_product.h"

namespace neoloom::train {

struct ResultWriterSetup {
  std::string output_dir;
  std::string result_folder;  // in output_dir: adapter, or model of full-parameter training
  std::string config_file;    // the text of config.yaml
  int64_t save_total_limit = 0;
  bool keeps_best = false;  // load_best_model_at_end
  int64_t total_steps = 0;
  /// `step`: that of the state.
  std::function<void(const at::Tensor& params, const std::string& folder, int64_t step)> write_adapter;
};

/// Writes rank 0's files in the run folder beside the log: checkpoints, the side outputs config.yaml and
/// RESULT_FOLDER-best/, and the result.
class ResultWriter {
 public:
  /// Both must outlive this.
  ResultWriter(ResultWriterSetup setup, Reporter& reporter, const BestModel& best);

  /// Says that the run resumes from the checkpoint of `step`.
  void resumed_at(int64_t step) { last_saved_step_ = step; }
  bool is_saved(int64_t step) const { return step == last_saved_step_; }
  /// Writes a checkpoint. A failure does not stop the run: old checkpoints stay, and the next interval retries.
  void save(int64_t step, const std::function<checkpoint::State()>& snapshot);

  void config_is_due() { config_file_.due(); }
  void best_is_due() { best_folder_.due(); }
  void write_side_products(int64_t step);

  /// Says why a run that stops at `step` loses work, and what to do; "" when the checkpoint of `step` exists.
  std::string unsaved_stop(int64_t step) const;
  /// Writes the result. `fresh`: this process made steps. Returns what went wrong and what to do; else "".
  std::string write_result(const at::Tensor& params, int64_t step, bool fresh);
  /// Says where the result is, and how good.
  std::string done(int64_t step) const;

 private:
  void drop_old_checkpoints(const checkpoint::Directory& directory, int64_t step);
  void write_adapter(const at::Tensor& params, int64_t step, bool fresh);
  void write_best_adapter(const std::string& folder) const;
  std::string newest_state() const;

  ResultWriterSetup setup_;
  Reporter& reporter_;
  const BestModel& best_;
  SideProduct config_file_{"config.yaml"};
  SideProduct best_folder_;
  int64_t last_saved_step_ = -1;
  std::string save_problem_;  // why the last attempt to save failed
};

}  // namespace neoloom::train
