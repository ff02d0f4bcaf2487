// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "launch/config/mistakes.h"
#include "launch/config/node.h"
#include "launch/config/run_config.h"

namespace neoloom::launch {

/// Whether a key changes bits, and so belongs to the run identity (launch/job/run_identity.h). configs/README.md lists
/// the keys that are not kCompared.
enum class Identity {
  kCompared,  // changes bits: a resume refuses another value
  kResolved,  // changes bits; a resume compares what it resolves to: a hash, the device, a run length that may grow
  kMeasured,  // changes no bits; changes what log lines and evaluations measure, where a run ends, or what it keeps
  kFree,      // changes none of these
};

/// One key of the configuration, and how to read its value into a RunConfig and write it as text.
struct Field {
  std::string group;
  std::string key;
  Identity identity;
  bool null_is_default = false;  // `key: null` leaves the default
  /// Throws: Error(kUsage) naming position and key when the value has the wrong type or lies outside its range.
  /// Fields of peft_config require RunConfig::peft_config to have a value.
  std::function<void(RunConfig&, const Node&)> read;
  std::function<std::string(const RunConfig&)> write;  // YAML
  std::string name() const { return group + "." + key; }
};

/// An older or foreign spelling of a key.
struct Alias {
  std::string_view group;
  std::string_view old_key;
  std::string_view target_group;
  std::string_view key;
  bool outdated = false;  // deprecated: warn
  /// Converts the old value to the new one (`name` for messages); returns false if the old value has no effect. May be
  /// empty: same value.
  std::function<bool(const std::string& name, Node&)> convert;
};

/// A key of Hugging Face's classes that has no effect here, or is not supported. configs/KEYS.md shows them all.
struct ForeignKey {
  enum class Kind {
    kNoEffect,  // any value is taken, with a line that says why it has no effect
    kRefused,   // values other than `quiet` and `said` are refused
  };
  std::string_view group;
  Kind kind;
  std::string_view key;
  std::vector<std::string_view> quiet;      // rendered values taken without a word; the first: Hugging Face's default
  std::string_view reason;                  // why, and what to do instead
  std::vector<std::string_view> said = {};  // values of a refused key that are taken with a line
  bool is_quiet(const Node& value) const;
  bool has_no_effect(const Node& value) const;
};

/// All keys of the configuration. Fields are in the order in which a configuration is printed.
struct Schema {
  Schema();
  std::vector<std::string> groups;
  std::vector<Field> fields;
  std::vector<Alias> aliases;
  std::vector<ForeignKey> foreign;
  const Field* field(std::string_view group, std::string_view key) const;
  const Alias* alias(std::string_view group, std::string_view key) const;
  const ForeignKey* foreign_key(std::string_view group, std::string_view key) const;
  /// Whether `group` has foreign keys, e.g. "trainer_config.fsdp_config".
  bool has_group(std::string_view group) const;
};

std::vector<Field> make_fields();
std::vector<Alias> make_aliases();
std::vector<ForeignKey> make_foreign_keys();
/// The parts of make_foreign_keys, in files of their names.
std::vector<ForeignKey> foreign_model_keys();
std::vector<ForeignKey> foreign_peft_keys();
std::vector<ForeignKey> foreign_tokenizer_keys();
std::vector<ForeignKey> foreign_trainer_keys();
std::vector<ForeignKey> foreign_older_keys();

/// Resolves values that depend on others (compute dtype, label column) and notes impossible combinations in `found`.
void resolve_and_check(RunConfig& config, Mistakes& found, const KeyLocation& place);

}  // namespace neoloom::launch
