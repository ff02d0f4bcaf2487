// SPDX-License-Identifier: Apache-2.0
#include "launch/job/calibration.h"

#include <fmt/format.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "model/checkpoints/adapter_files.h"
#include "runtime/core/error.h"
#include "runtime/core/files.h"
#include "runtime/core/json.h"

namespace neoloom::launch {

using core::ErrorKind;

std::string CalibrationFile::note() const {
  return fmt::format("calibration: logits are divided by {:.4g}{}, as {} says (--no_calibration does without)",
                     values.temperature, values.thresholds.empty() ? "" : ", and each label has a threshold of its own",
                     path);
}

std::optional<CalibrationFile> read_calibration(const std::string& folder, const TaskChoice& task,
                                                const std::vector<std::string>& labels) {
  CalibrationFile file;
  file.path = folder + "/" + model::kCalibrationFile;
  if (!task.classifies() || task.regression() || !std::filesystem::exists(file.path)) return std::nullopt;
  file.text = core::read_file(file.path, ErrorKind::kWeights);
  const auto json = core::parse_json(file.text, file.path, ErrorKind::kWeights);
  try {
    file.values.temperature = json.at("temperature");
    if (task.multi_label()) file.values.thresholds = json.at("thresholds").get<std::vector<float>>();
    const size_t rows = json.at("labels").size();
    core::require(rows == labels.size() && (!task.multi_label() || file.values.thresholds.size() == rows),
                  ErrorKind::kWeights,
                  "{} is for {} labels, the model has {}: remove the file, or use --no_calibration", file.path, rows,
                  labels.size());
  } catch (const nlohmann::json::exception& error) {
    core::fail(ErrorKind::kWeights,
               "{}: {}; expected the temperature, labels and, for several labels a row, thresholds that "
               "trainer_config.calibrate writes: remove the file, or use --no_calibration",
               file.path, core::json_complaint(error));
  }
  core::require(file.values.temperature > 0.0, ErrorKind::kWeights, "{}: expected a temperature above 0, found {}",
                file.path, file.values.temperature);
  return file;
}

}  // namespace neoloom::launch
