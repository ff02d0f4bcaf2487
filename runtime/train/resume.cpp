// SPDX-License-Identifier: Apache-2.0
#include "runtime/train/resume.h"

#include <filesystem>
#include <nlohmann/json.hpp>

#include "runtime/checkpoint/directory.h"
#include "runtime/core/error.h"

namespace neoloom::train {
namespace {

using nlohmann::json;

// A run's folder, or its checkpoints/.
std::string folder_of_checkpoints(const std::string& path) {
  const std::string inside = path + "/checkpoints";
  return std::filesystem::is_directory(inside) ? inside : path;
}

std::string describe(const Resumed& resumed) {
  const checkpoint::State& s = resumed.state;
  json index = json::array();
  for (const auto& entry : s.index) index.push_back({entry.name, entry.shape, entry.offset_elements});
  return json{{"path", resumed.path},
              {"skipped", resumed.skipped},
              {"index", index},
              {"elements", s.params.size()},
              {"counters", {s.step, s.epoch, s.step_in_epoch, s.good_steps, s.skipped_steps, s.best_step}},
              {"loss_scale", s.loss_scale},
              {"best_metric", s.best_metric},
              {"texts", {s.config, s.identity, s.label_map, s.history}}}
      .dump();
}

Resumed parse(const std::string& text) {
  const json description = json::parse(text);
  Resumed resumed;
  resumed.path = description["path"];
  resumed.skipped = description["skipped"];
  checkpoint::State& s = resumed.state;
  for (const json& entry : description["index"]) s.index.push_back({entry[0], entry[1], entry[2]});
  const json& counters = description["counters"];
  s.step = counters[0];
  s.epoch = counters[1];
  s.step_in_epoch = counters[2];
  s.good_steps = counters[3];
  s.skipped_steps = counters[4];
  s.best_step = counters[5];
  s.loss_scale = description["loss_scale"];
  s.best_metric = description["best_metric"];
  const json& texts = description["texts"];
  s.config = texts[0];
  s.identity = texts[1];
  s.label_map = texts[2];
  s.history = texts[3];
  for (auto* values : {&s.params, &s.exp_avg, &s.exp_avg_sq}) values->resize(description["elements"]);
  return resumed;
}

}  // namespace

std::vector<checkpoint::IndexEntry> index_of(const model::ParameterLayout& layout) {
  std::vector<checkpoint::IndexEntry> index;
  for (const model::ParameterSlot& slot : layout.slots) index.push_back({slot.name, slot.shape, slot.offset_elements});
  return index;
}

std::optional<Resumed> load_for_all(comm::MpiSession& session, const std::string& directory,
                                    const std::string& resume) {
  if (resume == "none") return std::nullopt;
  std::optional<Resumed> mine;
  const std::string description = session.run_on_root([&]() -> std::string {
    Resumed loaded;
    const bool in_folder = resume == "auto" || std::filesystem::is_directory(resume);
    if (in_folder) {
      const checkpoint::Directory folder(resume == "auto" ? directory : folder_of_checkpoints(resume));
      folder.remove_leftovers();
      auto newest = folder.newest_valid(
          [&](const std::string& path, const std::string& reason) { loaded.skipped.push_back(path + ": " + reason); });
      core::require(newest.has_value() || resume == "auto", core::ErrorKind::kCheckpoint,
                    "--resume {}: the folder holds no checkpoint (step-<12 digits>.h5)", resume);
      if (!newest) return "";
      loaded.path = newest->entry.path;
      loaded.state = std::move(newest->state);
    } else {
      loaded.path = resume;
      loaded.state = checkpoint::load(resume);
    }
    mine = std::move(loaded);
    return describe(*mine);
  });
  if (description.empty()) return std::nullopt;
  if (!mine) mine = parse(description);
  for (auto* values : {&mine->state.params, &mine->state.exp_avg, &mine->state.exp_avg_sq}) {
    session.broadcast(values->data(), values->size() * sizeof(float));
  }
  return mine;
}

}  // namespace neoloom::train
