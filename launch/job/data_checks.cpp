// SPDX-License-Identifier: Apache-2.0
#include "launch/job/data_checks.h"

#include "runtime/train/targets.h"

namespace neoloom::launch {
namespace {

/// Returns how many tokens an empty text has.
int64_t empty_text_tokens(const Inputs& inputs) {
  if (inputs.config.data.text_pair_column.empty()) return static_cast<int64_t>(inputs.tokenizer->front_ids().size());
  bool truncated = false;
  const auto max_length_tokens = static_cast<size_t>(resolve_max_length(inputs.config, inputs.base));
  return static_cast<int64_t>(inputs.tokenizer->encode_pair("", "", {max_length_tokens, false}, truncated).size());
}

}  // namespace

std::vector<std::string> target_warnings(const Inputs& inputs, const data::TokenStore& train,
                                         const data::TokenStore* validation) {
  const RunConfig& config = inputs.config;
  std::vector<std::string> warnings =
      train::check_training_data({.store = train,
                                  .path = config.data.train.text(),
                                  .task = inputs.task.value,
                                  .max_length_tokens = resolve_max_length(config, inputs.base),
                                  .empty_text_tokens = empty_text_tokens(inputs)});
  const train::Options& trainer = config.trainer_config;
  const bool evaluates = trainer.eval_strategy != train::Interval::kNo || trainer.eval_on_start;
  if (validation == nullptr || !evaluates) return warnings;
  std::string warning = train::check_evaluation_data(*validation, validation_name(config));
  if (!warning.empty()) warnings.push_back(std::move(warning));
  return warnings;
}

std::vector<data::Finding> findings(const Inputs& inputs, const data::TokenStore& train,
                                    const data::TokenStore* validation) {
  return data::findings(data::inspect(train, validation, inputs.task.value, empty_text_tokens(inputs)),
                        train.label_names());
}

}  // namespace neoloom::launch
