// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "model/model.h"

namespace neoloom::model {

/// What an adapter folder says beside its tensors.
struct AdapterFolder {
  LoraOptions lora;
  std::string base_model_name_or_path;
  std::string revision;             // of the base model; empty when null
  std::vector<std::string> labels;  // from config.json beside it; empty when absent
  int64_t score_rows = 0;           // labels of its classification head; 0: it has none
  std::string problem_type;
  int64_t pad_token_id = -1;
};

/// Label names, problem type, pad id and the base's revision that travel with an adapter.
struct HeadDescription {
  std::vector<std::string> labels;
  std::string problem_type;
  int64_t pad_token_id = -1;
  std::string revision = {};  // of the base model; empty: null, as PEFT writes the default
};

/// Writes PEFT's adapter_config.json and adapter_model.safetensors, config.json of the base with num_labels, id2label,
/// label2id, problem_type, pad_token_id and architectures set, and copies the tokenizer files. Published as a whole:
/// built in a temporary folder beside, then exchanged. Full-parameter models write model.safetensors instead.
void write_adapter_folder(const std::string& folder, const Model& model, const at::Tensor& params,
                          const std::string& base_model_name, const HeadDescription& head,
                          const std::vector<std::string>& tokenizer_files);

/// Reads adapter_config.json (PEFT's or ours). Throws: Error(kWeights) for unsupported non-default fields by name.
AdapterFolder read_adapter_folder(const std::string& folder);

/// Fills `params` [model.layout().total_elements] from the folder's adapter_model.safetensors (fp16, bf16, fp32 are
/// upcast). Names may hold wrappers' pieces. Throws: Error(kWeights) with one report of the missing, unexpected and
/// misshaped tensors, and what an embedding among them means.
void load_adapter_values(const std::string& folder, const Model& model, at::Tensor& params);

/// Writes a transformers folder with the adapter merged into the base in fp32, rounded once to `dtype`:
/// config.json, model.safetensors, tokenizer files.
void export_merged(const std::string& folder, const Model& model, const at::Tensor& params,
                   const std::string& base_folder, Dtype dtype, const HeadDescription& head,
                   const std::vector<std::string>& tokenizer_files);

}  // namespace neoloom::model
