// SPDX-License-Identifier: Apache-2.0
#include "runtime/train/resume.h"

#include <array>
#include <filesystem>
#include <utility>

#include "runtime/checkpoint/directory.h"
#include "runtime/core/error.h"
#include "runtime/core/wire.h"

namespace neoloom::checkpoint {

// Lists what rank 0 sends of a checkpoint as one text. The values of the buffers follow as raw bytes.
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(IndexEntry, name, shape, offset_elements)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(State, index, step, epoch, step_in_epoch, loss_scale, good_steps, skipped_steps,
                                   best_metric, best_step, config, identity, label_map, history)

}  // namespace neoloom::checkpoint

namespace neoloom::train {

namespace {

struct Description {
  std::string path;
  std::vector<std::string> skipped;
  checkpoint::State state;
  size_t elements = 0;
  size_t initial_elements = 0;
};
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(Description, path, skipped, state, elements, initial_elements)

// What every rank needs of a checkpoint's buffers: the best parameters are rank 0's alone.
std::array<std::vector<float>*, 4> shared_buffers(checkpoint::State& state) {
  return {&state.params, &state.exp_avg, &state.exp_avg_sq, &state.initial_params};
}

std::string describe(const Resumed& resumed) {
  return core::to_wire(Description{resumed.path, resumed.skipped, resumed.state, resumed.state.params.size(),
                                   resumed.state.initial_params.size()});
}

Resumed parse(const std::string& text) {
  auto description = core::from_wire<Description>(text);
  Resumed resumed{std::move(description.state), std::move(description.path), std::move(description.skipped)};
  for (auto* values : shared_buffers(resumed.state)) values->resize(description.elements);
  resumed.state.initial_params.resize(description.initial_elements);
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
  for (auto* values : shared_buffers(mine->state)) {
    session.broadcast(values->data(), values->size() * sizeof(float));
  }
  return mine;
}

}  // namespace neoloom::train
