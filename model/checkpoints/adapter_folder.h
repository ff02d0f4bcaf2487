// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "model/checkpoints/adapter_files.h"
#include "model/gpt_neo_config.h"
#include "model/options.h"

namespace neoloom::model {

inline constexpr const char* kAdapterConfigFile = "adapter_config.json";
inline constexpr const char* kAdapterTensorFile = "adapter_model.safetensors";
inline constexpr const char* kModelTensorFile = "model.safetensors";
inline constexpr const char* kConfigFile = "config.json";
inline constexpr const char* kCardFile = "README.md";

/// What to do about an adapter that cannot be read; in messages.
inline constexpr const char* kMergeInPeft =
    "merge the adapter in PEFT once, model.merge_and_unload().save_pretrained(FOLDER), and give that folder as the "
    "model";

/// PEFT's adapter_config.json: the keys that stayed the same over its releases, sorted, indented by 2.
std::string adapter_config_text(const LoraOptions& lora, Head head, const std::string& base_model_name,
                                const std::string& revision);

/// Returns PEFT's saved key for a key found in a file, which may also contain the adapter's name, modules_to_save, or
/// parts from other wrappers (without_wrappers).
std::string saved_key(const std::string& name);

/// Input of model_config_text.
struct ModelConfigText {
  const GptNeoConfig& base;
  Head head = Head::kCausalLm;
  int64_t num_labels = 0;
  const HeadDescription& description;
  std::string dtype;            // of the tensors in the folder; empty: as in the base
  bool untied_lm_head = false;  // the folder stores an lm_head
};
std::string model_config_text(const ModelConfigText& parts);

/// Writes config.json and what `parts.description` brings: model card and calibration.
void write_descriptions(const std::string& folder, const ModelConfigText& parts);

/// Builds a folder under a temporary name with `fill(path)`. Then replaces `folder` by it, with an atomic exchange
/// where the file system has one, else two renames, and removes the old one. An existing `folder` must be empty or hold
/// a model or adapter. Throws: Error(kWeights) for that, Error(kOutput) when it cannot be written.
void publish_folder(const std::string& folder, const std::function<void(const std::string&)>& fill);

/// Copies the files into `folder` under their own names. Throws: Error(kWeights), or Error(kOutput) while writing.
void copy_files(const std::vector<std::string>& files, const std::string& folder);

}  // namespace neoloom::model
