// SPDX-License-Identifier: Apache-2.0
#include "launch/commands/predict.h"

#include <ATen/ops/sigmoid.h>
#include <ATen/ops/softmax.h>

#include <algorithm>
#include <iostream>
#include <nlohmann/json.hpp>

#include "launch/inference.h"
#include "runtime/core/error.h"
#include "runtime/core/files.h"
#include "runtime/train/evaluator.h"

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

std::string multi_label_line(int64_t index, const std::vector<std::string>& labels, const float* scores) {
  nlohmann::ordered_json chosen = nlohmann::ordered_json::array();
  for (size_t k = 0; k < labels.size(); ++k) {
    if (scores[k] > 0.5F) chosen.push_back(labels[k]);
  }
  const nlohmann::ordered_json json = {{"index", index}, {"labels", chosen}, {"scores", named_scores(labels, scores)}};
  return json.dump() + "\n";
}

std::string lines_of_batch(const Inference& inference, int64_t first, const at::Tensor& logits) {
  const bool multi = inference.task.problem_type == data::ProblemType::kMultiLabel;
  const at::Tensor scores = (multi ? at::sigmoid(logits) : at::softmax(logits, -1)).cpu().contiguous();
  std::string lines;
  for (int64_t i = 0; i < scores.size(0); ++i) {
    const float* row = scores.const_data_ptr<float>() + i * scores.size(1);
    lines += multi ? multi_label_line(first + i, inference.labels, row)
                   : single_label_line(first + i, inference.labels, row);
  }
  return lines;
}

}  // namespace

int run_predict(comm::MpiSession& session, const PredictArguments& arguments) {
  Inference inference = load_inference(session, arguments.model);
  data::StoreRequest request;
  session.all_or_none([&] {
    core::require(inference.task.classifies(), core::ErrorKind::kUsage,
                  "predict labels texts, but this is a language model: use neoloom generate");
    request = store_request(inference.config, inference.task, inference.base, arguments.input);
    request.label_names = inference.labels;
    request.require_labels = false;
    request.options.invalid_data_tolerance_percent = 0.0;  // one line per input row, in order
  });
  const auto store = open_store(session, request, *inference.tokenizer, cache_directory(inference.config));
  std::string mine;
  train::evaluate(session, *inference.model, inference.params,
                  {.store = store,
                   .task = inference.task.task,
                   .problem_type = inference.task.problem_type,
                   .batch_size = inference.config.trainer_config.per_device_eval_batch_size,
                   .pad_id = inference.pad_id},
                  [&](int64_t first, const at::Tensor& logits) { mine += lines_of_batch(inference, first, logits); });
  // Shares are contiguous and ascending in rank, so the texts join in row order.
  std::string all;
  for (const std::string& part : session.all_gather(mine)) all += part;
  session.on_root([&]() -> std::string {
    if (arguments.output.empty()) {
      std::cout << all << std::flush;
    } else {
      core::publish_file(arguments.output, all, core::ErrorKind::kUsage);
    }
    return "";
  });
  return 0;
}

}  // namespace neoloom::launch
