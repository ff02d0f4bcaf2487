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

/// PEFT's adapter_config.json: the keys that stayed the same over its releases, sorted, indented by 2.
std::string adapter_config_text(const LoraOptions& lora, Head head, const std::string& base_model_name,
                                const std::string& revision);

/// PEFT's saved key for the spellings found in files: some carry the adapter's name, the wrapper of a saved module, or
/// pieces of other wrappers (without_wrappers).
std::string saved_key(const std::string& name);

/// config.json of a folder that holds `head`: the base's text with labels, problem type, padding and architecture set.
struct ModelConfigText {
  const GptNeoConfig& base;
  Head head = Head::kCausalLm;
  int64_t num_labels = 0;
  const HeadDescription& description;
  std::string dtype;            // of the tensors in the folder; empty: keep the base's
  bool untied_lm_head = false;  // an lm_head of its own lies in the folder
};
std::string model_config_text(const ModelConfigText& parts);

/// Builds a folder under a temporary name with `fill(path)`, then puts it in the place of `folder` in one step (an
/// exchange where the file system can, else two renames) and removes the old one. An existing `folder` must be empty or
/// hold a model or adapter. Throws: Error(kWeights) for that, Error(kOutput) when it cannot be written.
void publish_folder(const std::string& folder, const std::function<void(const std::string&)>& fill);

/// Copies the files into `folder` under their own names. Throws: Error(kWeights), or Error(kOutput) while writing.
void copy_files(const std::vector<std::string>& files, const std::string& folder);

}  // namespace neoloom::model
