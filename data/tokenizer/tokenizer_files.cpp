// SPDX-License-Identifier: Apache-2.0
#include "data/tokenizer/tokenizer_files.h"

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string_view>
#include <utility>

#include "runtime/core/error.h"
#include "runtime/core/files.h"
#include "runtime/core/json.h"
#include "runtime/core/text.h"

namespace neoloom::data {
namespace {

using core::ErrorKind;
using core::fail;
using core::require;
using nlohmann::json;
namespace fs = std::filesystem;

constexpr const char* kEndOfText = "<|endoftext|>";
// Tables are arrays over ids, so ids need a bound. No real vocabulary comes near it.
constexpr int32_t kLargestId = 1 << 24;
constexpr size_t kLongestPartBytes = 400;  // of a file, in a message

std::string text_of(const json& value) { return core::printable(value.dump(), kLongestPartBytes); }

json parse_json(const fs::path& path) {
  const core::MappedFile file(path.string(), ErrorKind::kWeights);
  return core::parse_json(file.text(), path.string(), ErrorKind::kWeights);
}

int32_t checked_id(const json& value, const fs::path& path, std::string_view token) {
  require(core::json_integer_within(value, 0, kLargestId - 1), ErrorKind::kWeights,
          "{}: token {}: expected an integer id from 0 to {}, found {}", path.string(), core::quoted(token),
          kLargestId - 1, text_of(value));
  return value.get<int32_t>();
}

void read_vocab(const json& vocab, const fs::path& path, TokenizerFiles& out) {
  require(vocab.is_object() && !vocab.empty(), ErrorKind::kWeights,
          "{}: expected the vocabulary as a JSON object of token to id, found {}", path.string(), vocab.type_name());
  out.vocab.reserve(vocab.size());
  std::unordered_set<int32_t> ids;
  for (const auto& [token, id] : vocab.items()) {
    out.vocab.emplace(token, checked_id(id, path, token));
    require(ids.insert(out.vocab.at(token)).second, ErrorKind::kWeights,
            "{}: two tokens of the vocabulary have the id {}; expected one each", path.string(), out.vocab.at(token));
  }
}

void add_merge(std::string_view line, const fs::path& path, TokenizerFiles& out) {
  const size_t space = line.find(' ');
  require(space != std::string_view::npos && space > 0 && space + 1 < line.size() &&
              line.find(' ', space + 1) == std::string_view::npos,
          ErrorKind::kWeights, "{}: merge {}: expected two tokens with one space between, found {}", path.string(),
          out.merges.size() + 1, core::quoted(line));
  out.merges.emplace_back(line.substr(0, space), line.substr(space + 1));
}

void read_merges_json(const json& merges, const fs::path& path, TokenizerFiles& out) {
  require(merges.is_array(), ErrorKind::kWeights, "{}: expected model.merges as a list, found {}", path.string(),
          merges.type_name());
  for (const json& merge : merges) {
    if (merge.is_string()) {
      add_merge(merge.get_ref<const std::string&>(), path, out);
    } else {
      require(merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string(),
              ErrorKind::kWeights, "{}: merge {}: expected \"a b\" or [\"a\", \"b\"], found {}", path.string(),
              out.merges.size() + 1, text_of(merge));
      out.merges.emplace_back(merge[0].get<std::string>(), merge[1].get<std::string>());
    }
  }
}

void read_merges_txt(const fs::path& path, TokenizerFiles& out) {
  const std::string text = core::read_file(path.string(), ErrorKind::kWeights);
  std::string_view rest = text;
  while (!rest.empty()) {
    const size_t end = std::min(rest.find('\n'), rest.size());
    std::string_view line = rest.substr(0, end);
    rest.remove_prefix(std::min(end + 1, rest.size()));
    if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
    if (!line.empty() && !line.starts_with("#version")) add_merge(line, path, out);
  }
}

bool flag(const json& object, const char* key, bool otherwise) {
  const auto found = object.find(key);
  return found != object.end() && found->is_boolean() ? found->get<bool>() : otherwise;
}

AddedToken added_token(const json& entry, int32_t id, const fs::path& path) {
  require(entry.is_object() && entry.contains("content") && entry["content"].is_string() &&
              !entry["content"].get_ref<const std::string&>().empty(),
          ErrorKind::kWeights, "{}: added token {}: expected an object with a \"content\" text, found {}",
          path.string(), id, text_of(entry));
  AddedToken token;
  token.id = id;
  token.content = entry["content"].get<std::string>();
  token.special = flag(entry, "special", false);
  token.normalized = flag(entry, "normalized", !token.special);
  token.lstrip = flag(entry, "lstrip", false);
  token.rstrip = flag(entry, "rstrip", false);
  require(!flag(entry, "single_word", false), ErrorKind::kWeights,
          "{}: added token \"{}\": single_word: true is not supported; set it to false", path.string(), token.content);
  return token;
}

void add_token(AddedToken token, TokenizerFiles& out) {
  // The first file that names a token decides.
  if (out.added_ids.contains(token.id) || out.added_contents.contains(token.content)) return;
  out.added_ids.insert(token.id);
  out.added_contents.insert(token.content);
  out.added_tokens.push_back(std::move(token));
}

void refuse_unless(bool condition, const fs::path& path, std::string_view what, const json& found) {
  require(condition, ErrorKind::kWeights,
          "{}: {}, found {}: only GPT-2's byte-level BPE is supported; use the tokenizer of the GPT-Neo model",
          path.string(), what, text_of(found));
}

void check_model_is_byte_level(const json& document, const fs::path& path) {
  const auto part = [&](const char* key) { return document.contains(key) ? document[key] : json(nullptr); };
  const json model = part("model");
  refuse_unless(model.is_object() && model.value("type", std::string("BPE")) == "BPE", path, "expected model.type BPE",
                model.is_object() && model.contains("type") ? model["type"] : json(nullptr));
  refuse_unless(part("normalizer").is_null(), path, "expected no normalizer", part("normalizer"));
  const json splitter = part("pre_tokenizer");
  refuse_unless(
      splitter.is_object() && splitter.value("type", std::string()) == "ByteLevel" && flag(splitter, "use_regex", true),
      path, "expected pre_tokenizer ByteLevel with use_regex", splitter);
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    const json value = model.contains(key) ? model[key] : json(nullptr);
    refuse_unless(value.is_null() || (value.is_string() && value.get_ref<const std::string&>().empty()), path,
                  fmt::format("expected no model.{}", key), value);
  }
  for (const char* key : {"byte_fallback", "fuse_unk"}) {
    refuse_unless(!flag(model, key, false), path, fmt::format("expected model.{} false", key), true);
  }
  const json dropout = model.contains("dropout") ? model["dropout"] : json(nullptr);
  refuse_unless(dropout.is_null() || dropout == 0.0, path, "expected no model.dropout", dropout);
}

void note_ignored_parts(const json& document, TokenizerFiles& out) {
  for (const char* key : {"truncation", "padding"}) {
    if (document.contains(key) && !document[key].is_null()) {
      out.notes.push_back(
          fmt::format("tokenizer.json has a {} block ({}), which is not used: "
                      "lengths come from the run's configuration",
                      key, text_of(document[key])));
    }
  }
}

/// What a template puts before each of its texts, and what of it is not supported.
struct Template {
  std::vector<std::vector<int32_t>> before;
  std::string complaint;  // empty: nothing
};

/// Reads special tokens and texts up to the first piece that is not supported.
Template read_template(const json& processor, const char* key, const fs::path& path) {
  Template result;
  const json pieces = processor.value(key, json());
  if (!pieces.is_array()) return {{}, "has no template for it"};
  std::vector<int32_t> tokens;
  for (const json& piece : pieces) {
    if (piece.contains("Sequence")) {
      const std::string expected = result.before.empty() ? "A" : "B";
      if (piece["Sequence"].value("id", std::string("A")) != expected) return {{}, "has more than one text"};
      result.before.push_back(std::exchange(tokens, {}));
      continue;
    }
    if (!piece.contains("SpecialToken")) return {{}, "has a piece that is neither a token nor a text"};
    const std::string token = piece["SpecialToken"].value("id", std::string());
    const json ids =
        processor.value("special_tokens", json::object()).value(token, json::object()).value("ids", json());
    if (!ids.is_array()) return {{}, fmt::format("does not say the ids of {}", core::quoted(token))};
    for (const json& id : ids) tokens.push_back(checked_id(id, path, token));
  }
  if (!tokens.empty() && !result.before.empty()) return {{}, "puts tokens after the text"};
  return result;
}

/// Reads the templates of a single text and of a pair: special tokens, then a text. Refuses any other for single texts.
void read_templates(const json& processor, const fs::path& path, TokenizerFiles& out) {
  Template single = read_template(processor, "single", path);
  if (single.complaint.empty() && single.before.empty()) single.complaint = "has no text";
  if (single.before.size() > 1) single.complaint = "has more than one text";
  require(single.complaint.empty(), ErrorKind::kWeights,
          "{}: post_processor TemplateProcessing {}: only special tokens in front of one text are supported; "
          "its \"single\" is {}",
          path.string(), single.complaint, text_of(processor.value("single", json())));
  out.front_ids = single.before.front();
  const Template pair = read_template(processor, "pair", path);
  if (pair.complaint.empty() && pair.before.size() == 2 && pair.before.front() == out.front_ids) {
    out.middle_ids = pair.before.back();
  } else {
    out.pair_complaint = fmt::format(
        "{}: post_processor TemplateProcessing: only special tokens in front of each text "
        "of a pair are supported; its \"pair\" is {}",
        path.string(), text_of(processor.value("pair", json())));
  }
}

void read_post_processor(const json& processor, const fs::path& path, TokenizerFiles& out) {
  if (processor.is_null()) return;
  const std::string type = processor.is_object() ? processor.value("type", std::string()) : std::string();
  if (type == "ByteLevel") return;  // changes offsets, no ids
  if (type == "TemplateProcessing") {
    require(out.front_ids.empty(), ErrorKind::kWeights, "{}: post_processor adds tokens twice, which is not supported",
            path.string());
    return read_templates(processor, path, out);
  }
  const bool sequence = type == "Sequence" && processor.contains("processors") && processor["processors"].is_array();
  require(sequence, ErrorKind::kWeights,
          "{}: post_processor {} is not supported: expected none, "
          "ByteLevel, or TemplateProcessing with tokens in front of the text",
          path.string(), core::quoted(type));
  for (const json& part : processor["processors"]) read_post_processor(part, path, out);
}

void read_tokenizer_json(const fs::path& path, TokenizerFiles& out) {
  const json document = parse_json(path);
  require(document.is_object(), ErrorKind::kWeights, "{}: expected a JSON object, found {}", path.string(),
          document.type_name());
  check_model_is_byte_level(document, path);
  const json& model = document["model"];
  require(model.contains("vocab") && model.contains("merges"), ErrorKind::kWeights,
          "{}: expected model.vocab and model.merges", path.string());
  read_vocab(model["vocab"], path, out);
  read_merges_json(model["merges"], path, out);
  out.add_prefix_space = flag(document["pre_tokenizer"], "add_prefix_space", true);
  out.ignore_merges = flag(model, "ignore_merges", false);
  if (model.contains("unk_token") && model["unk_token"].is_string()) {
    const auto unk = out.vocab.find(model["unk_token"].get<std::string>());
    if (unk != out.vocab.end()) out.unk_id = unk->second;
  }
  if (document.contains("added_tokens") && document["added_tokens"].is_array()) {
    for (const json& entry : document["added_tokens"]) {
      const json id = entry.is_object() && entry.contains("id") ? entry["id"] : json(nullptr);
      add_token(added_token(entry, checked_id(id, path, "added"), path), out);
    }
  }
  note_ignored_parts(document, out);
  if (document.contains("post_processor")) read_post_processor(document["post_processor"], path, out);
}

/// Returns the text of a special token, which is written as a string or as an object with "content".
std::optional<std::string> special_text(const json& config, const char* key) {
  const auto found = config.find(key);
  if (found == config.end()) return std::nullopt;
  if (found->is_string()) return found->get<std::string>();
  if (found->is_object() && found->contains("content") && (*found)["content"].is_string()) {
    return (*found)["content"].get<std::string>();
  }
  return std::nullopt;
}

int32_t id_of(const std::string& token, const TokenizerFiles& files) {
  for (const AddedToken& added : files.added_tokens) {
    if (added.content == token) return added.id;
  }
  const auto found = files.vocab.find(token);
  return found == files.vocab.end() ? -1 : found->second;
}

void read_added_tokens_decoder(const json& config, const fs::path& path, TokenizerFiles& out) {
  const auto decoder = config.find("added_tokens_decoder");
  if (decoder == config.end() || !decoder->is_object()) return;
  for (const auto& [key, entry] : decoder->items()) {
    require(!key.empty() && key.size() < 10 && key.find_first_not_of("0123456789") == std::string::npos,
            ErrorKind::kWeights, "{}: added_tokens_decoder: expected ids as keys, found \"{}\"", path.string(), key);
    add_token(added_token(entry, checked_id(json(std::stol(key)), path, "added"), path), out);
  }
}

/// Reads {"token": id} of old exports. Which tokens are special stands in the special tokens of the configuration.
void read_added_tokens_json(const fs::path& path, TokenizerFiles& out) {
  const json document = parse_json(path);
  require(document.is_object(), ErrorKind::kWeights, "{}: expected a JSON object, found {}", path.string(),
          document.type_name());
  for (const auto& [content, id] : document.items()) {
    require(!content.empty(), ErrorKind::kWeights, "{}: an added token is empty", path.string());
    add_token({.id = checked_id(id, path, content), .content = content, .normalized = true}, out);
  }
}

/// Makes a token that a file names as special match literally and be special, whichever file it is.
void mark_special(const std::optional<std::string>& text, TokenizerFiles& out) {
  if (!text || text->empty()) return;
  for (AddedToken& added : out.added_tokens) {
    if (added.content == *text) {
      added.special = true;
      return;
    }
  }
  const int32_t id = id_of(*text, out);
  if (id >= 0) add_token({.id = id, .content = *text, .special = true}, out);
}

/// Reads add_bos_token and add_eos_token. Beside vocab.json and merges.txt they are the post-processor. Beside
/// tokenizer.json transformers ignores them.
void read_bos_and_eos_flags(const json& config, const fs::path& folder, TokenizerFiles& out) {
  require(!flag(config, "add_eos_token", false), ErrorKind::kWeights,
          "{}: add_eos_token: true adds eos after every text, which is not supported; set it to false in that file "
          "(training appends eos by itself, see tokenizer_config.add_eos_token of the run)",
          (folder / "tokenizer_config.json").string());
  if (!flag(config, "add_bos_token", false)) return;
  const auto bos = config.contains("bos_token") ? special_text(config, "bos_token") : kEndOfText;
  if (const int32_t id = bos ? id_of(*bos, out) : -1; id >= 0) {
    out.front_ids.push_back(id);
    out.middle_ids.push_back(id);
  }
}

void read_configs(const fs::path& folder, bool has_tokenizer_json, TokenizerFiles& out) {
  json merged = json::object();
  // Later files win: tokenizer_config.json is what transformers reads today.
  for (const char* name : {"special_tokens_map.json", "tokenizer_config.json"}) {
    const fs::path path = folder / name;
    if (!fs::exists(path)) continue;
    const json config = parse_json(path);
    require(config.is_object(), ErrorKind::kWeights, "{}: expected a JSON object, found {}", path.string(),
            config.type_name());
    read_added_tokens_decoder(config, path, out);
    merged.update(config);
  }
  if (!has_tokenizer_json && fs::exists(folder / "added_tokens.json")) {
    read_added_tokens_json(folder / "added_tokens.json", out);
  }
  for (const char* key : {"bos_token", "eos_token", "unk_token", "pad_token"})
    mark_special(special_text(merged, key), out);
  if (!merged.contains("eos_token")) mark_special(kEndOfText, out);
  out.add_prefix_space = flag(merged, "add_prefix_space", out.add_prefix_space);
  if (merged.contains("truncation_side") && merged["truncation_side"] == "left") {
    out.notes.emplace_back(
        "tokenizer_config.json has truncation_side left, which is not used: tokenizer_config.truncation_side of the "
        "run's configuration decides");
  }
  if (!has_tokenizer_json) read_bos_and_eos_flags(merged, folder, out);
  out.eos_id = id_of(special_text(merged, "eos_token").value_or(kEndOfText), out);
  if (const auto pad = special_text(merged, "pad_token")) {
    out.pad_id = id_of(*pad, out);
    require(out.pad_id >= 0, ErrorKind::kWeights,
            "{}: pad_token \"{}\" is neither in the vocabulary nor an added token; remove it or add the token",
            folder.string(), *pad);
  }
}

TokenizerFiles read_folder(const fs::path& folder) {
  TokenizerFiles out;
  const bool has_tokenizer_json = fs::exists(folder / "tokenizer.json");
  if (has_tokenizer_json) {
    read_tokenizer_json(folder / "tokenizer.json", out);
  } else {
    for (const char* name : {"vocab.json", "merges.txt"}) {
      require(fs::exists(folder / name), ErrorKind::kWeights,
              "{}: no {}: expected tokenizer.json, or vocab.json and merges.txt", folder.string(), name);
    }
    read_vocab(parse_json(folder / "vocab.json"), folder / "vocab.json", out);
    read_merges_txt(folder / "merges.txt", out);
  }
  read_configs(folder, has_tokenizer_json, out);
  std::sort(out.added_tokens.begin(), out.added_tokens.end(),
            [](const AddedToken& a, const AddedToken& b) { return a.id < b.id; });
  for (const char* name : {"tokenizer.json", "vocab.json", "merges.txt", "added_tokens.json", "tokenizer_config.json",
                           "special_tokens_map.json"}) {
    if (fs::exists(folder / name)) out.files.push_back((folder / name).string());
  }
  return out;
}

}  // namespace

TokenizerFiles read_tokenizer_files(const std::string& folder_name) {
  const fs::path folder = fs::absolute(folder_name).lexically_normal();
  require(fs::is_directory(folder), ErrorKind::kWeights, "tokenizer folder {} does not exist", folder.string());
  try {
    return read_folder(folder);
  } catch (const json::exception& error) {
    fail(ErrorKind::kWeights, "{}: a tokenizer file holds a value of an unexpected type: {}", folder.string(),
         error.what());
  }
}

}  // namespace neoloom::data
