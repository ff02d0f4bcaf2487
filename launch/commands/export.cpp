// SPDX-License-Identifier: Apache-2.0
#include "launch/commands/export.h"

#include <ATen/ops/abs.h>
#include <ATen/ops/max.h>
#include <ATen/ops/sub.h>
#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "launch/job/inference.h"
#include "launch/job/model_card.h"
#include "launch/job/shown_progress.h"
#include "model/checkpoints/adapter_files.h"
#include "runtime/core/error.h"
#include "runtime/core/files.h"

namespace neoloom::launch {
namespace {

constexpr int64_t kComparedRows = 16;

/// Returns the model card of the exported folder: an adapter keeps its own, which also tells of its training.
std::string card_of(const Inference& inference, bool merged) {
  const std::string own = inference.adapter_folder + "/README.md";
  if (!merged && !inference.adapter_folder.empty() && std::filesystem::is_regular_file(own))
    return core::read_file(own);
  BaseReference base = inference.reference;
  if (base.name.empty()) base.name = inference.config.model_config.pretrained_model_name;
  return model_card({.config = inference.config,
                     .task = inference.task,
                     .labels = inference.labels,
                     .base = base,
                     .adapter = !merged},
                    nullptr);
}

void write(const Inference& inference, const ExportArguments& arguments, const core::Progress& progress) {
  const model::HeadDescription head{inference.labels,
                                    inference.task.problem_type_name(),
                                    inference.pad_id,
                                    inference.reference.revision,
                                    card_of(inference, arguments.format == "merged"),
                                    inference.calibration ? inference.calibration->text : ""};
  if (arguments.format == "merged") {
    model::export_merged(arguments.output, *inference.model, inference.params, inference.base.folder,
                         model::dtype_from_name(arguments.dtype), static_cast<int64_t>(arguments.max_shard_bytes), head,
                         inference.tokenizer->files(), progress);
    return;
  }
  core::require(!inference.config.peft_config->target_modules.empty(), core::ErrorKind::kUsage,
                "there is no adapter to export: this model was trained in full; use --format merged");
  model::write_adapter_folder(arguments.output, *inference.model, inference.params, inference.reference.name, head,
                              inference.tokenizer->files());
}

// Returns the run's own rows: those of validation if their file is there, else those of training; nothing: neither is.
std::optional<data::Files> rows_of(const data::Options& data) {
  std::vector<data::Files> candidates;
  for (const data::ValidationFiles& set : data.validation) candidates.push_back(set.files);
  candidates.push_back(data.train);
  const auto found = std::find_if(candidates.begin(), candidates.end(),
                                  [](const data::Files& files) { return !files.empty() && files.exist(); });
  return found == candidates.end() ? std::nullopt : std::optional(*found);
}

// Reads the exported folder as any other model, with caches of its own beside it.
Inference load_exported(comm::MpiSession& session, const ExportArguments& arguments, const std::string& device,
                        const std::string& cache) {
  ModelArguments exported;
  exported.model = arguments.output;
  exported.overrides = {"model_config.frozen_dtype=" + arguments.dtype, "runtime.device=" + device,
                        "runtime.cache_dir=" + cache, "logging.level=warning"};
  return load_inference(session, exported);
}

// [tokens, V] of a language model, [1, C] of a classifier.
at::Tensor logits_of(const Inference& inference, std::span<const int32_t> ids) {
  model::Batch batch;
  batch.sample_ids = {0};
  batch.cu_seqlens = {0, static_cast<int64_t>(ids.size())};
  batch.ids.assign(ids.begin(), ids.end());
  if (!inference.task.classifies()) return inference.model->lm_logits(batch, inference.params);
  return inference.model->evaluate(batch, inference.params).logits;
}

std::string dtypes_of(const Inference& inference) {
  return fmt::format("weights in {}, computed in {}", model::dtype_name(inference.config.model_config.frozen_dtype),
                     model::dtype_name(resolve_compute_dtype(inference.config, inference.device->name())));
}

// Prints the largest difference that merging and the written dtype make to a logit.
void print_difference(const Inference& run, const Inference& exported, const data::TokenStore& store,
                      core::Logger& log) {
  double difference = 0;
  double largest = 0;
  const int64_t rows = std::min(kComparedRows, store.size());
  for (int64_t row = 0; row < rows; ++row) {
    const at::Tensor expected = logits_of(run, store.ids(row));
    const at::Tensor found = logits_of(exported, store.ids(row));
    difference = std::max(difference, at::max(at::abs(at::sub(found, expected))).item<double>());
    largest = std::max(largest, at::max(at::abs(expected)).item<double>());
  }
  log.info(fmt::format(
      "largest difference of a logit over {} rows: {:.2g}, where the largest logit is {:.3g} ({}; before: {})", rows,
      difference, largest, dtypes_of(exported), dtypes_of(run)));
}

void compare(comm::MpiSession& session, const Inference& run, const ExportArguments& arguments) {
  const std::optional<data::Files> files = rows_of(run.config.data);
  core::require(files.has_value(), core::ErrorKind::kData, "the run's data files are not there");
  data::StoreRequest request = store_request(run.config, run.task, run.base, *files);
  if (run.task.classifies()) request.label_names = run.labels;
  const auto store = open_store(session, request, *run.tokenizer, cache_directory(session, run.config));
  const std::string cache = arguments.output + ".check";
  const std::string device = run.device->is_cpu() ? "cpu" : "cuda";
  const Inference exported = load_exported(session, arguments, device, cache);
  session.log().set_level(core::log_level_from_name(run.config.logging.level));  // load_exported was to be quiet
  session.run_on_root([&]() -> std::string {
    print_difference(run, exported, *store, session.log());
    std::error_code ignored;
    std::filesystem::remove_all(cache, ignored);
    return "";
  });
}

// Compares the logits of the exported folder with those of the run, if that is possible: the export is done, so nothing
// that goes wrong here ends it. Collective: every rank.
void compare_if_possible(comm::MpiSession& session, const Inference& run, const ExportArguments& arguments) {
  try {
    compare(session, run, arguments);
  } catch (const core::Error& error) {
    if (session.is_root()) session.log().warning(fmt::format("the logits were not compared: {}", error.what()));
  }
}

}  // namespace

int run_export(comm::MpiSession& session, const ExportArguments& arguments) {
  session.run_on_all_or_fail([&] {
    core::require(arguments.format == "merged" || arguments.dtype == "float32", core::ErrorKind::kUsage,
                  "--dtype {}: an adapter is always written in float32; expected no --dtype, or --format merged, whose "
                  "weights it sets",
                  arguments.dtype);
  });
  session.run_on_root([&]() -> std::string {
    core::make_directories(core::parent_directory(arguments.output), core::ErrorKind::kOutput);  // before the work
    return "";
  });
  const Inference inference = load_inference(session, arguments.model);
  const auto phase = session.phase("writing the model", comm::MpiSession::kBuilding);
  session.run_on_root([&]() -> std::string {
    write(inference, arguments, shown_progress(session, inference.config.logging.progress, "exporting", "kB"));
    session.log().info(arguments.output);
    return "";
  });
  if (arguments.format == "merged" && !arguments.model.run.empty()) compare_if_possible(session, inference, arguments);
  return 0;
}

}  // namespace neoloom::launch
