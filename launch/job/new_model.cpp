// SPDX-License-Identifier: Apache-2.0
#include "launch/job/new_model.h"

#include <fmt/format.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "model/checkpoints/new_model.h"
#include "runtime/core/error.h"
#include "runtime/core/hash.h"

namespace neoloom::launch {
namespace {

using nlohmann::ordered_json;

// Layers of GPTNeoConfig's default kind: global and local in turn.
ordered_json alternating(int64_t num_layers) {
  ordered_json types = ordered_json::array();
  if (num_layers > 1) types.push_back({{"global", "local"}, num_layers / 2});
  if (num_layers % 2 == 1) types.push_back({ordered_json::array({"global"}), 1});
  return types;
}

ordered_json attention_types(const model::Options& options, int64_t num_layers) {
  if (options.attention_types.empty()) return alternating(num_layers);
  ordered_json types = ordered_json::array();
  for (const auto& [names, count] : options.attention_types) types.push_back({names, count});
  return types;
}

std::string config_json(const model::Options& options, const data::Tokenizer& tokenizer) {
  const model::GptNeoConfig defaults;
  const int64_t hidden = options.hidden_size.value_or(defaults.hidden_size);
  const int64_t layers = options.num_layers.value_or(defaults.num_layers);
  ordered_json json = {
      {"architectures", {"GPTNeoForCausalLM"}},
      {"model_type", "gpt_neo"},
      {"vocab_size", options.vocab_size.value_or(tokenizer.vocab_size())},
      {"max_position_embeddings", options.max_position_embeddings.value_or(defaults.max_position_embeddings)},
      {"hidden_size", hidden},
      {"num_layers", layers},
      {"num_heads", options.num_heads.value_or(defaults.num_heads)},
      {"intermediate_size", options.intermediate_size.value_or(4 * hidden)},
      {"window_size", options.window_size.value_or(defaults.window_size)},
      {"activation_function", "gelu_new"},
      {"attention_types", attention_types(options, layers)},
      {"layer_norm_epsilon", options.layer_norm_epsilon.value_or(defaults.layer_norm_epsilon)},
      {"initializer_range", options.initializer_range.value_or(defaults.initializer_range)},
      {"tie_word_embeddings", options.tie_word_embeddings.value_or(defaults.tie_word_embeddings)},
      {"embed_dropout", options.embed_dropout.value_or(0.0)},
      {"attention_dropout", options.attention_dropout.value_or(0.0)},
      {"resid_dropout", options.resid_dropout.value_or(0.0)},
      {"bos_token_id", tokenizer.eos_token_id()},
      {"eos_token_id", tokenizer.eos_token_id()},
      {"torch_dtype", "float32"}};
  if (!options.attention_layers.empty()) {
    json.erase("attention_types");
    json["attention_layers"] = options.attention_layers;
  }
  return json.dump(2) + "\n";
}

}  // namespace

bool is_new_model(const model::Options& options) {
  return options.pretrained_model_name.empty() &&
         static_cast<const model::NewModelOptions&>(options) != model::NewModelOptions{};
}

model::GptNeoConfig new_model_config(const model::Options& options, const data::Tokenizer& tokenizer) {
  core::require(tokenizer.eos_token_id() >= 0, core::ErrorKind::kUsage,
                "tokenizer_config.pretrained_tokenizer_name: the tokenizer has no end-of-text token, which a new model "
                "needs; expected eos_token in its tokenizer_config.json");
  try {
    return model::GptNeoConfig::from_text("model_config", config_json(options, tokenizer));
  } catch (const core::Error& error) {
    core::fail(core::ErrorKind::kUsage, "{}", error.what());
  }
}

std::string new_model_folder(const model::GptNeoConfig& config, uint64_t seed, const core::Cache& cache) {
  const std::string key = core::Sha256().add_field(config.json).add_field(std::to_string(seed)).hex();
  std::string folder = fmt::format("{}/new-model-{}", cache.directory, key.substr(0, 16));
  const bool present = cache.use(folder, [&] {
    core::require(std::filesystem::exists(folder + "/model.safetensors"), core::ErrorKind::kWeights,
                  "model.safetensors is missing");
  });
  if (!present) model::write_new_model(folder, config, seed, cache);
  return folder;
}

}  // namespace neoloom::launch
