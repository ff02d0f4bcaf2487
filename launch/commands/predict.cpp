// SPDX-License-Identifier: Apache-2.0
#include "launch/commands/predict.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <unordered_map>

#include "launch/job/inference.h"
#include "runtime/core/error.h"
#include "runtime/core/output.h"

namespace neoloom::launch {
namespace {

nlohmann::ordered_json named_scores(const std::vector<std::string>& labels, const float* scores) {
  nlohmann::ordered_json json = nlohmann::ordered_json::object();
  for (size_t k = 0; k < labels.size(); ++k) json[labels[k]] = scores[k];
  return json;
}

std::string single_label_line(int64_t index, const std::vector<std::string>& labels, const float* scores) {
  const auto best = static_cast<size_t>(std::max_element(scores, scores + labels.size()) - scores);
  const nlohmann::ordered_json json = {
      {"index", index}, {"label", labels[best]}, {"score", scores[best]}, {"scores", named_scores(labels, scores)}};
  return json.dump() + "\n";
}

std::string value_line(int64_t index, const float* values, size_t count) {
  nlohmann::ordered_json json = {{"index", index}};
  if (count == 1) {
    json["value"] = values[0];
  } else {
    json["values"] = std::vector<float>(values, values + count);
  }
  return json.dump() + "\n";
}

std::string multi_label_line(int64_t index, const std::vector<std::string>& labels, const float* scores) {
  nlohmann::ordered_json chosen = nlohmann::ordered_json::array();
  for (size_t k = 0; k < labels.size(); ++k) {
    if (scores[k] > 0.5F) chosen.push_back(labels[k]);
  }
  const nlohmann::ordered_json json = {{"index", index}, {"labels", chosen}, {"scores", named_scores(labels, scores)}};
  return json.dump() + "\n";
}

/// Makes the output lines of this rank's shard, one a row.
class Lines {
 public:
  Lines(const Inference& inference, const data::TokenStore& store)
      : inference_(inference), multi_(inference.task.multi_label()) {
    for (const data::InvalidRow& row : store.invalid_rows()) reasons_.emplace(row.sample, row.reason);
  }

  void add(int64_t first, const at::Tensor& logits) {
    const at::Tensor scores = train::class_scores(inference_.task.value, logits);
    for (int64_t i = 0; i < scores.size(0); ++i) {
      const float* row = scores.const_data_ptr<float>() + i * scores.size(1);
      text_ += line(first + i, row);
    }
  }
  const std::string& text() const { return text_; }

 private:
  /// Returns what a row without a prediction lacks.
  const char* missing() const {
    if (inference_.task.regression()) return inference_.labels.size() == 1 ? "value" : "values";
    return multi_ ? "labels" : "label";
  }

  std::string line(int64_t index, const float* scores) const {
    if (const auto unusable = reasons_.find(index); unusable != reasons_.end()) {
      const nlohmann::ordered_json json = {{"index", index}, {missing(), nullptr}, {"error", unusable->second}};
      return json.dump() + "\n";
    }
    if (inference_.task.regression()) return value_line(index, scores, inference_.labels.size());
    return multi_ ? multi_label_line(index, inference_.labels, scores)
                  : single_label_line(index, inference_.labels, scores);
  }

  const Inference& inference_;
  bool multi_;
  std::unordered_map<int64_t, std::string> reasons_;  // by row
  std::string text_;
};

}  // namespace

int run_predict(comm::MpiSession& session, const PredictArguments& arguments) {
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
    request = store_request(inference.config, inference.task, inference.base, arguments.input);
    request.label_names = inference.labels;
    request.require_labels = false;
    request.every_row = true;
    // A prediction does not need the labels of the file.
    request.options.label_column.clear();
    request.options.labels_column.clear();
  });
  if (session.is_root() && !note.empty()) session.log().info(note);
  const auto store = open_store(session, request, *inference.tokenizer, cache_directory(session, inference.config));
  Lines mine(inference, *store);
  evaluate(session, inference, store, [&](int64_t first, const at::Tensor& logits) { mine.add(first, logits); });
  const auto phase = session.phase("writing the result");
  // Shards are contiguous and ascend with the rank, so the texts join in row order.
  std::string all;
  for (const std::string& part : session.all_gather(mine.text())) all += part;
  session.run_on_root([&]() -> std::string {
    if (arguments.output.empty()) {
      core::print_output(all);
    } else {
      core::write_output_file(arguments.output, all);
    }
    return "";
  });
  if (session.is_root() && store->invalid_row_count() > 0) {
    session.log().info("predict: " + unusable_rows(*store, store->size(), "have no prediction"));
  }
  return 0;
}

}  // namespace neoloom::launch
