// SPDX-License-Identifier: Apache-2.0
#include "launch/commands/predict.h"

#include <algorithm>
#include <memory>
#include <optional>
#include <unordered_map>
#include <utility>

#include "launch/job/inference.h"
#include "launch/job/prediction_text.h"
#include "launch/job/shown_progress.h"
#include "runtime/core/error.h"
#include "runtime/core/files.h"
#include "runtime/core/output.h"
#include "runtime/train/predictor.h"

namespace neoloom::launch {
namespace {

using Reasons = std::unordered_map<int64_t, std::string>;  // why rows cannot be used

Reasons reasons_of(const data::TokenStore& store) {
  Reasons reasons;
  for (const data::InvalidRow& row : store.invalid_rows()) reasons.emplace(row.sample, row.reason);
  return reasons;
}

/// Returns the predictions of a batch, one a line. Shapes: logits [B, num_labels].
std::string predictions(const Inference& inference, const Reasons& reasons, int64_t first, const at::Tensor& logits) {
  const at::Tensor scores = train::class_scores(inference.task.value, logits);
  std::string text;
  for (int64_t i = 0; i < scores.size(0); ++i) {
    const auto unusable = reasons.find(first + i);
    text += unusable != reasons.end() ? prediction_text(inference, unusable->second)
                                      : prediction_text(inference, scores.const_data_ptr<float>() + i * scores.size(1));
    text += '\n';
  }
  return text;
}

data::StoreRequest prediction_request(const Inference& inference, const std::string& input) {
  data::StoreRequest request = store_request(inference.config, inference.task, inference.base, input);
  request.label_names = inference.labels;
  request.require_labels = false;
  request.every_row = true;
  // A prediction does not need the labels of the file.
  request.options.label_column.clear();
  request.options.labels_column.clear();
  return request;
}

std::unique_ptr<data::KeptColumns> open_kept(const std::vector<KeptColumn>& columns, const std::string& input,
                                             const RunConfig& config, const core::Cache& cache) {
  if (columns.empty()) return nullptr;
  core::make_directories(cache.directory);
  std::vector<std::string> names;
  for (const KeptColumn& column : columns) names.push_back(column.input);
  return std::make_unique<data::KeptColumns>(input, config.data, names, cache.directory, "--keep");
}

/// Computes the rows in rounds, and writes them on rank 0 as they are done.
void predict_rows(comm::MpiSession& session, const Inference& inference,
                  const std::shared_ptr<const data::TokenStore>& store, const std::string& output,
                  std::optional<PredictionLines>& lines) {
  const auto phase = session.phase("predicting");
  const train::EvalRequest request{.store = store,
                                   .batch_size = inference.config.trainer_config.per_device_eval_batch_size,
                                   .pad_id = inference.pad_id};
  const core::Progress progress = shown_progress(session, inference.config.logging.progress, "predicting", "rows");
  const Reasons reasons = reasons_of(*store);
  std::optional<core::ResultFile> file;
  session.run_on_root([&]() -> std::string {
    file.emplace(output);
    return "";
  });
  std::string mine;
  train::Rounds rounds{.batches = (store->size() + request.batch_size - 1) / request.batch_size};
  rounds.compute = [&](int64_t batch) {
    const at::Tensor logits = train::predict_batch(*inference.model, inference.params, request, batch);
    mine += predictions(inference, reasons, batch * request.batch_size, logits);
  };
  rounds.hand_over = [&](int64_t batches_done) {
    const std::vector<std::string> parts = session.all_gather(std::exchange(mine, {}));
    session.run_on_root([&]() -> std::string {
      for (const std::string& part : parts) file->write(lines->next(part));
      return "";
    });
    if (progress) progress(std::min(batches_done * request.batch_size, store->size()), store->size());
  };
  train::run_rounds(session, rounds);
  session.run_on_root([&]() -> std::string {
    file->finish();
    return "";
  });
}

}  // namespace

int run_predict(comm::MpiSession& session, const PredictArguments& arguments) {
  std::vector<KeptColumn> columns;
  session.run_on_all_or_fail([&] { columns = parse_kept_columns(arguments.keep); });
  session.run_on_root([&]() -> std::string {
    if (!arguments.output.empty()) core::prepare_output_file(arguments.output);
    return "";
  });
  Inference inference = load_inference(session, arguments.model);
  data::StoreRequest request;
  std::string note;
  session.run_on_all_or_fail([&] {
    core::require(inference.task.classifies(), core::ErrorKind::kUsage,
                  "predict labels texts, but this is a language model: use neoloom generate");
    note = settle_format(arguments.model, arguments.input, inference.config);
    request = prediction_request(inference, arguments.input);
  });
  if (session.is_root() && !note.empty()) session.log().info(note);
  const core::Cache cache = cache_directory(session, inference.config);
  std::optional<PredictionLines> lines;
  session.run_on_root([&]() -> std::string {
    lines.emplace(columns, open_kept(columns, arguments.input, inference.config, cache));
    return "";
  });
  const auto store = open_store(session, request, *inference.tokenizer, cache);
  predict_rows(session, inference, store, arguments.output, lines);
  if (session.is_root() && store->invalid_row_count() > 0) {
    session.log().info("predict: " + unusable_rows(*store, store->size(), "have no prediction"));
  }
  return 0;
}

}  // namespace neoloom::launch
