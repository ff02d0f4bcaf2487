// SPDX-License-Identifier: Apache-2.0
#include "model/checkpoints/strict_json.h"

#include <set>
#include <vector>

#include "runtime/core/error.h"
#include "runtime/core/files.h"
#include "runtime/core/json.h"

namespace neoloom::model {
namespace {

constexpr size_t kMaxDepth = 32;

}  // namespace

nlohmann::json read_strict_json(const std::string& path, size_t limit_bytes) {
  using nlohmann::json;
  const core::MappedFile file(path, core::ErrorKind::kWeights);
  core::require(file.size_bytes() <= limit_bytes, core::ErrorKind::kWeights, "{}: {} bytes, at most {} are read", path,
                file.size_bytes(), limit_bytes);
  const std::string excess = core::json_excess(file.text(), kMaxDepth);
  core::require(excess.empty(), core::ErrorKind::kWeights, "{}: {}", path, excess);
  std::vector<std::set<std::string>> keys;
  const auto check = [&](int, json::parse_event_t event, json& value) {
    if (event == json::parse_event_t::object_start) keys.emplace_back();
    if (event == json::parse_event_t::object_end) keys.pop_back();
    if (event == json::parse_event_t::key) {
      const auto& name = value.get_ref<const std::string&>();
      core::require(keys.back().insert(name).second, core::ErrorKind::kWeights, "{}: the key '{}' appears twice", path,
                    name);
    }
    return true;
  };
  json document;
  try {
    document = json::parse(file.text().begin(), file.text().end(), check);
  } catch (const json::exception& error) {
    core::fail(core::ErrorKind::kWeights, "{}: not valid JSON: {}", path, core::json_complaint(error));
  }
  core::require(document.is_object(), core::ErrorKind::kWeights, "{}: expected a JSON object, found {}", path,
                document.type_name());
  return document;
}

}  // namespace neoloom::model
