// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "runtime/core/task.h"

namespace neoloom::model {

/// Type of stored frozen weights (frozen_dtype), and of the inputs of their matmuls (compute_dtype).
enum class Dtype { kFloat16, kBFloat16, kFloat32 };
std::string dtype_name(Dtype dtype);  // "float16", ...
/// Accepts float16|fp16|half, bfloat16|bf16, float32|fp32|float, with or without "torch.". Throws: Error(kUsage).
Dtype dtype_from_name(const std::string& name);

/// The head on the last hidden state.
using Head = core::Task;

/// The configuration group `model_config`.
struct Options {
  std::string pretrained_model_name;  // folder, or hub id found in Hugging Face's cache
  std::string revision = "main";
  std::string problem_type;           // single_label_classification | multi_label_classification; empty: from data
  std::optional<int64_t> num_labels;  // checked against the label map
  std::optional<int64_t> pad_token_id;
  Dtype frozen_dtype = Dtype::kFloat16;
  bool train_all = false;                // allows full-parameter training above 500 M parameters
  bool ignore_mismatched_sizes = false;  // replace a base's head with other labels by a fresh one
};

/// The configuration group `peft_config`, with PEFT's names and meanings.
struct LoraOptions {
  std::string task_type;  // SEQ_CLS | CAUSAL_LM; empty: from the data columns
  int64_t r = 8;
  double lora_alpha = 8.0;
  double lora_dropout = 0.0;
  std::vector<std::string> target_modules = {"q_proj", "v_proj"};  // suffixes or full names; or {"all-linear"}
  bool use_rslora = false;
  std::vector<std::string> modules_to_save;  // only score / classifier (implied by SEQ_CLS)
  std::string init_from;                     // PEFT folder with initial adapter values; empty: none
  double scaling() const;                    // alpha / r, or alpha / sqrt(r)
};

}  // namespace neoloom::model
