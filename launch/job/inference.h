// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "launch/command_line.h"
#include "launch/job/calibration.h"
#include "launch/job/device.h"
#include "launch/job/inputs.h"
#include "model/model.h"
#include "runtime/train/evaluator.h"

namespace neoloom::launch {

/// A model with its adapter applied, ready to evaluate, predict, generate or export.
struct Inference {
  std::string name;     // in the output; empty: it is the only one, and not named
  ModelArguments from;  // where it was loaded from
  RunConfig config;
  TaskChoice task;
  Base base;
  std::optional<data::Tokenizer> tokenizer;
  std::shared_ptr<Device> device;
  std::unique_ptr<model::Model> model;
  at::Tensor params;                // [layout().total_elements] fp32
  std::vector<std::string> labels;  // class names in index order
  std::optional<CalibrationFile> calibration;
  int64_t pad_id = 0;
  BaseReference reference;                               // the base's name for adapters written from this
  std::string adapter_folder;                            // empty: the weights are whole
  std::vector<std::string> notes;                        // for the log
  std::shared_ptr<const std::string> checkpoint_folder;  // of --checkpoint: the files that adapter_folder or base names

  double temperature() const { return calibration ? calibration->values.temperature : 1.0; }
};

/// Loads a run folder, or a model folder / hub id with an optional PEFT adapter.
/// Collective: every rank. Throws: Error(kUsage) without a model; Error(kWeights) from loading.
Inference load_inference(comm::MpiSession& session, const ModelArguments& arguments);

/// Loads the models of one command. They share one base, whose weights are loaded once, and one device.
/// Collective: every rank. Throws: as load_inference; Error(kUsage) for a name twice, or models of unlike bases or
/// dtypes.
std::vector<Inference> load_models(comm::MpiSession& session, const ModelsArguments& arguments);

/// Says how many rows of `store` have several windows, or were cut, if there are any.
void note_long_rows(comm::MpiSession& session, const data::TokenStore& store);
/// Says which share of rows was cut, if any was.
void note_cut_rows(core::Logger& log, int64_t cut, int64_t rows);

/// Evaluates the samples of `store`; see train::evaluate. Collective: every rank.
train::EvalResult evaluate(comm::MpiSession& session, const Inference& inference,
                           const std::shared_ptr<const data::TokenStore>& store);

/// Settles how `path` is read. A run's data.format and data.encoding describe the run's own files. Where the command
/// line does not set them, standard input (`path` is -) is jsonl in utf-8, and a file whose extension names a format
/// that the run's files do not have is of that format, in utf-8. Returns a line that says what of the run does not
/// apply; empty when all does.
std::string settle_format(const ModelArguments& arguments, const std::string& path, RunConfig& config);

}  // namespace neoloom::launch
