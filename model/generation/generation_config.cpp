// SPDX-License-Identifier: Apache-2.0
#include "model/generation/generation_config.h"

#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <utility>

#include "runtime/core/error.h"
#include "runtime/core/files.h"
#include "runtime/core/json.h"
#include "runtime/core/text.h"

namespace neoloom::model {
namespace {

using core::ErrorKind;
using nlohmann::json;
namespace fs = std::filesystem;

constexpr size_t kLongestValueBytes = 100;  // in a message
constexpr const char* kFile = "generation_config.json";

/// Lists settings of transformers' GenerationConfig that would change the text and are not supported, each with the
/// value that changes nothing. null changes nothing, either.
std::vector<std::pair<const char*, json>> unknown_settings() {
  return {{"num_beams", 1},
          {"num_beam_groups", 1},
          {"min_length", 0},
          {"max_length", 20},
          {"max_time", nullptr},
          {"top_h", nullptr},
          {"typical_p", 1.0},
          {"epsilon_cutoff", 0.0},
          {"eta_cutoff", 0.0},
          {"encoder_repetition_penalty", 1.0},
          {"penalty_alpha", nullptr},
          {"encoder_no_repeat_ngram_size", 0},
          {"guidance_scale", 1.0},
          {"bad_words_ids", nullptr},
          {"suppress_tokens", nullptr},
          {"begin_suppress_tokens", nullptr},
          {"sequence_bias", nullptr},
          {"forced_bos_token_id", nullptr},
          {"forced_eos_token_id", nullptr},
          {"token_healing", false},
          {"watermarking_config", nullptr},
          {"exponential_decay_length_penalty", nullptr},
          {"constraints", nullptr},
          {"force_words_ids", nullptr},
          {"dola_layers", nullptr}};
}

class Settings {
 public:
  Settings(std::string path, json object) : path_(std::move(path)), object_(std::move(object)) {}

  /// Returns nullptr when the key is absent or null.
  const json* find(const char* key) const {
    const auto found = object_.find(key);
    return found == object_.end() || found->is_null() ? nullptr : &*found;
  }
  std::optional<double> number(const char* key, double least) const {
    const json* value = find(key);
    if (value == nullptr) return std::nullopt;
    if (!value->is_number() || !(value->get<double>() >= least) || !std::isfinite(value->get<double>())) {
      refuse(key, fmt::format("a number of at least {}", least), *value);
    }
    return value->get<double>();
  }
  std::optional<int64_t> integer(const char* key, int64_t least = 0) const {
    const json* value = find(key);
    if (value == nullptr) return std::nullopt;
    if (!core::json_integer_within(*value, least, INT64_MAX)) {
      refuse(key, fmt::format("an integer of at least {}", least), *value);
    }
    return value->get<int64_t>();
  }
  std::optional<bool> flag(const char* key) const {
    const json* value = find(key);
    if (value == nullptr) return std::nullopt;
    if (!value->is_boolean()) refuse(key, "true or false", *value);
    return value->get<bool>();
  }
  /// Reads one id or a list of them.
  std::vector<int64_t> ids(const char* key) const {
    const json* value = find(key);
    if (value == nullptr) return {};
    std::vector<int64_t> ids;
    for (const json& id : value->is_array() ? *value : json::array({*value})) {
      if (!core::json_integer_within(id, INT64_MIN, INT64_MAX)) refuse(key, "an integer or a list of integers", *value);
      ids.push_back(id.get<int64_t>());
    }
    return ids;
  }
  /// Reads one text or a list of them.
  std::vector<std::string> texts(const char* key) const {
    const json* value = find(key);
    if (value == nullptr) return {};
    std::vector<std::string> texts;
    for (const json& text : value->is_array() ? *value : json::array({*value})) {
      if (!text.is_string() || text.get_ref<const std::string&>().empty())
        refuse(key, "a text or a list of texts", *value);
      texts.push_back(text.get<std::string>());
    }
    return texts;
  }
  [[noreturn]] void refuse(const char* key, const std::string& expected, const json& found) const {
    core::fail(ErrorKind::kWeights, "{}: key \"{}\": expected {}, found {}", path_, key, expected,
               core::printable(found.dump(), kLongestValueBytes));
  }

 private:
  std::string path_;
  json object_;
};

json parse(const std::string& path, const std::string& text) {
  json object = core::parse_json(text, path, ErrorKind::kWeights);
  core::require(object.is_object(), ErrorKind::kWeights, "{}: expected a JSON object, found {}", path,
                object.type_name());
  return object;
}

}  // namespace

GenerationConfig GenerationConfig::from_folder(const std::string& folder, const GptNeoConfig& config) {
  GenerationConfig result;
  const bool own_file = fs::exists(folder + "/" + kFile);
  result.file = own_file ? kFile : "config.json";
  const std::string path = folder + "/" + result.file;
  const Settings settings(path, parse(path, own_file ? core::read_file(path, ErrorKind::kWeights) : config.json));
  result.eos_token_ids = settings.ids("eos_token_id");
  if (!own_file && result.eos_token_ids.empty()) result.eos_token_ids = {config.eos_token_id};
  result.do_sample = settings.flag("do_sample");
  result.temperature = settings.number("temperature", 0.0);
  result.top_k = settings.integer("top_k");
  result.top_p = settings.number("top_p", 0.0);
  result.min_p = settings.number("min_p", 0.0);
  result.no_repeat_ngram_size = settings.integer("no_repeat_ngram_size");
  result.min_new_tokens = settings.integer("min_new_tokens");
  result.num_return_sequences = settings.integer("num_return_sequences", 1);
  result.stop_strings = settings.texts("stop_strings");
  result.repetition_penalty = settings.number("repetition_penalty", 0.0);
  result.max_new_tokens = settings.integer("max_new_tokens");
  for (const auto& [key, neutral] : unknown_settings()) {
    const json* value = settings.find(key);
    if (value == nullptr || *value == neutral) continue;
    result.unknown.push_back(fmt::format("{} {}", key, core::printable(value->dump(), kLongestValueBytes)));
  }
  return result;
}

}  // namespace neoloom::model
