// SPDX-License-Identifier: Apache-2.0
#include "launch/config/from_trainer.h"

#include <fmt/format.h>

#include <algorithm>

#include "launch/config/document.h"
#include "launch/config/redact.h"
#include "launch/config/schema.h"
#include "runtime/core/error.h"
#include "runtime/core/files.h"
#include "runtime/core/text.h"

namespace neoloom::launch {
namespace {

using core::ErrorKind;

constexpr const char* kTrainer = "trainer_config";
constexpr const char* kPeft = "peft_config";

/// Returns the group whose keys a file has; empty: neither.
std::string group_of(const Node& root) {
  const auto has = [&](std::string_view key) {
    return std::any_of(root.entries.begin(), root.entries.end(), [&](const auto& entry) { return entry.key == key; });
  };
  if (has("peft_type") || has("lora_alpha")) return kPeft;
  return has("output_dir") || has("per_device_train_batch_size") || has("learning_rate") ? kTrainer : "";
}

class Translator {
 public:
  void read(const std::string& path) {
    const Node root = parse_document(core::read_file(path, ErrorKind::kUsage), path);
    core::require(root.kind == Node::Kind::kMap, ErrorKind::kUsage,
                  "{}: --from takes the JSON that TrainingArguments.to_json_string() or LoraConfig.save_pretrained() "
                  "writes, found {}; a data file goes before --from",
                  path, kind_name(root));
    const std::string group = group_of(root);
    core::require(!group.empty(), ErrorKind::kUsage,
                  "{}: neither TrainingArguments (output_dir, learning_rate) nor LoraConfig (peft_type, lora_alpha): "
                  "none of these keys is in it",
                  path);
    bool& seen = group == kPeft ? result_.has_adapter : result_.has_trainer;
    core::require(!seen, ErrorKind::kUsage, "{}: a second file with the keys of {}; give one of each", path, group);
    seen = true;
    default_.peft_config.emplace();
    for (const Node::Entry& entry : root.entries) add(group, group, entry);
  }

  FromTrainer take() { return std::move(result_); }

 private:
  /// `path`: the group, or the map within it that has the key.
  void add(const std::string& group, const std::string& path, const Node::Entry& entry) {
    const std::string name = path + "." + entry.key;
    if (name == "peft_config.base_model_name_or_path") {
      if (!entry.value.is_null()) result_.base_model = entry.value.text;
      return;
    }
    if (const Field* field = schema_.field(path, entry.key)) return set(*field, name, entry.value);
    if (const Alias* alias = schema_.alias(path, entry.key)) return add_alias(*alias, name, entry.value);
    if (const ForeignKey* foreign = schema_.foreign_key(path, entry.key)) {
      return add_foreign(*foreign, group, name, entry.value);
    }
    leave_out(name, entry.value, "neoloom does not know this key", true);
  }

  /// Writes the key unless the value is neoloom's default anyway.
  void set(const Field& field, const std::string& name, const Node& value) {
    if (value.is_null() && field.null_is_default) return;
    RunConfig config = default_;
    const std::string reason = refusal(field, name, value, config);
    if (!reason.empty() && field.key == "report_to" && value.items.size() > 1)
      return set_some(field, name, value, reason);
    if (!reason.empty()) return leave_out(name, value, reason, true);
    const std::string text = field.write(config);
    if (text == field.write(default_)) return;
    if (field.key == "gradient_checkpointing" && text == "false") {
      return leave_out(name, value, "auto, the default, recomputes only where memory is short, with the same bits",
                       false);
    }
    result_.draft.set(field.group, field.key, text, name == field.name() ? "" : "was " + name);
  }

  /// Reads the value into `config`. Returns why neoloom refuses it; empty: it does not.
  static std::string refusal(const Field& field, const std::string& name, const Node& value, RunConfig& config) {
    try {
      field.read(config, value);
      return "";
    } catch (const core::Error& error) {
      if (error.kind() != ErrorKind::kUsage) throw;
      const std::string text = error.what();  // begins with the position
      const size_t end = text.find(name + ": ");
      return end == std::string::npos ? text : text.substr(end + name.size() + 2);
    }
  }

  /// Sets the items of a list that neoloom knows, or none if the list is refused for another `reason`.
  void set_some(const Field& field, const std::string& name, const Node& list, const std::string& reason) {
    Node kept = list;
    kept.items.clear();
    for (const Node& item : list.items) {
      RunConfig config = default_;
      const std::string unknown = refusal(field, name, item, config);
      unknown.empty() ? kept.items.push_back(item) : leave_out(name, item, unknown, true);
    }
    if (kept.items.size() == list.items.size()) return leave_out(name, list, reason, true);
    set(field, name, kept);
  }

  void add_alias(const Alias& alias, const std::string& name, Node value) {
    if (value.is_null()) return;
    try {
      if (alias.convert && !alias.convert(name, value)) return;
    } catch (const core::Error& error) {
      if (error.kind() != ErrorKind::kUsage) throw;
      return leave_out(name, value, error.what(), true);
    }
    set(*schema_.field(alias.target_group, alias.key), name, value);
  }

  void add_foreign(const ForeignKey& key, const std::string& group, const std::string& name, const Node& value) {
    if (key.is_quiet(value)) return;
    if (value.kind == Node::Kind::kMap && schema_.has_group(name)) {
      for (const Node::Entry& inner : value.entries) add(group, name, inner);
      return;
    }
    leave_out(name, value, std::string(key.reason), !key.has_no_effect(value));
  }

  void leave_out(const std::string& name, const Node& value, std::string reason, bool refused) {
    const bool secret = names_secret(name) || holds_secret(value.text);
    result_.left_out.push_back({name, secret ? std::string(kHidden) : render(value), std::move(reason), refused});
  }

  Schema schema_;
  RunConfig default_;
  FromTrainer result_;
};

}  // namespace

FromTrainer read_from_trainer(const std::vector<std::string>& files) {
  Translator translator;
  for (const std::string& file : files) translator.read(file);
  return translator.take();
}

}  // namespace neoloom::launch
