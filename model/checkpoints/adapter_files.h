// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "model/model.h"
#include "runtime/core/progress.h"

namespace neoloom::model {

/// The configuration of an adapter folder.
struct AdapterFolder {
  LoraOptions lora;
  std::string base_model_name_or_path;
  std::string revision;             // of the base model; empty when null
  std::vector<std::string> labels;  // from config.json beside it; empty when absent
  int64_t score_rows = 0;           // labels of its classification head; 0: it has none
  std::string problem_type;
  int64_t pad_token_id = -1;
};

/// Beside a classifier's weights: what turns its logits into scores and labels (trainer_config.calibrate).
inline constexpr const char* kCalibrationFile = "calibration.json";

/// Label names, problem type, pad id and the base's revision that an adapter folder stores.
struct HeadDescription {
  std::vector<std::string> labels;
  std::string problem_type;
  int64_t pad_token_id = -1;
  std::string revision = {};     // of the base model; empty: null, as PEFT writes the default
  std::string card = {};         // README.md; empty: none
  std::string calibration = {};  // kCalibrationFile; empty: none
};

/// Writes PEFT's adapter_config.json and adapter_model.safetensors, and the base's config.json with num_labels,
/// id2label, label2id, problem_type, pad_token_id and architectures set. Copies the tokenizer files. Builds the folder
/// under a temporary name and publishes it by exchange (publish_folder). Full-parameter models write model.safetensors
/// instead of the adapter's files, PiSSA and OLoRA a plain LoRA for the unmodified base (plain_lora.h).
void write_adapter_folder(const std::string& folder, const Model& model, const at::Tensor& params,
                          const std::string& base_model_name, const HeadDescription& head,
                          const std::vector<std::string>& tokenizer_files);

/// Reads adapter_config.json (PEFT's or ours). An init_lora_weights of PiSSA or OLoRA means that PEFT has saved the
/// adapter as it trained it, so that its tensors belong to Model::subtract of the initial values.
/// Throws: Error(kWeights) for unsupported non-default fields by name.
AdapterFolder read_adapter_folder(const std::string& folder);

/// Compares the frozen embedding that PEFT may have stored in the folder (save_embedding_layers) with the base's, after
/// rounding to its dtype. Rows that differ take the place of the base's, as where PEFT loads the folder: this adds
/// their tokens to lora.trainable_token_indices, whose values load_adapter_values() then reads. Returns a note for the
/// log; empty: the folder has no such embedding. Throws: Error(kWeights) for what is not possible this way.
std::string take_embedding(const std::string& folder, const GptNeoConfig& config, const Weights& weights,
                           LoraOptions& lora);

/// Fills `params` [model.layout().total_elements] from the folder's adapter_model.safetensors (fp16, bf16, fp32 are
/// upcast). Names may contain parts from wrappers (without_wrappers). Throws: Error(kWeights) with one report of the
/// missing, unexpected and misshaped tensors, and a hint if an embedding is among them.
void load_adapter_values(const std::string& folder, const Model& model, at::Tensor& params);

/// Writes a transformers folder with the adapter merged into the base in fp32, rounded once to `dtype`:
/// config.json, the weights (write_weight_files), tokenizer files. `progress`: of the tensors, in units of 1,000 bytes.
void export_merged(const std::string& folder, const Model& model, const at::Tensor& params,
                   const std::string& base_folder, Dtype dtype, int64_t max_shard_bytes, const HeadDescription& head,
                   const std::vector<std::string>& tokenizer_files, const core::Progress& progress = {});

}  // namespace neoloom::model
