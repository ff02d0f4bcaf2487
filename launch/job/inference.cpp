// SPDX-License-Identifier: Apache-2.0
#include "launch/job/inference.h"

#include <c10/core/Device.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <filesystem>
#include <string_view>
#include <utility>

#include "data/readers/rows.h"
#include "data/store/windows.h"
#include "launch/job/checkpoint_result.h"
#include "launch/job/data_checks.h"
#include "launch/job/hub.h"
#include "launch/job/initial_values.h"
#include "launch/job/labels.h"
#include "launch/job/model_names.h"
#include "launch/job/run_folder.h"
#include "launch/job/run_identity.h"
#include "launch/job/shown_progress.h"
#include "model/checkpoints/adapter_files.h"
#include "model/checkpoints/weight_files.h"
#include "model/config_notes.h"
#include "model/lora/target_modules.h"
#include "model/weight_cache/weight_cache.h"
#include "runtime/core/error.h"

namespace neoloom::launch {
namespace {

using core::ErrorKind;
namespace fs = std::filesystem;

void require_run_folder(const std::string& run) {
  core::require(fs::exists(run + "/config.yaml"), ErrorKind::kUsage,
                "{} is not a run folder: it has no config.yaml (give trainer_config.output_dir of a training run)",
                run);
}

// Reads the configuration of a run folder, or makes the least one that names a model. Returns the adapter folder, if
// any.
std::string read_sources(const ModelArguments& arguments, Inference& result) {
  if (!arguments.run.empty()) {
    require_run_folder(arguments.run);
    std::string adapter = result.checkpoint_folder ? *result.checkpoint_folder : result_of(arguments.run);
    core::require(
        !adapter.empty(), ErrorKind::kUsage,
        "{} has no result yet (adapter/, or model/ of full-parameter training): the run has not finished; run "
        "its train command again to resume it, or take the state of a checkpoint: --checkpoint last",
        arguments.run);
    result.config = read_run_config(arguments.run, arguments.overrides);
    if (fs::exists(adapter + "/adapter_config.json")) {
      require_base_there(arguments.run, result.config);
      return adapter;
    }
    result.config.model_config.pretrained_model_name = adapter;  // a fully trained model
    // It computes in the dtype that its training computed in, from the fp32 values with which training ended.
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
  result.config = parse_config("{}", "--model", arguments.overrides);
  // The path does not go through the document, because it need not be UTF-8. --set goes before it.
  std::string& name = result.config.model_config.pretrained_model_name;
  if (name.empty()) name = arguments.model;
  return arguments.adapter;
}

// Drops entries of target_modules that match nothing. They do no harm in an adapter that others wrote: its tensors say
// what it adapts.
void keep_matching_targets(const std::string& folder, int64_t num_layers, Inference& result) {
  std::vector<std::string>& targets = result.config.peft_config->target_modules.names;
  const std::vector<std::string> unmatched = model::unmatched_targets({targets}, num_layers);
  if (unmatched.empty()) return;
  core::require(unmatched.size() < targets.size(), ErrorKind::kWeights,
                "{}/adapter_config.json: target_modules [{}] are not modules of GPT-Neo: "
                "is this the adapter of another architecture?",
                folder, fmt::join(targets, ", "));
  std::erase_if(targets, [&](const std::string& entry) {
    return std::find(unmatched.begin(), unmatched.end(), entry) != unmatched.end();
  });
  result.notes.push_back(fmt::format("{}: target_modules [{}] match no module of this model: they have no effect",
                                     folder, fmt::join(unmatched, ", ")));
}

// Takes the labels of the head from whoever names them.
void name_labels(const std::string& adapter_folder, int64_t adapter_rows,
                 const std::vector<std::string>& adapter_labels, Inference& result) {
  const bool adapter = adapter_rows > 0;
  const int64_t rows = adapter ? adapter_rows : model::stored_head_rows(result.base.folder);
  const std::string& where = adapter ? adapter_folder : result.base.folder;
  core::require(
      rows > 0, ErrorKind::kWeights,
      "{} has no classification head: it holds no score.weight. Train one, or give the adapter that has it (--adapter)",
      adapter_folder.empty() ? result.base.folder : adapter_folder);
  const std::vector<std::string>& base = result.base.config.labels;
  const std::vector<std::string>& own = adapter ? adapter_labels : base;
  core::require(own.empty() || static_cast<int64_t>(own.size()) == rows, ErrorKind::kWeights,
                "{}: config.json names {} labels, but score.weight has {} rows: correct id2label or num_labels", where,
                own.size(), rows);
  HeadNames head = name_head_rows(where, rows, own, base, result.config.data.label_names);
  result.labels = std::move(head.names);
  if (!head.note.empty()) result.notes.push_back(fmt::format("labels: {}", head.note));
}

// Settles the label columns, now that the adapter or the base has said what the task is. A user who did not know it may
// have named a column of several labels as one of single labels.
void settle_columns(RunConfig& config) {
  data::Options& data = config.data;
  const bool multi = config.model_config.problem_type == "multi_label_classification";
  if (multi && data.labels_column.empty()) std::swap(data.labels_column, data.label_column);
  resolve_columns(config,
                  [](std::string_view group, std::string_view key) { return fmt::format("{}.{}", group, key); });
}

/// Returns whether the adapter brings the classification head.
bool describe_head(const std::string& adapter_folder, Inference& result) {
  std::string problem_type = result.base.config.problem_type;
  // Without an adapter nothing is added to the weights, so there are no LoRA targets.
  result.config.peft_config = model::LoraOptions{};
  result.config.peft_config->target_modules = {};
  model::AdapterFolder adapter;
  if (!adapter_folder.empty()) {
    adapter = model::read_adapter_folder(adapter_folder);
    result.config.peft_config = adapter.lora;
    keep_matching_targets(adapter_folder, result.base.config.num_layers, result);
    result.reference = base_reference(result.config, adapter);
    if (!adapter.problem_type.empty()) problem_type = adapter.problem_type;
    if (problem_type.empty() && adapter.score_rows == 1) problem_type = "regression";  // as transformers has it
    if (adapter.pad_token_id >= 0 && !result.config.model_config.pad_token_id) {
      result.config.model_config.pad_token_id = adapter.pad_token_id;
    }
  }
  if (result.config.model_config.problem_type.empty()) result.config.model_config.problem_type = problem_type;
  settle_columns(result.config);
  result.task = choose_task(result.config);
  if (result.task.classifies()) name_labels(adapter_folder, adapter.score_rows, adapter.labels, result);
  return adapter.score_rows > 0;
}

void print_notes(const Inference& result, core::Logger& log) {
  for (const std::string& text : result.config.warnings) log.warning(text);
  for (const std::string& text : result.notes) log.info(text);
  for (const std::string& text : result.base.weights->notes) log.info(text);
  for (const std::string& text : model::config_notes(result.base.config)) log.info(text);
  for (const std::string& text : result.tokenizer->notes()) log.info("tokenizer: " + text);
}

// Takes over base and device of the model that was loaded first.
void share_base(const Inference& first, Inference& result) {
  const auto same = [&](std::string_view what, const std::string& ours, const std::string& theirs) {
    core::require(ours == theirs, ErrorKind::kUsage,
                  "the models {} and {} do not share one base, as several in one command do: {} is {} and {}; use two "
                  "commands",
                  first.name, result.name, what, theirs, ours);
  };
  std::error_code ignored;
  if (!fs::equivalent(first.base.folder, result.base.folder, ignored)) {
    same("the base", result.base.folder, first.base.folder);
  }
  const auto dtypes = [&](const Inference& of) {
    return fmt::format("{}, computed in {}", model::dtype_name(stored_dtype(of.config)),
                       model::dtype_name(resolve_compute_dtype(of.config, first.device->name())));
  };
  same("its dtype", dtypes(result), dtypes(first));
  result.device = first.device;
  result.base.weights = first.base.weights;
  result.base.weights_hash = first.base.weights_hash;
}

Inference load(comm::MpiSession& session, const ModelArguments& arguments, const std::string& name,
               const Inference* first) {
  Inference result;
  result.name = name;
  result.from = arguments;
  std::string& adapter_folder = result.adapter_folder;
  const auto phase = session.phase("start-up");
  bool adapter_head = false;
  std::optional<CheckpointResult> taken;
  if (!arguments.checkpoint.empty()) {
    session.run_on_all_or_fail([&] { require_run_folder(arguments.run); });
    taken = write_checkpoint_result(session, arguments, first == nullptr ? nullptr : first->device);
    result.checkpoint_folder = taken->folder;
    result.notes.push_back(taken->note);
  }
  session.run_on_all_or_fail([&] {
    adapter_folder = read_sources(arguments, result);
    session.log().set_level(core::log_level_from_name(result.config.logging.level));
    session.set_peer_timeout(static_cast<double>(result.config.runtime.peer_timeout_seconds));
  });
  fetch_from_hub(session, result.config);
  session.run_on_all_or_fail([&] {
    result.base = find_base(result.config);
    if (!arguments.run.empty() && !adapter_folder.empty() && fs::exists(adapter_folder + "/config.json")) {
      require_same_base(base_config_values(model::GptNeoConfig::from_file(adapter_folder + "/config.json")),
                        result.base.config, result.base.folder);
    }
    adapter_head = describe_head(adapter_folder, result);
    if (!arguments.no_calibration) {
      result.calibration =
          read_calibration(adapter_folder.empty() ? result.base.folder : adapter_folder, result.task, result.labels);
    }
    if (result.calibration) result.notes.push_back(result.calibration->note());
    if (taken && result.config.trainer_config.calibrate && !arguments.no_calibration) {
      result.notes.emplace_back(
          "calibration: a checkpoint has none, so scores are those of the plain logits, unlike those of the run's "
          "result");
    }
    if (taken && adapter_folder.empty()) result.reference.name = taken->base_name;  // the files are gone soon
    std::string& tokenizer = result.config.tokenizer_config.pretrained_tokenizer_name;
    if (tokenizer.empty() && fs::exists(adapter_folder + "/tokenizer_config.json")) tokenizer = adapter_folder;
    result.tokenizer.emplace(load_tokenizer(result.config, result.base));
    result.pad_id = resolve_pad_id(result.config, result.base, *result.tokenizer);
  });
  if (first == nullptr) {
    result.device = taken ? taken->device : std::make_shared<Device>(session, result.config);
    if (taken && !adapter_folder.empty()) {
      result.base.weights = taken->base.weights;
      result.base.weights_hash = taken->base.weights_hash;
    } else {
      taken.reset();  // fully trained: its base is not needed any more
      load_weights(session, result.config, result.device->name(), result.base);
    }
  } else {
    session.run_on_all_or_fail([&] { share_base(*first, result); });
  }
  session.run_on_all_or_fail([&] {
    if (adapter_folder.empty()) return;
    const std::string note =
        model::take_embedding(adapter_folder, result.base.config, *result.base.weights, *result.config.peft_config);
    if (!note.empty()) result.notes.push_back(note);
  });
  if (session.is_root()) print_notes(result, session.log());
  session.run_on_all_or_fail([&] {
    model::ModelSetup setup;
    setup.config = result.base.config;
    setup.head = result.task.value;
    setup.num_labels = result.task.classifies() ? static_cast<int64_t>(result.labels.size()) : 0;
    setup.lora = result.config.peft_config;
    setup.label_smoothing = result.config.trainer_config.label_smoothing_factor;
    setup.compute_dtype = resolve_compute_dtype(result.config, result.device->name());
    setup.device = result.device->traits();
    // The adapter's head takes the place of the base's, which may have other labels.
    const bool own_head = result.task.classifies() && adapter_head;
    result.model =
        model::Model::create(setup, own_head ? model::with_score_rows(result.base.weights, {}) : result.base.weights);
  });
  at::Tensor host = initial_values(session, *result.model, static_cast<uint64_t>(result.config.trainer_config.seed));
  session.run_on_all_or_fail([&] {
    const auto on_device = [&] {
      return host.to(c10::Device(result.device->name()), at::kFloat, false, /*copy=*/true);
    };
    if (result.config.peft_config->init_lora_weights.splits_weights()) result.model->subtract(on_device());
    if (!adapter_folder.empty()) model::load_adapter_values(adapter_folder, *result.model, host);
    result.params = result.device->is_cpu() ? host : on_device();
  });
  return result;
}

/// Whether the path's name says a format that no data file of the run has.
bool is_of_another_format(const std::string& path, const data::Options& run) {
  if (!data::names_a_format(path)) return false;
  const std::vector<std::string> names = data_file_names(run);
  return std::none_of(names.begin(), names.end(), [&](const std::string& own) {
    return data::format_extension(own) == data::format_extension(path);
  });
}

}  // namespace

Inference load_inference(comm::MpiSession& session, const ModelArguments& arguments) {
  return load(session, arguments, "", nullptr);
}

std::vector<Inference> load_models(comm::MpiSession& session, const ModelsArguments& arguments) {
  std::vector<std::pair<std::string, ModelArguments>> wanted;
  session.run_on_all_or_fail([&] { wanted = name_models(arguments); });
  std::vector<Inference> models;
  models.reserve(wanted.size());  // load() looks at the first one
  for (const auto& [name, from] : wanted) {
    models.push_back(load(session, from, name, models.empty() ? nullptr : &models.front()));
  }
  return models;
}

void note_long_rows(comm::MpiSession& session, const data::TokenStore& store) {
  const std::string summary = data::window_summary(store);
  if (!session.is_root()) return;
  if (!summary.empty()) session.log().info("windows: " + summary);
  note_cut_rows(session.log(), store.truncated_samples(), store.packs());
}

void note_cut_rows(core::Logger& log, int64_t cut, int64_t rows) {
  if (cut == 0) return;
  log.info(fmt::format("{:.3g} % of {} rows were cut (see tokenizer_config.max_length)",
                       100.0 * static_cast<double>(cut) / static_cast<double>(rows), rows));
}

train::EvalResult evaluate(comm::MpiSession& session, const Inference& inference,
                           const std::shared_ptr<const data::TokenStore>& store) {
  return train::evaluate(
      session, *inference.model, inference.params,
      {.store = store,
       .batch_size = inference.config.trainer_config.per_device_eval_batch_size,
       .pad_id = inference.pad_id,
       .calibration = inference.calibration ? std::optional(inference.calibration->values) : std::nullopt,
       .progress = shown_progress(session, inference.config.logging.progress, "evaluating", "rows")});
}

std::string settle_format(const ModelArguments& arguments, const std::string& path, RunConfig& config) {
  std::string& format = config.data.format;
  std::string& encoding = config.data.encoding;
  const auto sets = [&](const char* key) {
    return std::any_of(arguments.overrides.begin(), arguments.overrides.end(),
                       [&](const std::string& text) { return text.starts_with(fmt::format("data.{}=", key)); });
  };
  const bool streams = path == "-";
  std::vector<std::string> notes;
  if (!arguments.run.empty() && (streams || is_of_another_format(path, config.data))) {
    if (encoding != "utf-8" && !sets("encoding")) {
      notes.push_back(
          fmt::format("{} is read as utf-8, not in the run's data.encoding {} (--set data.encoding={} overrides "
                      "this)",
                      streams ? "standard input" : path, encoding, encoding));
      encoding = "utf-8";
    }
    if (!streams && format != "auto" && !sets("format")) {
      notes.push_back(fmt::format(
          "the name of {} decides its format, not the run's data.format {} (--set data.format={} overrides this)", path,
          format, format));
      format = "auto";
    }
  }
  if (streams && !sets("format")) format = "jsonl";
  return fmt::format("{}", fmt::join(notes, "; "));
}

}  // namespace neoloom::launch
