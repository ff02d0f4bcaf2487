// SPDX-License-Identifier: Apache-2.0
#include "launch/commands/predict.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <unordered_map>
#include <utility>

#include "data/line_samples.h"
#include "launch/commands/input_lines.h"
#include "launch/job/inference.h"
#include "launch/job/prediction_text.h"
#include "launch/job/shown_progress.h"
#include "runtime/core/error.h"
#include "runtime/core/files.h"
#include "runtime/core/output.h"
#include "runtime/train/predictor.h"
#include "runtime/train/window_mean.h"

namespace neoloom::launch {
namespace {

using Reasons = std::unordered_map<int64_t, std::string>;  // why rows cannot be used

Reasons reasons_of(const data::TokenStore& store) {
  Reasons reasons;
  for (const data::InvalidRow& row : store.invalid_rows()) reasons.emplace(row.sample, row.reason);
  return reasons;
}

/// A model, and the rows as it sees them.
struct Predictor {
  const Inference& inference;
  train::EvalRequest request;
  Reasons reasons;
};

/// Returns the predictions of a model for a batch, one an element.
std::vector<std::string> predictions(const Predictor& predictor, int64_t batch) {
  const Inference& inference = predictor.inference;
  const at::Tensor logits = train::predict_batch(*inference.model, inference.params, predictor.request, batch);
  const at::Tensor scores = train::class_scores(inference.task.value, logits, inference.temperature());
  std::vector<std::string> texts;
  for (int64_t i = 0; i < scores.size(0); ++i) {
    const auto unusable = predictor.reasons.find(batch * predictor.request.batch_size + i);
    texts.push_back(unusable != predictor.reasons.end()
                        ? prediction_text(inference, unusable->second)
                        : prediction_text(inference, scores.const_data_ptr<float>() + i * scores.size(1)));
  }
  return texts;
}

/// Adds what a model says of a row to the object of the row: that of an unnamed model is the whole, named ones have an
/// object each in it.
void add_prediction(const Inference& inference, const std::string& prediction, std::string& row) {
  if (inference.name.empty()) {
    row = prediction;
    return;
  }
  if (!row.empty()) row.back() = ',';  // in place of the brace
  row += fmt::format("{}{}:{}}}", row.empty() ? "{" : "", nlohmann::json(inference.name).dump(), prediction);
}

/// Returns the predictions of all models for a batch: an object a row, in a line of its own.
std::string lines_of_batch(const std::vector<Predictor>& predictors, int64_t batch) {
  std::vector<std::string> rows;
  for (const Predictor& predictor : predictors) {
    const std::vector<std::string> column = predictions(predictor, batch);
    rows.resize(column.size());
    for (size_t i = 0; i < column.size(); ++i) add_prediction(predictor.inference, column[i], rows[i]);
  }
  return fmt::format("{}\n", fmt::join(rows, "\n"));
}

data::StoreRequest prediction_request(const Inference& inference, const data::Files& input) {
  data::StoreRequest request = store_request(inference.config, inference.task, inference.base, input);
  request.label_names = inference.labels;
  request.require_labels = false;
  request.every_row = true;
  // A prediction does not need the labels of the file.
  request.options.label_column.clear();
  request.options.labels_column.clear();
  return request;
}

std::vector<std::string> inputs_of(const std::vector<KeptColumn>& columns) {
  std::vector<std::string> names;
  names.reserve(columns.size());
  for (const KeptColumn& column : columns) names.push_back(column.input);
  return names;
}

std::unique_ptr<data::KeptColumns> open_kept(const std::vector<KeptColumn>& columns, const std::string& input,
                                             const RunConfig& config, const core::Cache& cache) {
  if (columns.empty()) return nullptr;
  core::make_directories(cache.directory);
  return std::make_unique<data::KeptColumns>(input, config.data, inputs_of(columns), cache.directory, "--keep");
}

/// Computes the rows in rounds, and writes them on rank 0 as they are done.
void predict_rows(comm::MpiSession& session, const std::vector<Predictor>& predictors, const std::string& output,
                  std::optional<PredictionLines>& lines) {
  const auto phase = session.phase("predicting");
  const std::string& style = predictors.front().inference.config.logging.progress;
  const core::Progress progress = shown_progress(session, style, "predicting", "rows");
  const int64_t rows = predictors.front().request.store->packs();
  const int64_t batch_size = predictors.front().request.batch_size;
  std::optional<core::ResultFile> file;
  session.run_on_root([&]() -> std::string {
    file.emplace(output);
    return "";
  });
  std::string mine;
  train::Rounds rounds{.batches = train::batches_of(predictors.front().request)};
  rounds.compute = [&](int64_t batch) { mine += lines_of_batch(predictors, batch); };
  rounds.hand_over = [&](int64_t batches_done) {
    const std::vector<std::string> parts = session.all_gather(std::exchange(mine, {}));
    session.run_on_root([&]() -> std::string {
      for (const std::string& part : parts) file->write(lines->next(part));
      return "";
    });
    if (progress) progress(std::min(batches_done * batch_size, rows), rows);
  };
  train::run_rounds(session, rounds);
  session.run_on_root([&]() -> std::string {
    file->finish();
    return "";
  });
}

/// Tokenises the rows for a model, which may have labels and a tokenizer of its own. The batches are those of the first
/// model. Collective: every rank.
Predictor open_predictor(comm::MpiSession& session, const Inference& inference, const Inference& first,
                         const std::string& input) {
  data::StoreRequest request;
  session.run_on_all_or_fail([&] { request = prediction_request(inference, input); });
  const auto store = open_store(session, request, *inference.tokenizer, cache_directory(session, inference.config));
  note_long_rows(session, *store);
  return {inference,
          {.store = store,
           .batch_size = first.config.trainer_config.per_device_eval_batch_size,
           .pad_id = inference.pad_id},
          reasons_of(*store)};
}

/// A model that labels lines, as it sees them.
struct LinePredictor {
  const Inference& inference;
  data::LineSamples samples;
  data::LineSample sample = {};
  int64_t cut = 0;  // lines that lost tokens
};

/// Returns what the model says of a sample, which it evaluates alone.
std::string prediction_of(const Inference& inference, const data::LineSample& sample) {
  std::vector<at::Tensor> windows;
  for (const std::vector<int32_t>& ids : sample.windows) {
    model::Batch batch;
    batch.sample_ids = {0};
    batch.cu_seqlens = {0, static_cast<int64_t>(ids.size())};
    batch.ids.assign(ids.begin(), ids.end());
    windows.push_back(inference.model->evaluate(batch, inference.params).logits);
  }
  const at::Tensor logits = windows.size() == 1 ? windows.front() : train::mean_of_windows(windows);
  const at::Tensor scores = train::class_scores(inference.task.value, logits, inference.temperature());
  return prediction_text(inference, scores.const_data_ptr<float>());
}

/// Returns the object of a line; "" when it is a header.
std::string answer(std::vector<LinePredictor>& predictors, const std::string& line) {
  bool is_header = false;
  for (LinePredictor& each : predictors) is_header = !each.samples.read(line, each.sample) || is_header;
  if (is_header) return "";
  std::string row;
  for (auto& [inference, samples, sample, cut] : predictors) {
    if (!sample.error.empty()) return error_line(sample.error, sample.line);
    cut += sample.truncated ? 1 : 0;
    add_prediction(inference, prediction_of(inference, sample), row);
  }
  return row;
}

/// Labels the lines of standard input, each when it comes.
void predict_lines(comm::MpiSession& session, const std::vector<Inference>& models,
                   const std::vector<KeptColumn>& columns, const std::string& output) {
  const auto phase = session.phase("predicting");
  const std::vector<std::string> kept = inputs_of(columns);
  std::vector<LinePredictor> predictors;
  predictors.reserve(models.size());
  for (const Inference& inference : models) {
    predictors.push_back(
        {inference, {kStandardInput, prediction_request(inference, {}), *inference.tokenizer, kept, "--keep"}});
  }
  PredictionLines lines(columns, nullptr);
  core::ResultFile file(output);
  InputLines input;
  int64_t rows = 0;
  for (std::string line; input.next(line);) {
    const std::string row = answer(predictors, line);
    if (row.empty()) continue;
    file.write(lines.next(predictors.front().sample.kept, row));
    ++rows;
  }
  file.finish();
  for (const LinePredictor& each : predictors) note_cut_rows(session.log(), each.cut, rows);
  input.tell_end(session.log());
}

}  // namespace

int run_predict(comm::MpiSession& session, const PredictArguments& arguments) {
  const std::string output = is_standard_stream(arguments.output) ? "" : arguments.output;
  const bool filters = is_standard_stream(arguments.input);
  if (filters) require_one_rank(session, "--input");
  session.run_on_root([&]() -> std::string {
    if (!output.empty()) core::prepare_output_file(output);
    return "";
  });
  std::vector<Inference> models = load_models(session, arguments.models);
  const Inference& first = models.front();
  std::vector<std::string> notes;
  std::vector<KeptColumn> columns;
  session.run_on_all_or_fail([&] {
    for (Inference& inference : models) {
      core::require(inference.task.classifies(), core::ErrorKind::kUsage,
                    "predict labels texts, but this is a language model: use neoloom generate");
      notes.push_back(settle_format(inference.from, arguments.input, inference.config));
    }
    columns = parse_kept_columns(arguments.keep, keys_of_predictions(models));
  });
  for (const std::string& note : notes) {
    if (session.is_root() && !note.empty()) session.log().info(note);
  }
  if (filters) {
    predict_lines(session, models, columns, output);
    return 0;
  }
  std::optional<PredictionLines> lines;
  session.run_on_root([&]() -> std::string {
    lines.emplace(columns, open_kept(columns, arguments.input, first.config, cache_directory(session, first.config)));
    return "";
  });
  std::vector<Predictor> predictors;
  predictors.reserve(models.size());
  for (const Inference& inference : models) {
    predictors.push_back(open_predictor(session, inference, first, arguments.input));
  }
  predict_rows(session, predictors, output, lines);
  const data::TokenStore& store = *predictors.front().request.store;
  if (session.is_root() && store.invalid_row_count() > 0) {
    session.log().info("predict: " + unusable_rows(store, store.packs(), "have no prediction"));
  }
  return 0;
}

}  // namespace neoloom::launch
