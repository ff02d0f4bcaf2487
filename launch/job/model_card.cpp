// SPDX-License-Identifier: Apache-2.0
#include "launch/job/model_card.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "launch/job/model_use.h"
#include "launch/version.h"
#include "model/checkpoints/hub.h"

namespace neoloom::launch {
namespace {

using nlohmann::json;

constexpr size_t kMostLabelsInText = 100;

/// A number of YAML 1.1, which wants a point in it: 1.0e-05.
std::string yaml(double value) {
  std::string text = fmt::format("{:.6g}", value);
  const size_t exponent = std::min(text.find('e'), text.size());
  if (text.find('.') == std::string::npos) text.insert(exponent, ".0");
  return text;
}

std::string file_names(const data::Files& files) {
  std::vector<std::string> names;
  for (const std::string& path : files.names) names.push_back(std::filesystem::path(path).filename().string());
  return data::Files(names).text();
}

std::string title(const CardFacts& facts) {
  const std::filesystem::path folder(facts.config.trainer_config.output_dir);
  const std::string name = (folder.has_filename() ? folder : folder.parent_path()).filename().string();
  return facts.train_samples > 0 && !name.empty() ? name : facts.adapter ? "LoRA of GPT-Neo" : "GPT-Neo";
}

std::string pipeline(const CardFacts& facts) {
  return facts.task.classifies() ? "text-classification" : "text-generation";
}

/// What an evaluation found on one validation set.
struct EvaluatedSet {
  std::string files;
  int64_t samples = 0;
  std::vector<std::pair<std::string, double>> metrics;  // finite numbers, by their names without `eval_` and the set's
};

/// Returns the name of the set that a key of an `eval` event speaks of: the longest that it begins with.
std::string set_of(const std::string& key, const std::vector<data::ValidationFiles>& sets) {
  std::string longest;
  for (const auto& [name, files] : sets) {
    if (name.size() > longest.size() && key.starts_with("eval_" + name + "_")) longest = name;
  }
  return longest;
}

std::vector<EvaluatedSet> evaluated_sets(const CardFacts& facts, const json& evaluation) {
  const data::Options& data = facts.config.data;
  std::vector<data::ValidationFiles> sets = data.validation;
  if (sets.empty()) sets.push_back({"", data.train});
  std::vector<EvaluatedSet> found;
  for (const auto& [name, files] : sets) {
    EvaluatedSet& set = found.emplace_back();
    set.files = (data.validation.empty() ? "a part of " : "") + file_names(files);
    const std::string prefix = name.empty() ? "eval_" : "eval_" + name + "_";
    for (const auto& [key, value] : evaluation.items()) {
      if (!key.starts_with(prefix) || set_of(key, sets) != name) continue;
      const std::string metric = key.substr(prefix.size());
      if (metric == "samples" && value.is_number_integer()) set.samples = value.get<int64_t>();
      if (!value.is_number_float() || !std::isfinite(value.get<double>())) continue;
      set.metrics.emplace_back(metric, value.get<double>());
    }
    if (set.metrics.empty()) found.pop_back();
  }
  return found;
}

/// Returns the hub's name of a metric.
std::string metric_type(const std::string& name) {
  if (name == "macro_f1" || name == "micro_f1" || name == "weighted_f1") return "f1";
  if (name == "mcc") return "matthews_correlation";
  if (name == "pearson") return "pearsonr";
  return name;
}

std::string model_index(const CardFacts& facts, const json& evaluation) {
  const std::vector<EvaluatedSet> sets = evaluated_sets(facts, evaluation);
  if (sets.empty()) return "";
  std::string text = fmt::format("model-index:\n- name: {}\n  results:\n", card_literal(title(facts)));
  for (const EvaluatedSet& set : sets) {
    text += fmt::format("  - task:\n      type: {0}\n    dataset:\n      type: {1}\n      name: {1}\n    metrics:\n",
                        pipeline(facts), card_literal(set.files));
    for (const auto& [name, value] : set.metrics) {
      text += fmt::format("    - type: {}\n      value: {}\n      name: {}\n", metric_type(name), yaml(value), name);
    }
  }
  return text;
}

std::string front_matter(const CardFacts& facts, const json& evaluation) {
  const std::string& base = facts.base.name;
  std::string text = "---\n";
  if (!base.empty()) text += fmt::format("base_model: {}\n", card_literal(base));
  text += fmt::format("library_name: {}\npipeline_tag: {}\ntags:\n", facts.adapter ? "peft" : "transformers",
                      pipeline(facts));
  if (!base.empty()) {
    text +=
        fmt::format("- {}\n", card_literal((facts.adapter ? "base_model:adapter:" : "base_model:finetune:") + base));
  }
  if (facts.adapter) text += "- lora\n- transformers\n";
  text += "- neoloom\n";
  if (facts.task.classifies()) {
    text += "labels:\n";
    for (const std::string& label : facts.labels) text += fmt::format("- {}\n", card_literal(label));
  }
  return text + model_index(facts, evaluation) + "---\n";
}

std::string what_it_does(const CardFacts& facts) {
  const size_t count = facts.labels.size();
  if (facts.task.regression()) return fmt::format("predicts {} value{} of a text", count, count == 1 ? "" : "s");
  if (facts.task.multi_label()) return fmt::format("says which of {} labels apply to a text", count);
  if (facts.task.classifies()) return fmt::format("gives a text one of {} labels", count);
  return "continues texts";
}

std::string base_link(const BaseReference& base) {
  return model::is_local_path(base.name) ? card_text(base.name)
                                         : fmt::format("[{0}](https://huggingface.co/{0})", base.name);
}

std::string introduction(const CardFacts& facts) {
  const std::string made = facts.adapter             ? "A LoRA adapter for " + base_link(facts.base)
                           : facts.base.name.empty() ? "A GPT-Neo model"
                                                     : "A GPT-Neo model, fine-tuned from " + base_link(facts.base);
  return fmt::format("\n# {}\n\n{} that {}. neoloom made it, in the file formats of {}.\n", card_text(title(facts)),
                     made, what_it_does(facts), facts.adapter ? "PEFT" : "transformers");
}

/// The cells are Markdown.
std::string table(const std::string& left, const std::string& right,
                  const std::vector<std::pair<std::string, std::string>>& rows) {
  std::string text = fmt::format("\n| {} | {} |\n| --- | --- |\n", left, right);
  for (const auto& [name, value] : rows) text += fmt::format("| {} | {} |\n", name, value);
  return text;
}

std::string training(const CardFacts& facts) {
  if (facts.train_samples == 0) return "";
  const train::Options& trainer = facts.config.trainer_config;
  std::vector<std::pair<std::string, std::string>> rows = {
      {"data", fmt::format("{}, {} samples", card_text(file_names(facts.config.data.train)), facts.train_samples)},
      {"steps", fmt::format("{}", facts.step)},
      {"learning rate", fmt::format("{:g}, {}", trainer.learning_rate, facts.config.trainer_config.lr_scheduler_type)},
      {"seed", fmt::format("{}", trainer.seed)}};
  if (facts.config.peft_config) {
    const model::LoraOptions& lora = *facts.config.peft_config;
    rows.emplace_back("LoRA",
                      fmt::format("r {}, lora_alpha {:g}, dropout {:g}", lora.r, lora.lora_alpha, lora.lora_dropout));
  }
  return "\n## Training procedure\n" + table("", "", rows);
}

std::string evaluation_text(const CardFacts& facts, const json& evaluation) {
  std::string text;
  for (const EvaluatedSet& set : evaluated_sets(facts, evaluation)) {
    std::vector<std::pair<std::string, std::string>> rows;
    for (const auto& [name, value] : set.metrics) rows.emplace_back(name, fmt::format("{:.4f}", value));
    text += fmt::format("\nOf {} samples of {}, after step {}:\n", set.samples, card_text(set.files),
                        evaluation.value("step", int64_t{0})) +
            table("metric", "value", rows);
  }
  return text.empty() ? "" : "\n## Evaluation\n" + text;
}

std::string label_text(const CardFacts& facts) {
  if (!facts.task.classifies() || facts.task.regression() || facts.labels.size() > kMostLabelsInText) return "";
  std::vector<std::pair<std::string, std::string>> rows;
  for (size_t i = 0; i < facts.labels.size(); ++i) rows.emplace_back(std::to_string(i), card_text(facts.labels[i]));
  return "\n## Labels\n" + table("id", "label", rows);
}

}  // namespace

std::string model_card(const CardFacts& facts, const json& evaluation) {
  return front_matter(facts, evaluation) + introduction(facts) + model_use(facts) + training(facts) +
         evaluation_text(facts, evaluation) + label_text(facts) +
         fmt::format("\n### Framework versions\n\n- neoloom {}\n", version());
}

}  // namespace neoloom::launch
