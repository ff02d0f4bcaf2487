// SPDX-License-Identifier: Apache-2.0
#include "launch/commands/evaluate.h"

#include <nlohmann/json.hpp>

#include "launch/job/inference.h"
#include "runtime/core/error.h"
#include "runtime/core/output.h"
#include "runtime/train/targets.h"

namespace neoloom::launch {
namespace {

/// Returns what to evaluate on: --data, else the run's validation files, else its training file, which it splits.
std::vector<data::ValidationFiles> files_of(const EvaluateArguments& arguments, const data::Options& run) {
  if (!arguments.data.empty()) return {{"", data::Files(arguments.data)}};
  if (!run.validation.empty() || run.validation_split == 0) return run.validation;
  return {{"", run.train}};
}

/// Names a model and a set, where there are several.
std::string heading(const std::string& model, const std::string& set) {
  return model + (model.empty() || set.empty() ? "" : ", ") + set;
}

/// Evaluates a model on one set. Returns its values and tables on rank 0. Collective: every rank.
nlohmann::ordered_json evaluate_set(comm::MpiSession& session, const EvaluateArguments& arguments, Inference& inference,
                                    const data::ValidationFiles& set) {
  const bool splits = arguments.data.empty() && inference.config.data.validation_split > 0;
  data::StoreRequest request;
  std::string note;
  session.run_on_all_or_fail([&] {
    note = settle_format(inference.from, set.files.names.front(), inference.config);
    request = store_request(inference.config, inference.task, inference.base, set.files);
    if (inference.task.classifies()) request.label_names = inference.labels;
  });
  auto store = open_store(session, request, *inference.tokenizer, cache_directory(session, inference.config));
  session.run_on_all_or_fail([&] {
    if (splits) store = split_for_validation(inference.config, store).validation;
    const std::string warning = train::check_evaluation_data(*store, set.files.text());
    if (!warning.empty() && session.is_root()) session.log().warning(warning);
  });
  if (session.is_root() && !note.empty()) session.log().info(note);
  if (session.is_root() && store->invalid_row_count() > 0) {
    const int64_t rows = store->invalid_row_count() + store->packs();
    session.log().info("evaluate: " + unusable_rows(*store, rows, "were left out"));
  }
  note_long_rows(session, *store);
  session.run_on_all_or_fail([&] { store = in_packs(store, request); });
  const train::EvalResult result = evaluate(session, inference, store);
  if (!session.is_root()) return {};
  nlohmann::ordered_json json = result.json();
  json["eval_runtime"] = result.seconds;
  json["eval_samples_per_second"] = static_cast<double>(result.samples) / result.seconds;
  json.update(result.tables(inference.labels));
  const std::string name = heading(inference.name, set.name);
  if (const std::string tables = result.text_tables(inference.labels); !tables.empty()) {
    session.log().info((name.empty() ? "" : name + ":\n") + tables);
  }
  const std::string warning = result.warning_of_one_prediction(inference.labels);
  if (!warning.empty()) session.log().warning((name.empty() ? "" : name + ": ") + warning);
  return train::for_set(set.name, json);
}

}  // namespace

int run_evaluate(comm::MpiSession& session, const EvaluateArguments& arguments) {
  session.run_on_root([&]() -> std::string {
    if (!arguments.output.empty()) core::prepare_output_file(arguments.output);
    return "";
  });
  nlohmann::ordered_json json = nlohmann::ordered_json::object();
  std::vector<Inference> models = load_models(session, arguments.models);
  for (Inference& inference : models) {
    nlohmann::ordered_json& told = inference.name.empty() ? json : json[inference.name];
    const std::vector<data::ValidationFiles> sets = files_of(arguments, inference.config.data);
    session.run_on_all_or_fail(
        [&] { core::require(!sets.empty(), core::ErrorKind::kUsage, "no data to evaluate on: give --data FILE"); });
    for (const data::ValidationFiles& set : sets) {
      const nlohmann::ordered_json values = evaluate_set(session, arguments, inference, set);
      if (session.is_root()) told.update(values);
    }
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
