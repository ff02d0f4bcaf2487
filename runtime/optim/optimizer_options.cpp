// SPDX-License-Identifier: Apache-2.0
#include "runtime/optim/optimizer_options.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <functional>
#include <numeric>
#include <string_view>

#include "runtime/core/error.h"
#include "runtime/optim/block_codes.h"

namespace neoloom::optim {
namespace {

using core::ErrorKind;

struct Name {
  std::string_view name;
  OptimizerKind kind;
};

// The first name of a kind is its canonical one.
constexpr std::array<Name, 9> kNames = {{{"adamw_torch", OptimizerKind::kAdamW},
                                         {"adamw_torch_fused", OptimizerKind::kAdamW},
                                         {"sgd", OptimizerKind::kSgd},
                                         {"adafactor", OptimizerKind::kAdafactor},
                                         {"lion_32bit", OptimizerKind::kLion},
                                         {"lion", OptimizerKind::kLion},
                                         {"adamw_8bit", OptimizerKind::kAdamW8bit},
                                         {"adamw_bnb_8bit", OptimizerKind::kAdamW8bit},
                                         {"adamw_torch_8bit", OptimizerKind::kAdamW8bit}}};

OptimizerKind kind_of(const std::string& name) {
  const auto found = std::find_if(kNames.begin(), kNames.end(), [&](const Name& known) { return known.name == name; });
  core::require(found != kNames.end(), ErrorKind::kUsage, "unknown optimizer \"{}\"; expected one of {}", name,
                fmt::join(optimizer_names(), ", "));
  return found->kind;
}

double number_of(const std::string& key, const std::string& text) {
  double value = 0.0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  core::require(error == std::errc() && end == text.data() + text.size() && value >= 0.0 && std::isfinite(value),
                ErrorKind::kUsage, "optim_args: {}: expected a number of at least 0, found \"{}\"", key, text);
  return value;
}

// Reads what Hugging Face takes for true; it takes everything else for false.
bool flag_of(const std::string& key, std::string text) {
  std::transform(text.begin(), text.end(), text.begin(), [](unsigned char c) { return std::tolower(c); });
  const bool yes = text == "true" || text == "1" || text == "yes";
  core::require(yes || text == "false" || text == "0" || text == "no", ErrorKind::kUsage,
                "optim_args: {}: expected true or false, found \"{}\"", key, text);
  return yes;
}

void set_sgd(OptimizerOptions& options, const std::string& key, const std::string& value) {
  if (key == "momentum") {
    options.momentum = number_of(key, value);
  } else if (key == "dampening") {
    options.dampening = number_of(key, value);
  } else if (key == "nesterov") {
    options.nesterov = flag_of(key, value);
  } else {
    core::fail(ErrorKind::kUsage, "optim_args: sgd has no argument \"{}\"; it has momentum, dampening, nesterov{}", key,
               key == "weight_decay" ? ". trainer_config.weight_decay sets it" : "");
  }
}

// Calls set(key, value) for each mapping of "key=value,key=value". As in Hugging Face, blanks do not count.
void for_each_argument(std::string text, const std::function<void(const std::string&, const std::string&)>& set) {
  std::erase(text, ' ');
  while (!text.empty()) {
    const size_t comma = text.find(',');
    const std::string mapping = text.substr(0, comma);
    const size_t equals = mapping.find('=');
    core::require(equals != std::string::npos && equals > 0, ErrorKind::kUsage,
                  "optim_args: expected key=value,key=value, found \"{}\"", mapping);
    set(mapping.substr(0, equals), mapping.substr(equals + 1));
    text = comma == std::string::npos ? "" : text.substr(comma + 1);
  }
}

}  // namespace

std::vector<std::string> optimizer_names() {
  std::vector<std::string> names;
  names.reserve(kNames.size());
  for (const Name& known : kNames) names.emplace_back(known.name);
  return names;
}

std::string canonical_optimizer(const std::string& name) {
  const OptimizerKind kind = kind_of(name);
  return std::string(
      std::find_if(kNames.begin(), kNames.end(), [kind](const Name& known) { return known.kind == kind; })->name);
}

OptimizerOptions make_optimizer_options(const std::string& name, const std::string& arguments) {
  OptimizerOptions options;
  options.kind = kind_of(name);
  for_each_argument(arguments, [&](const std::string& key, const std::string& value) {
    core::require(options.kind == OptimizerKind::kSgd, ErrorKind::kUsage,
                  "optim_args: {} has no argument \"{}\"; remove optim_args (the adam_ keys set betas and epsilon)",
                  name, key);
    set_sgd(options, key, value);
  });
  core::require(!options.nesterov || (options.momentum > 0.0 && options.dampening == 0.0), ErrorKind::kUsage,
                "optim_args: nesterov=true needs a momentum above 0 and no dampening");
  return options;
}

int64_t StateSizes::bytes() const { return (exp_avg + exp_avg_sq) * static_cast<int64_t>(sizeof(float)) + 2 * codes; }

StateSizes state_sizes(const OptimizerOptions& options, int64_t n_elements, int64_t factored_elements) {
  const int64_t blocks = block_count(n_elements);
  switch (options.kind) {
    case OptimizerKind::kAdamW:
      return {n_elements, n_elements, 0};
    case OptimizerKind::kSgd:
      return {options.momentum > 0.0 ? n_elements : 0, 0, 0};
    case OptimizerKind::kAdafactor:
      return {0, factored_elements, 0};
    case OptimizerKind::kLion:
      return {n_elements, 0, 0};
    case OptimizerKind::kAdamW8bit:
      return {blocks, blocks, n_elements};
  }
  core::fail(ErrorKind::kInternal, "unknown kind of optimizer");
}

int64_t factored_elements(const std::vector<int64_t>& shape) {
  if (shape.size() == 2) return shape[0] + shape[1];
  return std::accumulate(shape.begin(), shape.end(), int64_t{1}, std::multiplies<>());
}

std::string state_name(OptimizerKind kind) {
  switch (kind) {
    case OptimizerKind::kAdamW:
      return "adamw";
    case OptimizerKind::kSgd:
      return "sgd";
    case OptimizerKind::kAdafactor:
      return "adafactor";
    case OptimizerKind::kLion:
      return "lion";
    case OptimizerKind::kAdamW8bit:
      return "adamw_8bit";
  }
  core::fail(ErrorKind::kInternal, "unknown kind of optimizer");
}

}  // namespace neoloom::optim
