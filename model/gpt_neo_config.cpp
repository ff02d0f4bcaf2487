// SPDX-License-Identifier: Apache-2.0
#include "model/gpt_neo_config.h"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "model/config_notes.h"
#include "runtime/core/error.h"
#include "runtime/core/files.h"
#include "runtime/core/json.h"
#include "runtime/core/text.h"

namespace neoloom::model {

namespace {

using core::ErrorKind;
using nlohmann::json;

constexpr size_t kLongestValueBytes = 400;  // in a message
// These limits are far above every GPT-Neo, and low enough that no product of sizes exceeds 64 bits.
constexpr int64_t kLargestExtent = int64_t{1} << 24;
constexpr int64_t kLargestWidth = int64_t{1} << 18;
constexpr int64_t kMostLayers = 4096;
constexpr int64_t kMostParameters = int64_t{1} << 44;
constexpr size_t kMaxConfigBytes = size_t{16} << 20;
constexpr int64_t kMostLabels = 1 << 20;

/// Reads keys of one config.json; every error names the file, the key, what was expected and what was found.
class Reader {
 public:
  Reader(const std::string& path, std::string text) : path_(path), text_(std::move(text)) {
    object_ = core::parse_json(text_, path, ErrorKind::kWeights);
    core::require(object_.is_object(), ErrorKind::kWeights, "{}: expected a JSON object, found {}", path,
                  object_.type_name());
  }

  const std::string& text() const { return text_; }

  /// Returns the value of the first key that is present and not null, else nullptr.
  const json* find(std::initializer_list<const char*> keys) const {
    for (const char* key : keys) {
      const auto it = object_.find(key);
      if (it != object_.end() && !it->is_null()) return &*it;
    }
    return nullptr;
  }

  int64_t integer(std::initializer_list<const char*> keys, int64_t fallback, int64_t least,
                  int64_t most = kLargestExtent) const {
    const json* value = find(keys);
    if (value == nullptr) return fallback;
    if (!core::json_integer_within(*value, least, most)) {
      refuse(*keys.begin(), fmt::format("an integer from {} to {}", least, most), *value);
    }
    return value->get<int64_t>();
  }

  double number(const char* key, double fallback) const {
    const json* value = find({key});
    if (value == nullptr) return fallback;
    if (!value->is_number()) refuse(key, "a number", *value);
    return value->get<double>();
  }

  std::string text_of(const char* key, const std::string& fallback) const {
    const json* value = find({key});
    if (value == nullptr) return fallback;
    if (!value->is_string()) refuse(key, "a string", *value);
    return value->get<std::string>();
  }

  bool boolean(const char* key, bool fallback) const {
    const json* value = find({key});
    if (value == nullptr) return fallback;
    if (!value->is_boolean()) refuse(key, "true or false", *value);
    return value->get<bool>();
  }

  [[noreturn]] void refuse(const char* key, const std::string& expected, const json& found) const {
    core::fail(ErrorKind::kWeights, "{}: key \"{}\": expected {}, found {}", path_, key, expected,
               core::printable(found.dump(), kLongestValueBytes));
  }

