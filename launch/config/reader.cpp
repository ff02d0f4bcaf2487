// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <map>
#include <optional>
#include <set>

#include "launch/config/config_files.h"
#include "launch/config/document.h"
#include "launch/config/mistakes.h"
#include "launch/config/redact.h"
#include "launch/config/schema.h"
#include "runtime/core/error.h"
#include "runtime/core/files.h"
#include "runtime/core/text.h"

namespace neoloom::launch {

using core::ErrorKind;

namespace {

/// Holds a value and how it was spelled.
struct Given {
  Node value;
  std::string spelled;  // "group.key" as written
  Position position;
  std::string place() const { return fmt::format("{}: {}", position.text(), spelled); }
};

/// Refuses what is certainly a secret, because values are stored with the run and printed by many messages.
void refuse_secret(const std::string& name, const Node& value) {
  for (const Node& item : value.items) refuse_secret(name, item);
  core::require(value.kind != Node::Kind::kString || !holds_secret(value.text), ErrorKind::kUsage,
                "{}: {}: holds a token or a password; secrets do not belong in a configuration, which is stored with "
                "the run. Remove it there and where it came from (hf download reads HF_TOKEN from the environment)",
                value.position.text(), name);
}

std::vector<std::string> texts_of(const Node& list) {
  std::vector<std::string> texts;
  std::transform(list.items.begin(), list.items.end(), std::back_inserter(texts),
                 [](const Node& item) { return item.text; });
  return texts;
}

/// Takes documents apart into one value per known key. Later documents (the overrides) win over earlier ones.
class Collector {
 public:
  Collector(const Schema& schema, std::vector<std::string>& warnings, Mistakes& mistakes)
      : schema_(schema), warnings_(warnings), mistakes_(mistakes) {}

  void add_document(const Node& root) {
    level_ = {};
    if (root.is_null()) return;
    core::require(root.kind == Node::Kind::kMap, ErrorKind::kUsage,
                  "{}: a configuration is a map of groups ({}), found {}", root.position.text(),
                  fmt::join(schema_.groups, ", "), kind_name(root));
    for (const Node::Entry& entry : root.entries) mistakes_.attempt([&] { add_top_level(entry); });
  }

  bool has_peft() const { return has_peft_; }
  const Given* find(const std::string& group, const std::string& key) const {
    const auto found = given_.find({group, key});
    return found == given_.end() ? nullptr : &found->second;
  }
  std::map<std::string, std::string> places() const {
    std::map<std::string, std::string> all;
    for (const auto& [name, given] : given_) all.emplace(name.first + "." + name.second, given.place());
    return all;
  }

 private:
  void add_top_level(const Node::Entry& entry) {
    if (entry.key == "quantization_config") return check_quantization(entry);
    if (const Alias* alias = schema_.alias("", entry.key)) return add_alias(*alias, entry, entry.key);
    if (std::find(schema_.groups.begin(), schema_.groups.end(), entry.key) == schema_.groups.end()) {
      refuse_unknown_group(entry);
    }
    if (entry.key == "peft_config") add_peft_group(entry.value);
    if (entry.value.is_null()) return;
    core::require(entry.value.kind == Node::Kind::kMap, ErrorKind::kUsage, "{}: {}: expected a map of keys, found {}",
                  entry.value.position.text(), entry.key, kind_name(entry.value));
    for (const Node::Entry& inner : entry.value.entries) mistakes_.attempt([&] { add_key(entry.key, inner); });
  }

  /// Says whether there is LoRA: absent or null is full-parameter training, {} is LoRA with its defaults.
  void add_peft_group(const Node& value) {
    has_peft_ = !value.is_null();
    if (has_peft_) return;
    std::erase_if(given_, [](const auto& item) { return item.first.first == "peft_config"; });
  }

  void check_quantization(const Node::Entry& entry) const {
    const bool empty = entry.value.is_null() || (entry.value.kind == Node::Kind::kMap && entry.value.entries.empty());
    if (empty) return;
    const bool keyed = entry.value.kind == Node::Kind::kMap;
    const Node::Entry& first = keyed ? entry.value.entries.front() : entry;
    core::fail(ErrorKind::kUsage,
               "{}: quantization_config{} is not supported yet; leave the group empty: "
               "frozen weights are stored as model_config.frozen_dtype float16, bfloat16 or float32",
               first.position.text(), keyed ? "." + first.key : "");
  }

  void add_key(const std::string& group, const Node::Entry& entry) {
    const std::string spelled = group + "." + entry.key;
    if (schema_.field(group, entry.key)) return store(group, entry.key, {entry.value, spelled, entry.position});
    if (const Alias* alias = schema_.alias(group, entry.key)) return add_alias(*alias, entry, spelled);
    if (const ForeignKey* foreign = schema_.foreign_key(group, entry.key)) {
      return check_foreign(*foreign, entry, spelled);
    }
    refuse_unknown_key(group, entry);
  }

