// SPDX-License-Identifier: Apache-2.0
#include "launch/job/data_checks.h"

#include "data/readers/rows.h"
#include "data/store/packs.h"
#include "runtime/core/text.h"
#include "runtime/train/targets.h"

namespace neoloom::launch {
namespace {

data::EmptyTokens empty_tokens(const Inputs& inputs) {
  const data::Options& options = inputs.config.data;
  data::EmptyTokens empty{.text = static_cast<int64_t>(inputs.tokenizer->front_ids().size()),
                          .loss_on_prompt = !inputs.config.trainer_config.completion_only_loss,
                          .blank = data::blank_tokens(*inputs.tokenizer)};
  if (data::has_responses(options)) {
    empty.prompts = !empty.loss_on_prompt && !options.prompt_column.empty();
    if (inputs.config.tokenizer_config.add_eos_token) empty.response_end = inputs.tokenizer->eos_token_id();
  }
  if (options.text_pair_column.empty()) return empty;
  bool truncated = false;
  const auto max_length_tokens = static_cast<size_t>(resolve_max_length(inputs.config, inputs.base));
  const auto pair = inputs.tokenizer->encode_pair("", "", {max_length_tokens, false}, truncated);
  empty.text = static_cast<int64_t>(pair.size());
  return empty;
}

/// Warns of white space where the default template puts a line break.
void warn_of_blank_borders(const Inputs& inputs, const data::TokenStore& train, std::vector<std::string>& warnings) {
  if (!inputs.config.data.template_is_default || !inputs.config.trainer_config.completion_only_loss) return;
  const auto [prompts, responses] = data::blank_borders(train, *inputs.tokenizer);
  if (prompts + responses == 0) return;
  warnings.push_back(
      fmt::format("{} of {} prompts end in white space and {} responses begin with it, and the default template puts a "
                  "line break between them: data.template: joined puts nothing there, newline keeps the line break",
                  prompts, train.size(), responses));
}

/// Says what prompts and responses are made of.
std::string template_text(const data::Options& data) {
  if (!data.prompt_column.empty()) {
    if (data.prompt_template.empty()) return "joined: nothing between prompt and response";
    return fmt::format("newline{}: a line break between prompt and response",
                       data.template_is_default ? ", the default (data.template: joined puts nothing there)" : "");
  }
  const bool named = data.prompt_template == "alpaca" || data.prompt_template == "chat";
  return named ? data.prompt_template : core::quoted(data.prompt_template, 200);
}

/// Warns of keys of data that no file of the run needs.
void warn_of_idle_keys(const data::Options& data, std::vector<std::string>& warnings) {
  bool tables = false;
  bool texts = false;
  for (const std::string& name : data_file_names(data)) {
    const std::string format = data.format == "auto" ? data::format_extension(name) : data.format;
    const bool known = data.format != "auto" || data::names_a_format(name);
    const bool parquet = format == "parquet" || format == "pq";
    tables = tables || !known || format == "csv" || format == "tsv" || format == "tab";
    texts = texts || !known || !parquet;
  }
  const auto warn = [&](bool idle, const char* key, const char* what) {
    if (idle) warnings.push_back(fmt::format("data.{} has no effect: no file is {}", key, what));
  };
  warn(!tables && !data.delimiter.empty(), "delimiter", "CSV or TSV");
  warn(!tables && !data.quoting, "quoting", "CSV or TSV");
  warn(!tables && !data.header, "header", "CSV or TSV");
  warn(!texts && data.encoding != "utf-8", "encoding", "a text; Parquet has its own encoding");
}

}  // namespace

std::vector<std::string> data_file_names(const data::Options& data) {
  std::vector<std::string> names = data.train.names;
  for (const auto& [set, files] : data.validation) names.insert(names.end(), files.names.begin(), files.names.end());
  return names;
}

std::vector<std::string> target_warnings(const Inputs& inputs, const data::TokenStore& train,
                                         const std::vector<train::ValidationSet>& validation) {
  const RunConfig& config = inputs.config;
  std::vector<std::string> warnings =
      train::check_training_data({.store = train.unpacked(),
                                  .path = config.data.train.text(),
                                  .task = inputs.task.value,
                                  .max_length_tokens = resolve_max_length(config, inputs.base),
                                  .empty = empty_tokens(inputs)});
  warn_of_idle_keys(config.data, warnings);
  warn_of_blank_borders(inputs, train.unpacked(), warnings);
  const train::Options& trainer = config.trainer_config;
  const bool evaluates = trainer.eval_strategy != train::Interval::kNo || trainer.eval_on_start;
  if (!evaluates && !trainer.calibrate && !validation.empty()) {
    warnings.emplace_back(
        "nothing evaluates the validation data: set trainer_config.eval_strategy to epoch or steps, or run neoloom "
        "evaluate "
        "after the training");
  }
  if (!evaluates) return warnings;
  for (const train::ValidationSet& set : validation) {
    std::string warning = train::check_evaluation_data(set.store->unpacked(), validation_name(config, set.name));
    if (!warning.empty()) warnings.push_back(std::move(warning));
  }
  return warnings;
}

std::vector<std::string> rows_left_out(const data::TokenStore& train,
                                       const std::vector<train::ValidationSet>& validation) {
  std::vector<std::string> lines;
  const auto add = [&](const std::string& name, const data::TokenStore& store) {
    for (const data::InvalidRow& row : store.invalid_rows()) {
      lines.push_back(fmt::format("{} data, line {}: {} (row left out)", name, row.line, row.reason));
    }
  };
  add("training", train);
  for (const auto& [name, store] : validation)
    add(name.empty() ? "validation" : "validation (" + name + ")", store->unpacked());
  return lines;
}

std::vector<data::Finding> findings(const Inputs& inputs, const data::TokenStore& train,
                                    const std::vector<train::ValidationSet>& validation) {
  constexpr std::string_view kOfValidation = "validation data";
  const auto found = [&](const data::TokenStore* store) {
    return data::findings(data::inspect(train.unpacked(), store, inputs.task.value, empty_tokens(inputs)),
                          train.label_names());
  };
  if (validation.empty()) return found(nullptr);
  std::vector<data::Finding> all;
  for (const train::ValidationSet& set : validation) {
    const bool first = all.empty();
    for (data::Finding& finding : found(&set.store->unpacked())) {
      const bool own = finding.name == kOfValidation;
      if (own && !set.name.empty()) finding.name = fmt::format("{} {}", kOfValidation, set.name);
      if (own || first) all.push_back(std::move(finding));
    }
  }
  return all;
}

std::vector<data::Finding> sample_facts(const Inputs& inputs, const data::TokenStore& train) {
  std::vector<data::Finding> facts;
  if (data::has_responses(inputs.config.data)) {
    facts.push_back({"data.template", template_text(inputs.config.data)});
  }
  if (!train.pack_begins().empty()) {
    facts.push_back({"data.pack", data::pack_summary(train, resolve_max_length(inputs.config, inputs.base))});
  }
  return facts;
}

}  // namespace neoloom::launch
