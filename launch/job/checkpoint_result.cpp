// SPDX-License-Identifier: Apache-2.0
#include "launch/job/checkpoint_result.h"

#include <ATen/ops/empty.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "launch/job/hub.h"
#include "launch/job/model_card.h"
#include "launch/job/run_folder.h"
#include "launch/job/run_identity.h"
#include "model/checkpoints/adapter_files.h"
#include "model/weight_cache/weight_cache.h"
#include "runtime/checkpoint/directory.h"
#include "runtime/core/atomic_file.h"
#include "runtime/core/error.h"
#include "runtime/core/files.h"
#include "runtime/core/json.h"
#include "runtime/train/resume.h"
#include "runtime/train/training_state.h"

namespace neoloom::launch {
namespace {

namespace fs = std::filesystem;
using core::ErrorKind;

std::string steps_of(const checkpoint::Directory& directory) {
  std::vector<int64_t> steps;
  for (const checkpoint::Entry& entry : directory.list()) steps.push_back(entry.step);
  if (steps.empty()) return fmt::format("{} holds none yet", directory.path());
  return fmt::format("{} holds step{} {}", directory.path(), steps.size() == 1 ? "" : "s", fmt::join(steps, ", "));
}

at::Tensor tensor_of(const std::vector<float>& values) {
  at::Tensor tensor = at::empty({static_cast<int64_t>(values.size())}, at::kFloat);
  std::copy(values.begin(), values.end(), tensor.mutable_data_ptr<float>());
  return tensor;
}

// Makes the model as training made it.
std::unique_ptr<model::Model> trained_model(const Inputs& inputs, const Device& device,
                                            const std::vector<std::string>& labels, const train::Resumed& resumed) {
  model::ModelSetup setup;
  setup.config = inputs.base.config;
  setup.head = inputs.task.value;
  setup.num_labels = inputs.task.classifies() ? static_cast<int64_t>(labels.size()) : 0;
  setup.lora = inputs.config.peft_config;
  setup.compute_dtype = resolve_compute_dtype(inputs.config, device.name());
  setup.device = device.traits();
  const bool classifies = inputs.task.classifies();  // its head is among the trained tensors
  auto model =
      model::Model::create(setup, classifies ? model::with_score_rows(inputs.base.weights, {}) : inputs.base.weights);
  core::require(
      resumed.state.index == train::index_of(model->layout()), ErrorKind::kCheckpoint,
      "{}: its {} tensors do not have the names and shapes of the {} that {} trains: it belongs to another run",
      resumed.path, resumed.state.index.size(), model->layout().slots.size(), inputs.config.trainer_config.output_dir);
  if (!resumed.state.initial_params.empty()) model->subtract(tensor_of(resumed.state.initial_params));
  return model;
}

BaseReference reference_of(const RunConfig& config) {
  const std::string from = config.peft_config ? config.peft_config->init_from : "";
  std::error_code ignored;
  return base_reference(
      config, !from.empty() && fs::exists(from, ignored) ? model::read_adapter_folder(from) : model::AdapterFolder{});
}

void write_result(const std::string& folder, const Inputs& inputs, const Device& device,
                  const train::Resumed& resumed) {
  const auto read = [&](const std::string& text) {
    return core::parse_json(text, resumed.path, ErrorKind::kCheckpoint);
  };
  const auto labels = read(resumed.state.label_map).get<std::vector<std::string>>();
  const auto model = trained_model(inputs, device, labels, resumed);
  train::History history;
  history.restore(read(resumed.state.history));
  const BaseReference reference = reference_of(inputs.config);
  const CardFacts facts{
      inputs.config,       inputs.task,       labels, reference, inputs.config.peft_config.has_value(),
      /*train_samples=*/0, resumed.state.step};
  const std::string card = model_card(facts, history.evaluation_before(resumed.state.step));
  model::write_adapter_folder(folder, *model, tensor_of(resumed.state.params), reference.name,
                              {labels, inputs.task.problem_type_name(), inputs.pad_id, reference.revision, card},
                              files_beside_weights(inputs));
}

// Adapters fit the base that they were trained on.
void require_base_of(const train::Resumed& resumed, const Base& base) {
  const auto identity = core::parse_json(resumed.state.identity, resumed.path, ErrorKind::kCheckpoint);
  const auto trained = identity.find("base_config");
  if (trained == identity.end()) return;  // of an older neoloom
  require_same_base(trained->get<std::map<std::string, std::string>>(), base.config, base.folder);
}

}  // namespace

std::string find_checkpoint(const ModelArguments& arguments, core::Logger& log) {
  const std::string& wanted = arguments.checkpoint;
  const checkpoint::Directory directory(arguments.run + "/checkpoints");
  if (wanted == "last") {
    const auto newest = directory.newest_valid([&](const std::string& path, const std::string& reason) {
      log.warning(fmt::format("{} is damaged and passed over: {}", path, reason));
    });
    core::require(newest.has_value(), ErrorKind::kUsage, "--checkpoint last: {}", steps_of(directory));
    return newest->entry.path;
  }
  const bool number = !wanted.empty() && wanted.size() <= 12 &&
                      std::all_of(wanted.begin(), wanted.end(), [](char c) { return c >= '0' && c <= '9'; });
  if (!number) {
    core::require(fs::is_regular_file(wanted), ErrorKind::kUsage,
                  "--checkpoint {}: there is no such file; expected a step, last, or a file step-<12 digits>.h5; {}",
                  wanted, steps_of(directory));
    return wanted;
  }
  std::string path = directory.path() + "/" + checkpoint::file_name(std::stoll(wanted));
  core::require(fs::exists(path), ErrorKind::kUsage, "--checkpoint {}: there is no checkpoint of this step; {}", wanted,
                steps_of(directory));
  return path;
}

CheckpointResult write_checkpoint_result(comm::MpiSession& session, const ModelArguments& arguments,
                                         std::shared_ptr<Device> device) {
  const auto phase = session.phase("reading a checkpoint");
  Inputs inputs;
  CheckpointResult result;
  session.run_on_all_or_fail([&] {
    inputs.config = read_run_config(arguments.run, arguments.overrides);
    session.log().set_level(core::log_level_from_name(inputs.config.logging.level));
    session.set_peer_timeout(static_cast<double>(inputs.config.runtime.peer_timeout_seconds));
    require_base_there(arguments.run, inputs.config);
  });
  const std::string path = session.run_on_root([&] { return find_checkpoint(arguments, session.log()); });
  const std::optional<train::Resumed> resumed = train::load_for_all(session, "", path);
  fetch_from_hub(session, inputs.config);
  session.run_on_all_or_fail([&] {
    inputs.task = choose_task(inputs.config);
    inputs.base = find_base(inputs.config);
    inputs.tokenizer.emplace(load_tokenizer(inputs.config, inputs.base));
    inputs.pad_id = resolve_pad_id(inputs.config, inputs.base, *inputs.tokenizer);
    require_base_of(*resumed, inputs.base);
  });
  result.device = device ? std::move(device) : std::make_shared<Device>(session, inputs.config);
  load_weights(session, inputs.config, result.device->name(), inputs.base);
  std::string folder = cache_directory(session, inputs.config).directory + "/checkpoint";
  session.run_on_all_or_fail([&] {
    if (session.local_rank() != 0) return;
    core::remove_stale_temporaries(folder);
    folder = core::temporary_name(folder);
    write_result(folder, inputs, *result.device, *resumed);
  });
  session.broadcast_on_host(folder);
  const auto remove = [owns = session.local_rank() == 0](const std::string* path) {
    std::error_code ignored;
    if (owns) fs::remove_all(*path, ignored);
    delete path;
  };
  result.folder = std::shared_ptr<const std::string>(new std::string(folder), remove);
  result.base = inputs.base;
  result.base_name = inputs.config.model_config.pretrained_model_name;
  result.note = fmt::format("checkpoint of step {}: {}", resumed->state.step, path);
  return result;
}

}  // namespace neoloom::launch