 private:
  std::string path_;
  std::string text_;
  json object_;
};

bool is_local(const Reader& reader, const char* key, const json& name) {
  if (name != "global" && name != "local") reader.refuse(key, "\"global\" or \"local\"", name);
  return name == "local";
}

/// Expands [[["global", "local"], 12]]: each list of types is repeated `count` times.
std::vector<bool> expand_attention_types(const Reader& reader, const json& types, int64_t num_layers) {
  constexpr const char* kKey = "attention_types";
  constexpr const char* kShape = "a list of [[\"global\" | \"local\", ...], count]";
  std::vector<bool> local;
  if (!types.is_array()) reader.refuse(kKey, kShape, types);
  for (const json& item : types) {
    const bool well_formed =
        item.is_array() && item.size() == 2 && item[0].is_array() && core::json_integer_within(item[1], 0, num_layers);
    if (!well_formed) reader.refuse(kKey, kShape, item);
    for (int64_t repeat = 0; repeat < item[1].get<int64_t>(); ++repeat) {
      for (const json& name : item[0]) local.push_back(is_local(reader, kKey, name));
      if (static_cast<int64_t>(local.size()) > num_layers) return local;  // too many already
    }
  }
  return local;
}

/// Reads the type of each layer. As in transformers, attention_layers goes before attention_types.
std::vector<bool> read_attention_layers(const Reader& reader, int64_t num_layers) {
  std::vector<bool> local;
  const char* key = "attention_types";
  if (const json* layers = reader.find({"attention_layers"})) {
    key = "attention_layers";
    if (!layers->is_array()) reader.refuse(key, "a list", *layers);
    for (const json& name : *layers) local.push_back(is_local(reader, key, name));
  } else if (const json* types = reader.find({"attention_types"})) {
    local = expand_attention_types(reader, *types, num_layers);
  } else {
    for (int64_t layer = 0; layer < num_layers; ++layer) local.push_back(layer % 2 == 1);
  }
  if (static_cast<int64_t>(local.size()) != num_layers) {
    reader.refuse(key, fmt::format("{} layers (num_layers)", num_layers), json(local.size()));
  }
  return local;
}

std::vector<std::string> read_labels(const Reader& reader) {
  const json* id2label = reader.find({"id2label"});
  if (id2label == nullptr) {
    // transformers names classes like this when the file has only their number.
    std::vector<std::string> names(
        static_cast<size_t>(std::min<int64_t>(reader.integer({"num_labels"}, 0, 0), kMostLabels)));
    for (size_t index = 0; index < names.size(); ++index) names[index] = fmt::format("LABEL_{}", index);
    return names;
  }
  if (!id2label->is_object()) reader.refuse("id2label", "an object from index to name", *id2label);
  std::vector<std::string> labels(id2label->size());
  for (size_t index = 0; index < labels.size(); ++index) {
    const auto it = id2label->find(std::to_string(index));
    if (it == id2label->end() || !it->is_string()) {
      reader.refuse("id2label", fmt::format("names for the indices 0 to {}", labels.size() - 1), *id2label);
    }
    labels[index] = it->get<std::string>();
  }
  return labels;
}

/// Adds what transformers leaves out of a classifier's file: the two default labels, and the problem type, which it
/// derives from the labels of the first batch. That is single-label, or regression if there is only one output.
void complete_classifier(const Reader& reader, GptNeoConfig& config) {
  const json* architectures = reader.find({"architectures"});
  if (architectures == nullptr || !architectures->is_array()) return;
  if (std::find(architectures->begin(), architectures->end(), json("GPTNeoForSequenceClassification")) ==
      architectures->end()) {
    return;
  }
  if (config.labels.empty()) config.labels = {"LABEL_0", "LABEL_1"};
  if (!config.problem_type.empty()) return;
  config.problem_type = config.labels.size() > 1 ? "single_label_classification" : "regression";
}

void check_supported(const Reader& reader) {
  const json* type = reader.find({"model_type"});
  if (type == nullptr || *type != "gpt_neo") {
    reader.refuse("model_type", "\"gpt_neo\"", type == nullptr ? json(nullptr) : *type);
  }
  const json activation = reader.text_of("activation_function", "gelu_new");
  if (activation != "gelu_new") reader.refuse("activation_function", "\"gelu_new\"", activation);
}

double read_dropout(const Reader& reader, const char* key) {
  const double dropout = reader.number(key, 0.0);
  if (dropout < 0.0 || dropout > 1.0) reader.refuse(key, "a number from 0 to 1", json(dropout));
  return dropout;
}

void read_special_tokens(const Reader& reader, GptNeoConfig& config) {
  config.bos_token_id = reader.integer({"bos_token_id"}, config.bos_token_id, 0);
  config.pad_token_id = reader.integer({"pad_token_id"}, -1, -1);
  const json* eos = reader.find({"eos_token_id"});
  if (eos == nullptr) return;
  const json& first = eos->is_array() && !eos->empty() ? eos->front() : *eos;
  if (!core::json_integer_within(first, INT64_MIN, INT64_MAX))
    reader.refuse("eos_token_id", "an integer or a list of integers", *eos);
  config.eos_token_id = first.get<int64_t>();
}

}  // namespace

int64_t GptNeoConfig::body_parameters() const {
  const int64_t h = hidden_size;
  const int64_t ff = intermediate_size;
  const int64_t block = 4 * h * h + 2 * ff * h + ff + 6 * h;  // 4 biases and scales of LayerNorm, 2 biases of width h
  const int64_t head = tie_word_embeddings ? 0 : vocab_size * h;
  return vocab_size * h + max_position_embeddings * h + num_layers * block + 2 * h + head;
}

GptNeoConfig GptNeoConfig::from_file(const std::string& path) {
  return from_text(path, core::read_file(path, ErrorKind::kWeights, kMaxConfigBytes));
}

GptNeoConfig GptNeoConfig::from_text(const std::string& name, std::string text) {
  const Reader reader(name, std::move(text));
  check_supported(reader);
  GptNeoConfig config;
  config.json = reader.text();
  config.vocab_size = reader.integer({"vocab_size"}, config.vocab_size, 1);
  config.max_position_embeddings = reader.integer({"max_position_embeddings"}, config.max_position_embeddings, 1);
  config.hidden_size = reader.integer({"hidden_size"}, config.hidden_size, 1, kLargestWidth);
  config.num_layers = reader.integer({"num_layers", "num_hidden_layers"}, config.num_layers, 1, kMostLayers);
  config.num_heads = reader.integer({"num_heads", "num_attention_heads"}, config.num_heads, 1, kLargestWidth);
  config.intermediate_size = reader.integer({"intermediate_size"}, 4 * config.hidden_size, 1, 4 * kLargestWidth);
  config.window_size = reader.integer({"window_size"}, config.window_size, 1);
  config.layer_norm_epsilon = reader.number("layer_norm_epsilon", config.layer_norm_epsilon);
  config.initializer_range = reader.number("initializer_range", config.initializer_range);
  config.embed_dropout = read_dropout(reader, "embed_dropout");
  config.resid_dropout = read_dropout(reader, "resid_dropout");
  config.attention_dropout = read_dropout(reader, "attention_dropout");
  config.tie_word_embeddings = reader.boolean("tie_word_embeddings", config.tie_word_embeddings);
  core::require(config.hidden_size % config.num_heads == 0, ErrorKind::kWeights,
                "{}: key \"num_heads\": expected a divisor of hidden_size {}, found {}", name, config.hidden_size,
                config.num_heads);
  core::require(
      config.body_parameters() <= kMostParameters, ErrorKind::kWeights,
      "{}: {} layers of hidden_size {}, intermediate_size {} and vocab_size {} are {} parameters; expected at most {}",
      name, config.num_layers, config.hidden_size, config.intermediate_size, config.vocab_size,
      config.body_parameters(), kMostParameters);
  config.layer_is_local = read_attention_layers(reader, config.num_layers);
  read_special_tokens(reader, config);
  config.labels = read_labels(reader);
  config.problem_type = reader.text_of("problem_type", "");
  complete_classifier(reader, config);
  return config;
}

std::vector<std::string> config_notes(const GptNeoConfig& config) {
  const Reader reader("config.json", config.json);
  const json* types = reader.find({"attention_types"});
  if (types == nullptr || reader.find({"attention_layers"}) == nullptr) return {};
  if (expand_attention_types(reader, *types, config.num_layers) == config.layer_is_local) return {};
  return {"config.json: attention_layers and attention_types disagree; attention_layers counts, as in transformers"};
}

}  // namespace neoloom::model