  void add_alias(const Alias& alias, const Node::Entry& entry, const std::string& spelled) {
    Given given{entry.value, spelled, entry.position};
    const std::string target = fmt::format("{}.{}", alias.target_group, alias.key);
    if (alias.outdated) {
      warnings_.push_back(fmt::format("{}: {} is an old spelling; write {}", entry.position.text(), spelled, target));
    }
    if (alias.convert && (given.value.is_null() || !alias.convert(spelled, given.value))) return;
    store(std::string(alias.target_group), std::string(alias.key), std::move(given));
  }

  void store(std::string group, std::string key, Given given) {
    const std::pair<std::string, std::string> name{std::move(group), std::move(key)};
    if (const auto [earlier, fresh] = level_.emplace(name, given.spelled); !fresh) {
      const Given& first = given_.at(name);
      const bool lists = first.value.kind == Node::Kind::kList && given.value.kind == Node::Kind::kList;
      if (lists && texts_of(first.value) == texts_of(given.value)) return;  // id2label and label2id
      core::fail(ErrorKind::kUsage, "{}: {} is given twice: here as {}{}, and at {} as {}{}", given.position.text(),
                 name.first + "." + name.second, given.spelled, lists ? ", " + render(given.value) : "",
                 first.position.text(), earlier->second, lists ? ", " + render(first.value) : "");
    }
    if (name.first == "peft_config") has_peft_ = true;
    given_.insert_or_assign(name, std::move(given));
  }

  /// Checks a key of Hugging Face against its table. A map is taken if each of its own keys is.
  void check_foreign(const ForeignKey& key, const Node::Entry& entry, const std::string& spelled) {
    if (key.is_quiet(entry.value)) return;
    if (entry.value.kind == Node::Kind::kMap && schema_.has_group(spelled)) return check_inside(entry.value, spelled);
    const std::string what = fmt::format("{}: {}: {}", entry.position.text(), spelled,
                                         names_secret(key.key) ? std::string(kHidden) : render(entry.value));
    if (key.has_no_effect(entry.value)) {
      refuse_secret(spelled, entry.value);
      warnings_.push_back(fmt::format("{} has no effect: {}", what, key.reason));
      return;
    }
    std::vector<std::string> accepted;
    for (const std::string_view value : key.quiet) accepted.emplace_back(value.empty() ? "\"\"" : value);
    core::fail(ErrorKind::kUsage, "{} is not supported yet; accepted: {}; {}", what, fmt::join(accepted, ", "),
               key.reason);
  }

  void check_inside(const Node& map, const std::string& spelled) {
    for (const Node::Entry& inner : map.entries) {
      mistakes_.attempt([&] {
        const ForeignKey* known = schema_.foreign_key(spelled, inner.key);
        if (known == nullptr) refuse_unknown_key(spelled, inner);
        check_foreign(*known, inner, spelled + "." + inner.key);
      });
    }
  }

  [[noreturn]] void refuse_unknown_group(const Node::Entry& entry) const {
    std::string hint = core::nearest(entry.key, schema_.groups);
    if (!hint.empty()) {
      hint = fmt::format("; did you mean {}?", hint);
    } else if (const std::string home = groups_with(entry.key); !home.empty()) {
      hint = fmt::format("; the key {} belongs to {}", entry.key, home);
    }
    core::fail(ErrorKind::kUsage, "{}: unknown group {}; a configuration has the groups {}{}", entry.position.text(),
               core::quoted(entry.key, 100), fmt::join(schema_.groups, ", "), hint);
  }

  [[noreturn]] void refuse_unknown_key(const std::string& group, const Node::Entry& entry) const {
    std::string hint;
    if (const std::string home = groups_with(entry.key); !home.empty()) {
      hint = fmt::format("; it belongs to {}", home);
    } else if (const std::string near = core::nearest(entry.key, keys_of(group)); !near.empty()) {
      hint = fmt::format("; did you mean {}?", near);
    }
    core::fail(ErrorKind::kUsage, "{}: unknown key {}.{}{} (configs/README.md lists every key)", entry.position.text(),
               group, shown(entry.key), hint);
  }

  /// Returns a key as written if it is plain, else quoted: with escapes for blanks that look like others, and cut.
  static std::string shown(const std::string& key) {
    const bool plain = std::all_of(key.begin(), key.end(), [](unsigned char c) { return c > 0x20 && c < 0x7F; });
    return plain && key.size() <= 100 ? key : core::quoted(key, 100);
  }

