// SPDX-License-Identifier: Apache-2.0
#include "launch/commands/evaluate.h"

#include <nlohmann/json.hpp>

#include "launch/job/inference.h"
#include "runtime/core/error.h"
#include "runtime/core/output.h"
#include "runtime/train/targets.h"

namespace neoloom::launch {
namespace {

std::shared_ptr<const data::TokenStore> open_data(comm::MpiSession& session, const std::string& data,
                                                  Inference& inference) {
  data::Files files = data.empty() ? inference.config.data.validation : data::Files(data);
  const bool splits = files.empty() && inference.config.data.validation_split > 0;
  if (splits) files = inference.config.data.train;
  data::StoreRequest request;
  std::string note;
  session.run_on_all_or_fail([&] {
    core::require(!files.empty(), core::ErrorKind::kUsage, "no data to evaluate on: give --data FILE");
    note = settle_format(inference.from, files.names.front(), inference.config);
    request = store_request(inference.config, inference.task, inference.base, files);
    if (inference.task.classifies()) request.label_names = inference.labels;
  });
  auto store = open_store(session, request, *inference.tokenizer, cache_directory(session, inference.config));
  session.run_on_all_or_fail([&] {
    if (splits) store = split_for_validation(inference.config, store).validation;
    const std::string warning = train::check_evaluation_data(*store, files.text());
    if (!warning.empty() && session.is_root()) session.log().warning(warning);
  });
  if (session.is_root() && !note.empty()) session.log().info(note);
  if (session.is_root() && store->invalid_row_count() > 0) {
    const int64_t rows = store->invalid_row_count() + store->size();
    session.log().info("evaluate: " + unusable_rows(*store, rows, "were left out"));
  }
  return store;
}

/// Returns a model's values and tables, and prints the tables. Collective: every rank.
nlohmann::ordered_json evaluate_model(comm::MpiSession& session, const std::string& data, Inference& inference) {
  const train::EvalResult result = evaluate(session, inference, open_data(session, data, inference));
  nlohmann::ordered_json json = result.json();
  json["eval_runtime"] = result.seconds;
  json["eval_samples_per_second"] = static_cast<double>(result.samples) / result.seconds;
  json.update(result.tables(inference.labels));
  if (!session.is_root()) return json;
  const std::string name = inference.name.empty() ? "" : inference.name + ": ";
  if (const std::string tables = result.text_tables(inference.labels); !tables.empty()) {
    session.log().info((name.empty() ? "" : name + "\n") + tables);
  }
  const std::string warning = result.warning_of_one_prediction(inference.labels);
  if (!warning.empty()) session.log().warning(name + warning);
  return json;
}

}  // namespace

int run_evaluate(comm::MpiSession& session, const EvaluateArguments& arguments) {
  session.run_on_root([&]() -> std::string {
    if (!arguments.output.empty()) core::prepare_output_file(arguments.output);
    return "";
  });
  nlohmann::ordered_json json;
  std::vector<Inference> models = load_models(session, arguments.models);
  for (Inference& inference : models) {
    (inference.name.empty() ? json : json[inference.name]) = evaluate_model(session, arguments.data, inference);
  }
  const auto phase = session.phase("writing the result");
  session.run_on_root([&]() -> std::string {
    const std::string text = json.dump() + "\n";
    // Writes the file first: somebody may wait for it, while printing may fail because nobody reads standard output.
    if (!arguments.output.empty()) core::write_output_file(arguments.output, text);
    core::print_output(text);
    return "";
  });
  return 0;
}

}  // namespace neoloom::launch
