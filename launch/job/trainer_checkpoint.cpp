// SPDX-License-Identifier: Apache-2.0
#include "launch/job/trainer_checkpoint.h"

#include <fmt/format.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "runtime/core/error.h"
#include "runtime/core/files.h"
#include "runtime/core/json.h"

namespace neoloom::launch {

std::string note_on_trainer_checkpoint(const std::string& folder) {
  const std::string path = folder + "/trainer_state.json";
  if (folder.empty() || !std::filesystem::is_regular_file(path)) return "";
  std::string step = "an unknown step";  // nothing else depends on the file
  try {
    const auto state = core::parse_json(core::read_file(path), path, core::ErrorKind::kWeights);
    const auto found = state.find("global_step");
    if (found != state.end() && found->is_number_integer()) step = "step " + found->dump();
  } catch (const core::Error&) {
  }
  return fmt::format(
      "{} is a checkpoint of transformers' Trainer, of {}: its weights are taken; its optimizer, schedule and random "
      "state are not read, so this run starts at step 0",
      folder, step);
}

}  // namespace neoloom::launch