  std::string groups_with(const std::string& key) const {
    std::vector<std::string> homes;
    for (const std::string& group : schema_.groups) {
      if (schema_.field(group, key) || schema_.alias(group, key)) homes.push_back(group);
    }
    return fmt::format("{}", fmt::join(homes, " or "));
  }

  std::vector<std::string> keys_of(const std::string& group) const {
    std::vector<std::string> keys;
    const auto collect = [&](const auto& entries, auto key_of) {
      for (const auto& entry : entries) {
        if (entry.group == group) keys.emplace_back(key_of(entry));
      }
    };
    collect(schema_.fields, [](const Field& field) { return field.key; });
    collect(schema_.aliases, [](const Alias& alias) { return alias.old_key; });
    collect(schema_.foreign, [](const ForeignKey& key) { return key.key; });
    return keys;
  }

  const Schema& schema_;
  std::vector<std::string>& warnings_;
  Mistakes& mistakes_;
  std::map<std::pair<std::string, std::string>, Given> given_;
  std::map<std::pair<std::string, std::string>, std::string> level_;  // what the current document has given so far
  bool has_peft_ = false;
};

std::string cut(std::string text) {
  constexpr size_t kShownBytes = 200;
  if (text.size() > kShownBytes) text.replace(kShownBytes, std::string::npos, "...");
  return text;
}

/// Makes a document of an override: {group: {key: value}} of "group.key=value", {group: value} of "group=value".
Node parse_override(const std::string& text) {
  const size_t equals = text.find('=');
  core::require(equals != std::string::npos && equals > 0, ErrorKind::kUsage,
                "--set {}: expected group.key=value, for instance trainer_config.learning_rate=1e-4", redacted(text));
  const Position position{std::make_shared<const std::string>("--set " + cut(redacted_assignment(text))), 0};
  const std::string name = text.substr(0, equals);
  const size_t dot = name.find('.');
  Node node = parse_value(text.substr(equals + 1), position);
  const auto wrap = [&](const std::string& key, Node value) {
    Node map;
    map.kind = Node::Kind::kMap;
    map.position = position;
    map.entries.push_back({key, position, std::move(value)});
    return map;
  };
  if (dot != std::string::npos) node = wrap(name.substr(dot + 1), std::move(node));
  return wrap(name.substr(0, dot), std::move(node));
}

}  // namespace

RunConfig parse_config(const std::string& text, const std::string& name, const std::vector<std::string>& overrides) {
  return config_from(parse_document(text, name), name, overrides);
}

RunConfig config_from(const Node& root, const std::string& name, const std::vector<std::string>& overrides) {
  const Schema schema;
  RunConfig config;
  Mistakes mistakes;
  Collector collector(schema, config.warnings, mistakes);
  collector.add_document(root);
  for (const std::string& text_of_override : overrides) {
    mistakes.attempt([&] { collector.add_document(parse_override(text_of_override)); });
  }

  if (collector.has_peft()) config.peft_config.emplace();
  for (const Field& field : schema.fields) {
    const Given* given = collector.find(field.group, field.key);
    if (!given || (given->value.is_null() && field.null_is_default)) continue;
    mistakes.attempt([&] {
      refuse_secret(field.name(), given->value);
      field.read(config, given->value);
    });
  }
  mistakes.refuse_any(name);  // a combination with a value that was not read says nothing
  // A run stores every key, so the empty template of a run from before this default stays empty.
  const Given* form = collector.find("data", "template");
  const bool pair = !config.data.prompt_column.empty() || !config.data.response_column.empty();
  if (pair && config.data.messages_column.empty() && (!form || form->value.is_null())) {
    config.data.prompt_template = data::kNewline;
    config.data.template_is_default = true;
  }
  resolve_and_check(config, mistakes, [&](std::string_view group, std::string_view key) {
    const Given* given = collector.find(std::string(group), std::string(key));
    return given ? given->place() : fmt::format("{}: {}.{}", name, group, key);
  });
  mistakes.refuse_any(name);
  config.places = collector.places();
  // With bfloat16 matmuls the weights are stored in bfloat16: this rounds the source's values once, not by way of
  // another 16-bit type.
  const Given* stored = collector.find("model_config", "frozen_dtype");
  if ((!stored || stored->value.is_null()) && config.runtime.compute_dtype == "bfloat16") {
    config.model_config.frozen_dtype = model::Dtype::kBFloat16;
  }
  return config;
}

RunConfig read_config(const std::string& path, const std::vector<std::string>& overrides) {
  return parse_config(core::read_file(path, ErrorKind::kUsage), path, overrides);
}

}  // namespace neoloom::launch
