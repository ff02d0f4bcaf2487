// SPDX-License-Identifier: Apache-2.0
#include "launch/inference.h"

#include <ATen/ops/zeros.h>
#include <c10/core/Device.h>

#include <algorithm>
#include <filesystem>
#include <iostream>
#include <nlohmann/json.hpp>

#include "data/readers/rows.h"
#include "model/config_notes.h"
#include "model/pretrained/adapter_files.h"
#include "runtime/core/error.h"

namespace neoloom::launch {
namespace {

using core::ErrorKind;
namespace fs = std::filesystem;

// The configuration of a run folder, or the least one that names a model; and the adapter folder, if any.
std::string read_sources(const ModelArguments& arguments, Inference& result) {
  if (!arguments.run.empty()) {
    std::string adapter = arguments.run + "/adapter";
    core::require(fs::exists(arguments.run + "/config.yaml"), ErrorKind::kUsage,
                  "{} is not a run folder: it has no config.yaml (give trainer_config.output_dir of a training run)",
                  arguments.run);
    core::require(fs::exists(adapter), ErrorKind::kUsage,
                  "{} has no adapter folder yet: the run has not finished; run its train command again to resume it",
                  arguments.run);
    result.config = read_config(arguments.run + "/config.yaml", arguments.overrides);
    if (fs::exists(adapter + "/adapter_config.json")) return adapter;
    result.config.model_config.pretrained_model_name = adapter;  // a fully trained model
    // Computed in what its training computed in, from the values that training ended with.
    if (result.config.runtime.compute_dtype == "auto") {
      result.config.runtime.compute_dtype = model::dtype_name(result.config.model_config.frozen_dtype);
    }
    const bool wanted = std::any_of(arguments.overrides.begin(), arguments.overrides.end(), [](const std::string& set) {
      return set.starts_with("model_config.frozen_dtype=") || set.starts_with("model_config.dtype=");
    });
    if (!wanted) result.config.model_config.frozen_dtype = model::Dtype::kFloat32;
    return "";
  }
  core::require(!arguments.model.empty(), ErrorKind::kUsage,
                "give --run FOLDER, or --model FOLDER_OR_ID [--adapter FOLDER]");
  const nlohmann::json least = {{"model_config", {{"pretrained_model_name", arguments.model}}}};
  result.config = parse_config(least.dump(), "--model", arguments.overrides);
  return arguments.adapter;
}

void describe_head(const std::string& adapter_folder, Inference& result) {
  result.labels = result.base.config.labels;
  std::string problem_type = result.base.config.problem_type;
  // Without an adapter nothing is added to the weights: no LoRA targets.
  result.config.peft_config = model::LoraOptions{};
  result.config.peft_config->target_modules.clear();
  if (!adapter_folder.empty()) {
    const model::AdapterFolder adapter = model::read_adapter_folder(adapter_folder);
    result.config.peft_config = adapter.lora;
    if (!adapter.labels.empty()) result.labels = adapter.labels;
    if (!adapter.problem_type.empty()) problem_type = adapter.problem_type;
    if (adapter.pad_token_id >= 0 && !result.config.model_config.pad_token_id) {
      result.config.model_config.pad_token_id = adapter.pad_token_id;
    }
  }
  if (result.config.model_config.problem_type.empty()) result.config.model_config.problem_type = problem_type;
}

void print_notes(const Inference& result) {
  for (const std::string& text : model::config_notes(result.base.config)) std::cerr << text << "\n";
  for (const std::string& text : result.tokenizer->notes()) std::cerr << "tokenizer: " << text << "\n";
}

}  // namespace

Inference load_inference(comm::MpiSession& session, const ModelArguments& arguments) {
  Inference result;
  std::string adapter_folder;
  const auto phase = session.phase("start-up");
  session.all_or_none([&] {
    adapter_folder = read_sources(arguments, result);
    session.set_peer_timeout(static_cast<double>(result.config.runtime.peer_timeout_seconds));
    result.base = find_base(result.config);
    describe_head(adapter_folder, result);
    std::string& tokenizer = result.config.tokenizer_config.pretrained_tokenizer_name;
    if (tokenizer.empty() && fs::exists(adapter_folder + "/tokenizer_config.json")) tokenizer = adapter_folder;
    result.tokenizer.emplace(load_tokenizer(result.config, result.base));
    result.task = choose_task(result.config);
    result.pad_id = resolve_pad_id(result.config, result.base, *result.tokenizer);
  });
  if (session.is_root()) print_notes(result);
  result.device = std::make_unique<Device>(session, result.config);
  load_weights(session, result.config, result.device->name(), result.base);
  session.all_or_none([&] {
    model::ModelSetup setup;
    setup.config = result.base.config;
    setup.head = result.task.head;
    setup.num_labels = result.task.classifies() ? static_cast<int64_t>(result.labels.size()) : 0;
    core::require(!result.task.classifies() || setup.num_labels > 0, ErrorKind::kWeights,
                  "{} does not say which labels it has: no id2label in config.json of the model or the adapter",
                  adapter_folder.empty() ? result.base.folder : adapter_folder);
    setup.lora = result.config.peft_config;
    setup.compute_dtype = resolve_compute_dtype(result.config, result.device->name());
    setup.device = result.device->traits();
    result.model = model::Model::create(setup, result.base.weights);
    at::Tensor host = at::zeros({result.model->layout().total_elements}, at::kFloat);
    result.model->initialize(host, static_cast<uint64_t>(result.config.trainer_config.seed));
    if (!adapter_folder.empty()) model::load_adapter_values(adapter_folder, *result.model, host);
    result.params = result.device->is_cpu() ? host : host.to(c10::Device(result.device->name()));
  });
  return result;
}

std::string settle_format(const ModelArguments& arguments, const std::string& path, RunConfig& config) {
  std::string& format = config.data.format;
  const auto sets_it = [](const std::string& text) { return text.starts_with("data.format="); };
  if (arguments.run.empty() || format == "auto" ||
      std::any_of(arguments.overrides.begin(), arguments.overrides.end(), sets_it)) {
    return "";
  }
  const auto extension = [](const std::string& name) { return fs::path(name).extension(); };
  for (const std::string& own : {config.data.train, config.data.validation}) {
    if (extension(own) == extension(path)) return "";
  }
  if (!data::names_a_format(path)) return "";
  const std::string note =
      fmt::format("{} is read by its name, not by the run's data.format {} (--set data.format={} reads it so)", path,
                  format, format);
  format = "auto";
  return note;
}

}  // namespace neoloom::launch
