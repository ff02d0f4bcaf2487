// SPDX-License-Identifier: Apache-2.0
#include "runtime/train/resume.h"

#include <filesystem>
#include <utility>

#include "runtime/checkpoint/directory.h"
#include "runtime/core/error.h"
#include "runtime/core/wire.h"

namespace neoloom::checkpoint {

// Lists what rank 0 sends of a checkpoint as one text. The values of the buffers follow as raw bytes.
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(IndexEntry, name, shape, offset_elements)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(State, index, optimizer, step, epoch, step_in_epoch, loss_scale, good_steps,
                                   skipped_steps, best_metric, best_step, config, identity, label_map, history)

}  // namespace neoloom::checkpoint

namespace neoloom::train {

namespace {

struct Description {
  std::string path;
  std::vector<std::string> skipped;
  checkpoint::State state;
  std::vector<size_t> lengths;  // of for_each_array's
};
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(Description, path, skipped, state, lengths)

// Calls visit(values) for each buffer that the next steps need.
template <typename State, typename Visit>
void for_each_array(State& state, const Visit& visit) {
  visit(state.params);
  visit(state.exp_avg);
  visit(state.exp_avg_sq);
  visit(state.exp_avg_codes);
  visit(state.exp_avg_sq_codes);
  visit(state.initial_params);
}

std::string describe(const Resumed& resumed) {
  Description description{resumed.path, resumed.skipped, resumed.state, {}};
  for_each_array(resumed.state, [&](const auto& values) { description.lengths.push_back(values.size()); });
  return core::to_wire(description);
}

Resumed parse(const std::string& text) {
  auto description = core::from_wire<Description>(text);
  Resumed resumed{std::move(description.state), std::move(description.path), std::move(description.skipped)};
  auto length = description.lengths.begin();
  for_each_array(resumed.state, [&](auto& values) { values.resize(*length++); });
  return resumed;
}

// Returns the folder of the checkpoints. `path` is that folder or a run folder.
std::string folder_of_checkpoints(const std::string& path) {
  const std::string inside = path + "/checkpoints";
  return std::filesystem::is_directory(inside) ? inside : path;
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
  for_each_array(mine->state, [&](auto& values) {
    if (!values.empty()) session.broadcast(values.data(), values.size() * sizeof(values.front()));
  });
  return mine;
}

}  // namespace neoloom::train
