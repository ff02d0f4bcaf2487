// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>

#include "launch/config/schema.h"

namespace neoloom::launch {
namespace {

std::map<std::string, std::string> values_of(const RunConfig& config, bool (*wanted)(const Field&)) {
  std::map<std::string, std::string> out;
  if (!config.peft_config) out["peft_config"] = "null";
  for (const Field& field : make_fields()) {
    const bool absent = field.group == "peft_config" && !config.peft_config;
    if (!absent && wanted(field)) out[field.name()] = field.write(config);
  }
  return out;
}

}  // namespace

std::string to_yaml(const RunConfig& config) {
  const Schema schema;
  std::string out;
  for (const std::string& group : schema.groups) {
    if (group == "peft_config" && !config.peft_config) {
      out += "peft_config: null\n";
      continue;
    }
    out += group + ":\n";
    for (const Field& field : schema.fields) {
      if (field.group == group) out += fmt::format("  {}: {}\n", field.key, field.write(config));
    }
  }
  return out;
}

std::map<std::string, std::string> flatten(const RunConfig& config) {
  return values_of(config, [](const Field&) { return true; });
}

std::map<std::string, std::string> compared_keys(const RunConfig& config) {
  return values_of(config, [](const Field& field) { return field.identity == Identity::kCompared; });
}

std::set<std::string> free_keys() {
  std::set<std::string> names;
  for (const Field& field : make_fields()) {
    if (field.identity == Identity::kFree) names.insert(field.name());
  }
  return names;
}

}  // namespace neoloom::launch
