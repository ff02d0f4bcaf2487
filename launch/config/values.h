// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "data/options.h"
#include "launch/config/node.h"
#include "model/options.h"
#include "runtime/optim/schedule.h"
#include "runtime/train/options.h"

/// Converts nodes to typed values, and values to YAML. Every read_* throws Error(kUsage) "position: key: expected ...,
/// found ..." when the node does not fit.
namespace neoloom::launch {

/// A condition on a number, as text and as a predicate.
template <typename T>
struct Rule {
  std::string_view expected;
  bool (*holds)(T);
};
inline constexpr Rule<int64_t> kCount{"an integer of at least 0", [](int64_t v) { return v >= 0; }};
inline constexpr Rule<int64_t> kPositive{"an integer of at least 1", [](int64_t v) { return v >= 1; }};
inline constexpr Rule<int64_t> kMaxSteps{"-1 (use num_train_epochs) or an integer of at least 1",
                                         [](int64_t v) { return v == -1 || v >= 1; }};
inline constexpr Rule<double> kNotNegative{"a number of at least 0", [](double v) { return v >= 0; }};
inline constexpr Rule<double> kAboveZero{"a number above 0", [](double v) { return v > 0; }};
inline constexpr Rule<double> kBelowOne{"a number of at least 0 and below 1", [](double v) { return v >= 0 && v < 1; }};
inline constexpr Rule<double> kPercent{"a number from 0 to 100", [](double v) { return v >= 0 && v <= 100; }};
inline constexpr Rule<double> kSteps{"0, a count of steps, or a share of all steps between 0 and 1",
                                     [](double v) { return v >= 0 && (v < 1 || v == std::floor(v)); }};
inline constexpr Rule<double> kStepsAboveZero{"a count of steps, or a share of all steps between 0 and 1",
                                              [](double v) { return v > 0 && (v < 1 || v == std::floor(v)); }};

/// Accepted strings (none: any string), and those of Hugging Face that this version does not support.
struct Choices {
  std::vector<std::string> accepted;
  std::vector<std::string> later;
};

int64_t read_integer(const std::string& name, const Node& node, const Rule<int64_t>& rule);
double read_number(const std::string& name, const Node& node, const Rule<double>& rule);
bool read_flag(const std::string& name, const Node& node);
std::string read_choice(const std::string& name, const Node& node, const Choices& choices);
/// Reads a name. An integer counts as its text, for names such as column "0" and label 3.
std::string read_name(const std::string& name, const Node& node);
/// Reads a list of names, or one text: a regular expression if it has characters that no name has.
model::ModuleChoice read_modules(const std::string& name, const Node& node);
/// Reads true, false or a name.
model::AdapterInit read_adapter_init(const std::string& name, const Node& node);
/// Reads a map from names to integers of at least 1.
model::ModulePattern<int64_t> read_rank_pattern(const std::string& name, const Node& node);
/// Reads a map from names to numbers above 0.
model::ModulePattern<double> read_alpha_pattern(const std::string& name, const Node& node);
/// Reads auto, or a map from labels to numbers above 0. `null` counts as absent.
train::ClassWeights read_class_weights(const std::string& name, const Node& node);
train::NonFinitePolicy read_non_finite_policy(const std::string& name, const Node& node);
train::LossSpikePolicy read_loss_spike_policy(const std::string& name, const Node& node);
/// Reads a map from names to numbers or texts. `null` counts as absent.
optim::ScheduleArguments read_schedule_arguments(const std::string& name, const Node& node);
/// Reads a list of different integers of at least 0, or one.
std::vector<int64_t> read_counts(const std::string& name, const Node& node);
/// Reads PEFT's trainable_token_indices: what read_counts takes, also as {wte: ...}.
std::vector<int64_t> read_tokens(const std::string& name, const Node& node);
/// Reads GPTNeoConfig's attention_types: [[[global, local], 12]].
model::AttentionTypes read_attention_types(const std::string& name, const Node& node);
/// Reads a list of names, or one name.
std::vector<std::string> read_names(const std::string& name, const Node& node);
/// Reads names of files that a run also writes its metrics to: one or a list. `all` stands for all of them, `none` for
/// none. Refuses Hugging Face's services by name.
std::vector<std::string> read_report_to(const std::string& name, const Node& node);
/// Reads one ASCII character, or \t for a tab; empty: none.
std::string read_delimiter(const std::string& name, const Node& node);
/// Reads one path or pattern, or a list of them.
data::Files read_files(const std::string& name, const Node& node);
/// Files as read_files takes them, or a map from names to such files.
std::vector<data::ValidationFiles> read_validation(const std::string& name, const Node& node);
model::Dtype read_dtype(const std::string& name, const Node& node);
train::Interval read_interval(const std::string& name, const Node& node, const Choices& choices);

train::AutoFlag read_auto_flag(const std::string& name, const Node& node);
/// Reads auto, a number of bytes, or a number with KB, MB, GB, TB, KiB, MiB, GiB or TiB; at least 1 MB.
train::MemorySize read_memory_size(const std::string& name, const Node& node);

/// A text in double quotes, as YAML and JSON read it.
std::string quoted_text(const std::string& value);
std::string to_text(int64_t value);
std::string to_text(double value);
std::string to_text(bool value);
std::string to_text(const std::string& value);
std::string to_text(const std::vector<std::string>& value);
std::string to_text(const model::AttentionTypes& value);
std::string to_text(const data::Files& value);
std::string to_text(const std::vector<data::ValidationFiles>& value);
std::string to_text(const std::vector<int64_t>& value);
std::string to_text(const model::ModuleChoice& value);
std::string to_text(const model::AdapterInit& value);
std::string to_text(const optim::ScheduleArguments& value);
std::string to_text(const train::ClassWeights& value);
std::string to_text(const train::NonFinitePolicy& value);
std::string to_text(const train::LossSpikePolicy& value);
template <typename T>
std::string to_text(const model::ModulePattern<T>& value) {
  std::string text;
  for (const auto& [module, one] : value)
    text += (text.empty() ? "" : ", ") + quoted_text(module) + ": " + to_text(one);
  return "{" + text + "}";
}
std::string to_text(model::Dtype value);
std::string to_text(train::Interval value);
std::string to_text(train::AutoFlag value);
std::string to_text(train::MemorySize value);
template <typename T>
std::string to_text(const std::optional<T>& value) {
  return value ? to_text(*value) : "null";
}

}  // namespace neoloom::launch
