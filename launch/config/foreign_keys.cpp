// SPDX-License-Identifier: Apache-2.0
// Lists other spellings of neoloom's keys, and joins the tables of keys that people paste from Hugging Face scripts. No
// key is ignored in silence: it is taken without a word with Hugging Face's default and with values that mean what
// neoloom does anyway. Any other value gets one line that says why it has no effect, or is refused by name.
#include <algorithm>
#include <charconv>

#include "launch/config/schema.h"
#include "launch/config/values.h"
#include "runtime/core/error.h"

namespace neoloom::launch {

namespace {

constexpr std::string_view kModel = "model_config";
constexpr std::string_view kTokenizer = "tokenizer_config";
constexpr std::string_view kTrainer = "trainer_config";
constexpr std::string_view kData = "data";
constexpr std::string_view kRuntime = "runtime";

bool replace_if_true(const std::string& name, Node& node, const std::string& text) {
  if (!read_flag(name, node)) return false;
  node.kind = Node::Kind::kString;
  node.text = text;
  return true;
}

bool ratio_to_steps(const std::string& name, Node& node) { return read_number(name, node, kBelowOne) > 0; }
bool to_group_by_length(const std::string& name, Node& node) { return replace_if_true(name, node, "group_by_length"); }
bool to_adafactor(const std::string& name, Node& node) {
  return !node.is_null() && replace_if_true(name, node, "adafactor");
}
bool to_samples(const std::string& name, Node& node) {
  return !node.is_null() && replace_if_true(name, node, "samples");
}
bool to_cpu(const std::string& name, Node& node) { return replace_if_true(name, node, "cpu"); }
/// Drops Hugging Face's word for the dtype of the model's files: frozen_dtype then has its default.
bool unless_auto(const std::string&, Node& node) { return node.kind != Node::Kind::kString || node.text != "auto"; }
/// Drops Hugging Face's default. neoloom's own is shorter, since its ranks have heartbeats.
bool unless_half_an_hour(const std::string& name, Node& node) { return read_integer(name, node, kPositive) != 1800; }
bool to_skip(const std::string& name, Node& node) {
  const int64_t count = read_integer(name, node, kPositive);
  node.kind = Node::Kind::kString;
  node.text = "skip " + std::to_string(count);
  return true;
}
/// TRL's truncation_mode.
bool to_side(const std::string& name, Node& node) {
  const bool end = read_choice(name, node, {{"keep_start", "keep_end"}, {}}) == "keep_end";
  node.text = end ? "left" : "right";
  return true;
}
bool to_plain(const std::string& name, Node& node) { return !node.is_null() && replace_if_true(name, node, "plain"); }

/// Turns {id: name} or, with `names_first`, {name: id} into the list of names.
bool to_names(const std::string& name, Node& node, bool names_first) {
  const std::string expected = names_first ? "{ham: 0, spam: 1}" : "{0: ham, 1: spam}";
  core::require(node.kind == Node::Kind::kMap && !node.entries.empty(), core::ErrorKind::kUsage,
                "{}: {}: expected a map such as {}, found {}", node.position.text(), name, expected, render(node));
  Node list;
  list.kind = Node::Kind::kList;
  list.position = node.position;
  list.items.resize(node.entries.size());
  for (const Node::Entry& entry : node.entries) {
    Node label = entry.value;
    if (names_first) {
      label.kind = Node::Kind::kString;
      label.text = entry.key;
    }
    const std::string& id = names_first ? entry.value.text : entry.key;
    size_t at = list.items.size();
    const auto [rest, error] = std::from_chars(id.data(), id.data() + id.size(), at);
    const bool fits = error == std::errc() && rest == id.data() + id.size() && at < list.items.size() &&
                      list.items[at].is_null() && !label.is_null();
    core::require(fits, core::ErrorKind::kUsage,
                  "{}: {}.{}: {}: expected a name for each of the ids 0 to {}, such as {}", entry.position.text(), name,
                  entry.key, render(entry.value), list.items.size() - 1, expected);
    list.items[at] = std::move(label);
  }
  node = std::move(list);
  return true;
}
bool from_id2label(const std::string& name, Node& node) { return to_names(name, node, false); }
bool from_label2id(const std::string& name, Node& node) { return to_names(name, node, true); }

}  // namespace

bool ForeignKey::is_quiet(const Node& value) const {
  return std::find(quiet.begin(), quiet.end(), render(value)) != quiet.end();
}

bool ForeignKey::has_no_effect(const Node& value) const {
  return kind == Kind::kNoEffect || std::find(said.begin(), said.end(), render(value)) != said.end();
}

std::vector<Alias> make_aliases() {
  return {
      {kModel, "pretrained_model_name_or_path", kModel, "pretrained_model_name", false, {}},
      {kModel, "model_name_or_path", kModel, "pretrained_model_name", false, {}},
      {kModel, "dtype", kModel, "frozen_dtype", false, unless_auto},
      {kModel, "torch_dtype", kModel, "frozen_dtype", true, unless_auto},
      {kModel, "id2label", kData, "label_names", false, from_id2label},
      {kModel, "label2id", kData, "label_names", false, from_label2id},
      {kTokenizer, "pretrained_tokenizer_name_or_path", kTokenizer, "pretrained_tokenizer_name", false, {}},
      {kTokenizer, "pretrained_model_name_or_path", kTokenizer, "pretrained_tokenizer_name", false, {}},
      {kTokenizer, "tokenizer_name", kTokenizer, "pretrained_tokenizer_name", false, {}},
      {kTokenizer, "model_max_length", kTokenizer, "max_length", false, {}},
      {kTrainer, "warmup_ratio", kTrainer, "warmup_steps", true, ratio_to_steps},
      {kTrainer, "evaluation_strategy", kTrainer, "eval_strategy", true, {}},
      {kTrainer, "group_by_length", kTrainer, "train_sampling_strategy", true, to_group_by_length},
      {kTrainer, "adafactor", kTrainer, "optim", true, to_adafactor},
      {kTrainer, "no_cuda", kRuntime, "device", true, to_cpu},
      {kTrainer, "use_cpu", kRuntime, "device", false, to_cpu},
      {kTrainer, "disable_tqdm", "logging", "progress", false, to_plain},
      {kTrainer, "ddp_timeout", kRuntime, "peer_timeout_seconds", false, unless_half_an_hour},
      {kRuntime, "max_skipped_steps", kTrainer, "non_finite_policy", true, to_skip},
      {kTrainer, "max_length", kTokenizer, "max_length", false, {}},
      {kTrainer, "max_seq_length", kTokenizer, "max_length", false, {}},
      {kTrainer, "truncation_mode", kTokenizer, "truncation_side", false, to_side},
      {kTrainer, "dataset_text_field", kData, "text_column", false, {}},
      {kTrainer, "packing", kData, "pack", false, to_samples},
      {kTrainer, "invalid_data_tolerance_percent", kData, "invalid_data_tolerance_percent", false, {}},
      {"", "invalid_data_tolerance_percent", kData, "invalid_data_tolerance_percent", false, {}},
  };
}

std::vector<ForeignKey> make_foreign_keys() {
  std::vector<ForeignKey> out;
  for (const auto table :
       {foreign_model_keys, foreign_peft_keys, foreign_tokenizer_keys, foreign_trainer_keys, foreign_older_keys}) {
    const std::vector<ForeignKey> keys = table();
    out.insert(out.end(), keys.begin(), keys.end());
  }
  return out;
}

}  // namespace neoloom::launch
