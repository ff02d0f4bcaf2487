// SPDX-License-Identifier: Apache-2.0
#include "model/checkpoints/weight_files.h"

#include <fmt/ranges.h>

#include <filesystem>
#include <set>

#include "model/checkpoints/strict_json.h"
#include "model/checkpoints/tensor_names.h"
#include "model/parameter_table.h"
#include "runtime/core/error.h"

namespace neoloom::model {
namespace {

namespace fs = std::filesystem;
using core::ErrorKind;

constexpr const char* kSingleFile = "model.safetensors";
constexpr const char* kIndexFile = "model.safetensors.index.json";
constexpr size_t kMaxIndexBytes = size_t{16} << 20;

[[noreturn]] void refuse_folder(const std::string& folder) {
  for (const char* pickle : {"pytorch_model.bin", "pytorch_model.bin.index.json"}) {
    if (!fs::exists(fs::path(folder) / pickle)) continue;
    core::fail(ErrorKind::kWeights,
               "{} holds {} and no {}: pickled weights can run code and are not read. Convert them once:\n"
               "  python3 -c \"from transformers import AutoModelForCausalLM as M; "
               "M.from_pretrained('{}').save_pretrained('{}')\"",
               folder, pickle, kSingleFile, folder, folder);
  }
  core::fail(ErrorKind::kWeights, "{}: expected {} or {}, found neither", folder, kSingleFile, kIndexFile);
}

/// Returns the shard's file name for each tensor name.
std::map<std::string, std::string> read_index(const std::string& path) {
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
    core::require(plain && text.ends_with(".safetensors"), ErrorKind::kWeights,
                  "{}: '{}' lies in '{}': expected the plain name of a .safetensors file in the same folder", path,
                  name, text);
    shards[name] = text;
  }
  return shards;
}

/// Returns true for names that PEFT gives: with its prefix, of a layer that it wraps, or of LoRA.
bool is_wrapped_by_peft(const std::string& name) {
  return name.starts_with(kPeftPrefix) || name.find(".base_layer.") != std::string::npos ||
         name.find(".lora_A.") != std::string::npos;
}

bool has_single_file(const std::string& folder) { return fs::exists(fs::path(folder) / kSingleFile); }

}  // namespace

std::vector<std::string> weight_file_paths(const std::string& folder) {
  if (has_single_file(folder)) return {(fs::path(folder) / kSingleFile).string()};
  const fs::path index = fs::path(folder) / kIndexFile;
  if (!fs::exists(index)) refuse_folder(folder);
  std::set<std::string> names;
  for (const auto& [tensor, file] : read_index(index.string())) names.insert(file);
  std::vector<std::string> paths;
  for (const std::string& name : names) {
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
    const auto file = std::make_shared<const SafetensorsFile>(path);
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
  if (!has_single_file(folder)) {
    for (const auto& [name, shard] : read_index((fs::path(folder) / kIndexFile).string())) {
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
  if (!has_single_file(folder) && !fs::exists(fs::path(folder) / kIndexFile)) return 0;
  const SourceTensors source(folder);
  const SourceTensors::Entry* score = source.find(kScoreName);
  return score == nullptr || score->shape.empty() ? 0 : score->shape.front();
}

const SourceTensors::Entry* SourceTensors::find(const std::string& full_name) const {
  const auto found = entries_.find(full_name);
  return found == entries_.end() ? nullptr : &found->second;
}

}  // namespace neoloom::model
