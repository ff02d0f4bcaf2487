// SPDX-License-Identifier: Apache-2.0
#include "model/checkpoints/weight_files.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <filesystem>
#include <set>

#include "model/checkpoints/safetensors.h"
#include "model/checkpoints/strict_json.h"
#include "model/checkpoints/tensor_names.h"
#include "model/checkpoints/torch_file.h"
#include "model/parameter_table.h"
#include "runtime/core/error.h"

namespace neoloom::model {
namespace {

namespace fs = std::filesystem;
using core::ErrorKind;

constexpr size_t kMaxIndexBytes = size_t{16} << 20;

bool exists(const std::string& folder, const char* name) { return fs::exists(fs::path(folder) / name); }

/// Returns null when the folder has no weights.
const WeightFormat* find_format(const std::string& folder) {
  for (const WeightFormat& format : kWeightFormats) {
    if (exists(folder, format.single_file) || exists(folder, format.index_file)) return &format;
  }
  return nullptr;
}

const WeightFormat& format_of(const std::string& folder) {
  const WeightFormat* format = find_format(folder);
  if (format == nullptr) {
    core::fail(ErrorKind::kWeights, "{}: expected {}, {}, or one of them in shards with {} or {}; found none", folder,
               kWeightFormats[0].single_file, kWeightFormats[1].single_file, kWeightFormats[0].index_file,
               kWeightFormats[1].index_file);
  }
  return *format;
}

/// Returns the shard's file name for each tensor name.
std::map<std::string, std::string> read_index(const std::string& folder, const WeightFormat& format) {
  const std::string path = (fs::path(folder) / format.index_file).string();
  const nlohmann::json document = read_strict_json(path, kMaxIndexBytes);
  const auto map = document.find("weight_map");
  core::require(map != document.end() && map->is_object() && !map->empty(), ErrorKind::kWeights,
                "{}: expected an object 'weight_map' from tensor names to files", path);
  std::map<std::string, std::string> shards;
  for (const auto& [name, file] : map->items()) {
    core::require(file.is_string(), ErrorKind::kWeights, "{}: the file of '{}' is not a string", path, name);
    const std::string text = file.get<std::string>();
    const bool plain = text.find('/') == std::string::npos && text.find('\\') == std::string::npos &&
                       text.find('\0') == std::string::npos && !text.starts_with('.');
    core::require(plain && text.ends_with(format.extension), ErrorKind::kWeights,
                  "{}: '{}' lies in '{}': expected the plain name of a {} file in the same folder", path, name, text,
                  format.extension);
    shards[name] = text;
  }
  return shards;
}

/// Returns true for names that PEFT gives: with its prefix, of a layer that it wraps, or of LoRA.
bool is_wrapped_by_peft(const std::string& name) {
  return name.starts_with(kPeftPrefix) || name.find(".base_layer.") != std::string::npos ||
         name.find(".lora_A.") != std::string::npos;
}

std::shared_ptr<const TensorFile> open_file(const std::string& path) {
  if (path.ends_with(".safetensors")) return std::make_shared<const SafetensorsFile>(path);
  return std::make_shared<const TorchFile>(path);
}

}  // namespace

std::vector<std::string> shard_names(const std::string& folder, const WeightFormat& format) {
  std::set<std::string> names;
  for (const auto& [tensor, file] : read_index(folder, format)) names.insert(file);
  return {names.begin(), names.end()};
}

bool has_all_weights(const std::string& folder) {
  const WeightFormat* format = find_format(folder);
  if (format == nullptr) return false;
  if (exists(folder, format->single_file)) return true;
  const std::vector<std::string> names = shard_names(folder, *format);
  return std::all_of(names.begin(), names.end(), [&](const std::string& name) { return exists(folder, name.c_str()); });
}

std::vector<std::string> weight_file_paths(const std::string& folder) {
  const WeightFormat& format = format_of(folder);
  if (exists(folder, format.single_file)) return {(fs::path(folder) / format.single_file).string()};
  std::vector<std::string> paths;
  for (const std::string& name : shard_names(folder, format)) {
    const fs::path path = fs::path(folder) / name;
    core::require(fs::exists(path), ErrorKind::kWeights, "{}: the shard {} of its index is not there; fetch it again",
                  folder, name);
    paths.push_back(path.string());
  }
  return paths;
}

SourceTensors::SourceTensors(const std::string& folder) {
  std::map<std::string, std::string> file_of;  // by stored name
  TensorReport report;
  for (const std::string& path : weight_file_paths(folder)) {
    const auto file = open_file(path);
    for (const auto& [name, info] : file->tensors()) {
      file_of[name] = fs::path(path).filename().string();
      const std::string full = full_name(without_wrappers(name, &wrappers_));
      core::require(!is_wrapped_by_peft(full), ErrorKind::kWeights,
                    "{}: this is the full save of a model wrapped by PEFT (it holds {}), neither a base model nor an "
                    "adapter. Save the adapter alone (save_pretrained of the PEFT model) and give it beside its base "
                    "(--adapter, peft_config.init_from), or merge it in (merge_and_unload().save_pretrained(FOLDER))",
                    path, name);
      const bool fresh = entries_.emplace(full, Entry{file, name, info.shape}).second;
      if (!fresh) report.other(fmt::format("{} is stored twice", full));
    }
  }
  if (const WeightFormat& format = format_of(folder); !exists(folder, format.single_file)) {
    for (const auto& [name, shard] : read_index(folder, format)) {
      const auto found = file_of.find(name);
      if (found == file_of.end() || found->second != shard) {
        report.other(fmt::format("{} is not in {} as the index says", name, shard));
      }
    }
  }
  report.raise_unless_empty(folder, "The shards and their index do not belong together; fetch the folder again.");
}

std::string SourceTensors::note() const {
  if (wrappers_.empty()) return "";
  return fmt::format(
      "weights: the tensors' names contain {}, added by a wrapper of the saved model; they are read without it",
      fmt::join(wrappers_, " and "));
}

int64_t stored_head_rows(const std::string& folder) {
  if (find_format(folder) == nullptr) return 0;
  const SourceTensors source(folder);
  const SourceTensors::Entry* score = source.find(kScoreName);
  return score == nullptr || score->shape.empty() ? 0 : score->shape.front();
}

const SourceTensors::Entry* SourceTensors::find(const std::string& full_name) const {
  const auto found = entries_.find(full_name);
  return found == entries_.end() ? nullptr : &found->second;
}

}  // namespace neoloom::model
