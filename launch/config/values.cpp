// SPDX-License-Identifier: Apache-2.0
#include "launch/config/values.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <utility>

#include "launch/config/redact.h"
#include "launch/config/tree_builder.h"
#include "runtime/core/error.h"
#include "runtime/metrics/event_sinks.h"

namespace neoloom::launch {

using core::ErrorKind;

namespace {

constexpr std::array<std::pair<train::Interval, std::string_view>, 4> kIntervals = {{{train::Interval::kNo, "no"},
                                                                                     {train::Interval::kSteps, "steps"},
                                                                                     {train::Interval::kEpoch, "epoch"},
                                                                                     {train::Interval::kBest, "best"}}};

/// Lists what a unit of memory stands for; "" counts bytes.
constexpr std::array<std::pair<std::string_view, double>, 9> kMemoryUnits = {{{"", 1.0},
                                                                              {"KB", 1e3},
                                                                              {"MB", 1e6},
                                                                              {"GB", 1e9},
                                                                              {"TB", 1e12},
                                                                              {"KiB", 0x1p10},
                                                                              {"MiB", 0x1p20},
                                                                              {"GiB", 0x1p30},
                                                                              {"TiB", 0x1p40}}};
constexpr double kLeastMemory = 1e6;
constexpr double kMostMemory = 1e18;
constexpr double kMostExactInteger = 0x1p53;

bool contains(const std::vector<std::string>& list, const std::string& text) {
  return std::find(list.begin(), list.end(), text) != list.end();
}

[[noreturn]] void wrong_value(const std::string& name, const Node& node, std::string_view expected) {
  // Shows a number as it was written: 4.0 is not 4.
  std::string found = node.is_number() ? node.text : render(node);
  if (node.kind == Node::Kind::kString) found = fmt::format("\"{}\"", found);
  if (names_secret(name)) found = kHidden;
  core::fail(ErrorKind::kUsage, "{}: {}: expected {}, found {} ({})", node.position.text(), name, expected, found,
             kind_name(node));
}

}  // namespace

int64_t read_integer(const std::string& name, const Node& node, const Rule<int64_t>& rule) {
  // Other programs write 4.0 for an integer.
  const bool whole =
      node.kind == Node::Kind::kReal && std::abs(node.real) <= kMostExactInteger && node.real == std::floor(node.real);
  const int64_t value = whole ? static_cast<int64_t>(node.real) : node.integer;
  if ((node.kind != Node::Kind::kInteger && !whole) || !rule.holds(value)) wrong_value(name, node, rule.expected);
  return value;
}

double read_number(const std::string& name, const Node& node, const Rule<double>& rule) {
  if (!node.is_number() || !rule.holds(node.real)) wrong_value(name, node, rule.expected);
  return node.real;
}

bool read_flag(const std::string& name, const Node& node) {
  if (node.kind != Node::Kind::kBool) wrong_value(name, node, "true or false, without quotes");
  return node.boolean;
}

std::string read_choice(const std::string& name, const Node& node, const Choices& choices) {
  if (node.kind != Node::Kind::kString) {
    wrong_value(name, node,
                choices.accepted.empty() ? "a string" : fmt::format("one of {}", fmt::join(choices.accepted, ", ")));
  }
  if (choices.accepted.empty() || contains(choices.accepted, node.text)) return node.text;
  if (contains(choices.later, node.text)) {
    core::fail(ErrorKind::kUsage, "{}: {}: \"{}\" is not supported yet; this version knows {}", node.position.text(),
               name, node.text, fmt::join(choices.accepted, ", "));
  }
  wrong_value(name, node, fmt::format("one of {}", fmt::join(choices.accepted, ", ")));
}

std::string read_name(const std::string& name, const Node& node) {
  if (node.kind != Node::Kind::kString && node.kind != Node::Kind::kInteger) wrong_value(name, node, "a name");
  return node.text;
}

std::vector<std::string> read_names(const std::string& name, const Node& node) {
  if (node.kind != Node::Kind::kList) {
    if (node.kind != Node::Kind::kString) wrong_value(name, node, "a list of names");
    return {node.text};
  }
  std::vector<std::string> names;
  for (const Node& item : node.items) {
    names.push_back(read_name(name, item));
    core::require(std::count(names.begin(), names.end(), names.back()) == 1, ErrorKind::kUsage,
                  "{}: {}: \"{}\" is listed twice", item.position.text(), name, names.back());
  }
  return names;
}

std::vector<std::string> read_report_to(const std::string& name, const Node& node) {
  const std::vector<std::string> known(std::begin(metrics::kSinkNames), std::end(metrics::kSinkNames));
  constexpr std::string_view kServices[] = {"wandb",   "mlflow",  "comet_ml", "clearml", "neptune", "trackio",
                                            "swanlab", "dagshub", "azure_ml", "flyte",   "dvclive", "codecarbon"};
  std::vector<std::string> wanted = read_names(name, node);
  for (const std::string& word : wanted) {
    core::require(std::find(std::begin(kServices), std::end(kServices), word) == std::end(kServices), ErrorKind::kUsage,
                  "{}: {}: {} is not supported: neoloom sends nothing over a network. metrics.jsonl in the run folder "
                  "holds every figure and can be uploaded from there; or choose from {}, all, none",
                  node.position.text(), name, word, fmt::join(known, ", "));
    const bool alone = word == "all" || word == "none";
    if ((alone && wanted.size() > 1) || (!alone && !contains(known, word))) {
      wrong_value(name, node, fmt::format("all, none, or some of {}", fmt::join(known, ", ")));
    }
  }
  if (wanted == std::vector<std::string>{"none"}) return {};
  return wanted == std::vector<std::string>{"all"} ? known : wanted;
}

std::string read_delimiter(const std::string& name, const Node& node) {
  std::string text = node.kind == Node::Kind::kString && node.text == "\\t" ? "\t" : read_name(name, node);
  const bool fits = text.empty() || (text.size() == 1 && static_cast<unsigned char>(text[0]) < 0x80 &&
                                     std::string_view("\"\r\n").find(text[0]) == std::string_view::npos);
  if (!fits) wrong_value(name, node, "one ASCII character other than a quote or a line end, such as ';'");
  return text;
}

data::Files read_files(const std::string& name, const Node& node) {
  if (node.kind == Node::Kind::kList) return read_names(name, node);
  return read_choice(name, node, {});
}

std::vector<data::ValidationFiles> read_validation(const std::string& name, const Node& node) {
  constexpr std::string_view kInNames = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-";
  if (node.kind != Node::Kind::kMap) {
    data::Files files = read_files(name, node);
    return files.empty() ? std::vector<data::ValidationFiles>() : std::vector<data::ValidationFiles>{{"", files}};
  }
  std::vector<data::ValidationFiles> sets;
  for (const Node::Entry& entry : node.entries) {
    core::require(!entry.key.empty() && entry.key.find_first_not_of(kInNames) == std::string::npos, ErrorKind::kUsage,
                  "{}: {}: {}: expected a name of letters, digits, _ and -, which becomes part of the metrics' names",
                  entry.position.text(), name, nlohmann::json(entry.key).dump());
    sets.push_back({entry.key, read_files(name + "." + entry.key, entry.value)});
    core::require(!sets.back().files.empty(), ErrorKind::kUsage, "{}: {}.{}: expected a file", entry.position.text(),
                  name, entry.key);
  }
  return sets;
}

model::ModuleChoice read_modules(const std::string& name, const Node& node) {
  constexpr std::string_view kInNames = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-";
  model::ModuleChoice choice{read_names(name, node)};
  choice.is_expression = node.kind == Node::Kind::kString && node.text.find_first_not_of(kInNames) != std::string::npos;
  return choice;
}

model::AdapterInit read_adapter_init(const std::string& name, const Node& node) {
  if (node.kind == Node::Kind::kBool) return model::init_from_name(node.boolean ? "true" : "false");
  if (node.kind != Node::Kind::kString) wrong_value(name, node, "true, false, or the name of an initialisation");
  try {
    return model::init_from_name(node.text);
  } catch (const core::Error& error) {
    core::fail(ErrorKind::kUsage, "{}: peft_config.{}", node.position.text(), error.what());
  }
}

namespace {

/// Reads a map; `read` reads one value.
template <typename T, typename Read>
model::ModulePattern<T> read_pattern(const std::string& name, const Node& node, std::string_view expected, Read read) {
  if (node.kind != Node::Kind::kMap) wrong_value(name, node, expected);
  model::ModulePattern<T> pattern;
  for (const Node::Entry& entry : node.entries)
    pattern.emplace_back(entry.key, read(name + "." + entry.key, entry.value));
  return pattern;
}

}  // namespace

model::ModulePattern<int64_t> read_rank_pattern(const std::string& name, const Node& node) {
  return read_pattern<int64_t>(name, node, "a map from modules to ranks, such as {q_proj: 4}",
                               [](const auto& key, const Node& value) { return read_integer(key, value, kPositive); });
}

model::ModulePattern<double> read_alpha_pattern(const std::string& name, const Node& node) {
  return read_pattern<double>(name, node, "a map from modules to numbers, such as {q_proj: 32}",
                              [](const auto& key, const Node& value) { return read_number(key, value, kAboveZero); });
}

train::ClassWeights read_class_weights(const std::string& name, const Node& node) {
  constexpr std::string_view kExpected = "auto, or a map from labels to numbers, such as {ham: 1, spam: 6.5}";
  if (node.kind == Node::Kind::kString && node.text == "auto") return {.balanced = true, .of_labels = {}};
  if (node.kind == Node::Kind::kMap && node.entries.empty()) wrong_value(name, node, kExpected);
  return {.balanced = false,
          .of_labels = read_pattern<double>(name, node, kExpected, [](const auto& key, const Node& value) {
            return read_number(key, value, kAboveZero);
          })};
}

train::NonFinitePolicy read_non_finite_policy(const std::string& name, const Node& node) {
  constexpr std::string_view kSkip = "skip ";
  constexpr std::string_view kExpected = "abort, or skip N: how many such steps in a row end the run, at least 1";
  if (node.kind != Node::Kind::kString) wrong_value(name, node, kExpected);
  if (node.text == "abort") return {.most_skipped = 1};
  const char* const end = node.text.data() + node.text.size();
  int64_t count = 0;
  const bool skips = node.text.starts_with(kSkip);
  const auto [rest, error] = std::from_chars(skips ? node.text.data() + kSkip.size() : end, end, count);
  if (error != std::errc() || rest != end || count < 1) wrong_value(name, node, kExpected);
  return {.most_skipped = count};
}

train::LossSpikePolicy read_loss_spike_policy(const std::string& name, const Node& node) {
  constexpr std::string_view kExpected = "a map such as {z_score: 6, window: 100, most_skipped: 10}";
  constexpr Rule<int64_t> kWindow{"an integer of at least 2", [](int64_t v) { return v >= 2; }};
  if (node.kind != Node::Kind::kMap) wrong_value(name, node, kExpected);
  train::LossSpikePolicy policy;
  for (const Node::Entry& entry : node.entries) {
    const std::string key = name + "." + entry.key;
    if (entry.key == "z_score") {
      policy.z_score = read_number(key, entry.value, kAboveZero);
    } else if (entry.key == "window") {
      policy.window = read_integer(key, entry.value, kWindow);
    } else if (entry.key == "most_skipped") {
      policy.most_skipped = read_integer(key, entry.value, kPositive);
    } else {
      core::fail(ErrorKind::kUsage, "{}: unknown key {}; expected {}", entry.position.text(), key, kExpected);
    }
  }
  if (!policy.given()) wrong_value(name, node, "z_score, in " + std::string(kExpected));
  return policy;
}

optim::ScheduleArguments read_schedule_arguments(const std::string& name, const Node& node) {
  if (node.kind != Node::Kind::kMap) wrong_value(name, node, "a map from names to numbers, such as {num_cycles: 2}");
  optim::ScheduleArguments arguments;
  for (const Node::Entry& entry : node.entries) {
    const Node& value = entry.value;
    if (value.is_null()) continue;
    if (value.is_number()) {
      arguments[entry.key] = value.real;
    } else if (value.kind == Node::Kind::kBool) {
      arguments[entry.key] = value.boolean ? 1.0 : 0.0;
    } else if (value.kind == Node::Kind::kString) {
      arguments[entry.key] = value.text;
    } else {
      wrong_value(name + "." + entry.key, value, "a number, a string, true or false");
    }
  }
  return arguments;
}

std::vector<int64_t> read_counts(const std::string& name, const Node& node) {
  if (node.kind != Node::Kind::kList) return {read_integer(name, node, kCount)};
  std::vector<int64_t> values;
  for (const Node& item : node.items) {
    values.push_back(read_integer(name, item, kCount));
    core::require(std::count(values.begin(), values.end(), values.back()) == 1, ErrorKind::kUsage,
                  "{}: {}: {} is listed twice", item.position.text(), name, values.back());
  }
  return values;
}

std::vector<int64_t> read_tokens(const std::string& name, const Node& node) {
  constexpr std::string_view kExpected = "a list of token ids, or {wte: [...]}";
  if (node.kind != Node::Kind::kMap) {
    if (node.kind != Node::Kind::kList && node.kind != Node::Kind::kInteger) wrong_value(name, node, kExpected);
    return read_counts(name, node);
  }
  if (node.entries.empty()) return {};
  const Node::Entry& entry = node.entries.front();
  core::require(node.entries.size() == 1 && (entry.key == "wte" || entry.key == "transformer.wte"), ErrorKind::kUsage,
                "{}: {}: only rows of wte can be trained; expected {}", entry.position.text(), name, kExpected);
  return read_counts(name + "." + entry.key, entry.value);
}

model::AttentionTypes read_attention_types(const std::string& name, const Node& node) {
  constexpr const char* kExpected = "a list of [[global | local, ...], count], such as [[[global, local], 12]]";
  if (node.kind != Node::Kind::kList) wrong_value(name, node, kExpected);
  model::AttentionTypes types;
  for (const Node& item : node.items) {
    if (item.kind != Node::Kind::kList || item.items.size() != 2) wrong_value(name, item, kExpected);
    types.emplace_back(read_names(name, item.items[0]), read_integer(name, item.items[1], kCount));
  }
  return types;
}

model::Dtype read_dtype(const std::string& name, const Node& node) {
  if (node.kind != Node::Kind::kString) wrong_value(name, node, "one of float16, bfloat16, float32");
  try {
    return model::dtype_from_name(node.text);
  } catch (const core::Error&) {
    wrong_value(name, node, "one of float16, bfloat16, float32");
  }
}

train::Interval read_interval(const std::string& name, const Node& node, const Choices& choices) {
  const std::string text = read_choice(name, node, choices);
  for (const auto& [value, spelling] : kIntervals) {
    if (spelling == text) return value;
  }
  wrong_value(name, node, "one of no, steps, epoch");
}

train::AutoFlag read_auto_flag(const std::string& name, const Node& node) {
  if (node.kind == Node::Kind::kString && node.text == "auto") return train::AutoFlag::kAuto;
  if (node.kind != Node::Kind::kBool) wrong_value(name, node, "true, false or auto, without quotes");
  return node.boolean ? train::AutoFlag::kTrue : train::AutoFlag::kFalse;
}

train::MemorySize read_memory_size(const std::string& name, const Node& node) {
  constexpr std::string_view kExpected = "auto, or a size of at least 1 MB such as 12GiB or 800MB";
  if (node.kind == Node::Kind::kString && node.text == "auto") return {};
  if (node.kind != Node::Kind::kString && !node.is_number()) wrong_value(name, node, kExpected);
  const char* const begin = node.text.c_str();
  char* end = nullptr;
  const double number = std::strtod(begin, &end);
  while (*end == ' ') ++end;
  const auto unit = std::find_if(kMemoryUnits.begin(), kMemoryUnits.end(),
                                 [&](const auto& known) { return known.first == std::string_view(end); });
  if (end == begin || unit == kMemoryUnits.end()) wrong_value(name, node, kExpected);
  const double bytes = number * unit->second;
  if (!(bytes >= kLeastMemory && bytes <= kMostMemory)) wrong_value(name, node, kExpected);
  return {static_cast<int64_t>(bytes)};
}

std::string quoted_text(const std::string& value) { return nlohmann::json(value).dump(); }

std::string to_text(int64_t value) { return fmt::format("{}", value); }

// Writes 5.0e-05 for 5e-05, which YAML 1.1 readers take for a string.
std::string to_text(double value) {
  std::string text = fmt::format("{}", value);
  const size_t exponent = text.find('e');
  if (exponent != std::string::npos && text.find('.') == std::string::npos) text.insert(exponent, ".0");
  return text;
}

std::string to_text(bool value) { return value ? "true" : "false"; }

// Writes a text without quotes only when every YAML reader takes it for a string: older ones take no, yes, on, off, y,
// n for truth values.
std::string to_text(const std::string& value) {
  constexpr std::string_view kBare = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./-";
  const bool bare = value.size() > 3 && value.find_first_not_of(kBare) == std::string::npos &&
                    value.find_first_of("-.") != 0 && resolve_plain(value).kind == Node::Kind::kString;
  return bare ? value : quoted_text(value);
}

std::string to_text(const std::vector<std::string>& value) {
  std::vector<std::string> parts;
  std::transform(value.begin(), value.end(), std::back_inserter(parts),
                 [](const std::string& item) { return to_text(item); });
  return fmt::format("[{}]", fmt::join(parts, ", "));
}

std::string to_text(const model::AttentionTypes& value) {
  std::vector<std::string> parts;
  for (const auto& [types, count] : value) parts.push_back(fmt::format("[{}, {}]", to_text(types), count));
  return fmt::format("[{}]", fmt::join(parts, ", "));
}

std::string to_text(const data::Files& value) {
  if (value.names.size() > 1) return to_text(value.names);
  return to_text(value.empty() ? std::string() : value.names.front());
}

std::string to_text(const std::vector<data::ValidationFiles>& value) {
  if (value.empty() || value.front().name.empty()) return to_text(value.empty() ? data::Files() : value.front().files);
  std::vector<std::string> parts;
  parts.reserve(value.size());
  for (const auto& [name, files] : value) parts.push_back(fmt::format("{}: {}", quoted_text(name), to_text(files)));
  return fmt::format("{{{}}}", fmt::join(parts, ", "));
}

std::string to_text(const std::vector<int64_t>& value) { return fmt::format("[{}]", fmt::join(value, ", ")); }

std::string to_text(const model::ModuleChoice& value) {
  return value.is_expression ? quoted_text(value.names.front()) : to_text(value.names);
}

std::string to_text(const train::ClassWeights& value) {
  if (!value.given()) return "null";
  return value.balanced ? "\"auto\"" : to_text(value.of_labels);
}
std::string to_text(const train::NonFinitePolicy& value) {
  return value.aborts() ? "abort" : fmt::format("\"skip {}\"", value.most_skipped);
}

std::string to_text(const train::LossSpikePolicy& value) {
  if (!value.given()) return "null";
  return fmt::format("{{z_score: {}, window: {}, most_skipped: {}}}", to_text(value.z_score), value.window,
                     value.most_skipped);
}

std::string to_text(const model::AdapterInit& value) { return model::init_name(value); }

std::string to_text(const optim::ScheduleArguments& value) {
  std::vector<std::string> parts;
  for (const auto& [name, argument] : value) {
    parts.push_back(
        fmt::format("{}: {}", quoted_text(name), std::visit([](const auto& v) { return to_text(v); }, argument)));
  }
  return fmt::format("{{{}}}", fmt::join(parts, ", "));
}

std::string to_text(model::Dtype value) { return model::dtype_name(value); }

std::string to_text(train::Interval value) {
  for (const auto& [known, spelling] : kIntervals) {
    if (known == value) return to_text(std::string(spelling));
  }
  return "\"no\"";
}

std::string to_text(train::AutoFlag value) {
  if (value == train::AutoFlag::kAuto) return "auto";
  return to_text(value == train::AutoFlag::kTrue);
}

std::string to_text(train::MemorySize value) {
  if (value.bytes == 0) return "auto";
  constexpr int64_t kMebibyte = int64_t{1} << 20;
  return value.bytes % kMebibyte == 0 ? fmt::format("{}MiB", value.bytes / kMebibyte) : to_text(value.bytes);
}

}  // namespace neoloom::launch
