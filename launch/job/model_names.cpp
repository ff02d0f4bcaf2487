// SPDX-License-Identifier: Apache-2.0
#include "launch/job/model_names.h"

#include <filesystem>
#include <set>

#include "runtime/core/error.h"
#include "runtime/core/text.h"

namespace neoloom::launch {
namespace {

namespace fs = std::filesystem;

struct NamedFolder {
  std::string name;
  std::string folder;
};

NamedFolder split(const std::string& word) {
  const size_t sign = word.find('=');
  std::error_code ignored;
  if (sign == std::string::npos || fs::exists(word, ignored)) return {"", word};
  return {word.substr(0, sign), word.substr(sign + 1)};
}

std::string name_of(const std::string& folder) {
  fs::path path = fs::path(folder).lexically_normal();
  if (!path.has_filename()) path = path.parent_path();  // a slash at the end
  if (path.filename() == "adapter" && path.has_parent_path()) path = path.parent_path();
  return path.filename().string();
}

}  // namespace

std::vector<std::pair<std::string, ModelArguments>> name_models(const ModelsArguments& arguments) {
  const bool runs = !arguments.runs.empty();
  const std::vector<std::string>& words = runs ? arguments.runs : arguments.adapters;
  if (words.empty()) return {{"", {"", arguments.model, "", arguments.overrides, "", arguments.no_calibration}}};
  std::vector<std::pair<std::string, ModelArguments>> models;
  std::set<std::string> names;
  for (const std::string& word : words) {
    auto [name, folder] = split(word);
    if (name.empty() && words.size() > 1) name = name_of(folder);
    core::require(names.insert(name).second && name != "index", core::ErrorKind::kUsage,
                  "the name {} {}; give another one: {} NAME={}", core::quoted(name),
                  name == "index" ? "is that of a row's number" : "stands for two models", runs ? "--run" : "--adapter",
                  folder);
    models.push_back({name,
                      {runs ? folder : "", arguments.model, runs ? "" : folder, arguments.overrides,
                       arguments.checkpoint, arguments.no_calibration}});
  }
  return models;
}

}  // namespace neoloom::launch
