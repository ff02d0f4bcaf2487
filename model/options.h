// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
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

/// GPTNeoConfig's attention_types: each list of "global" and "local" is repeated so many times, layer by layer.
using AttentionTypes = std::vector<std::pair<std::vector<std::string>, int64_t>>;

/// The shape of a model that training starts from random weights, with the names and defaults of GPTNeoConfig.
struct NewModelOptions {
  std::optional<int64_t> vocab_size;  // null: that of the tokenizer
  std::optional<int64_t> max_position_embeddings;
  std::optional<int64_t> hidden_size;
  std::optional<int64_t> num_layers;
  std::optional<int64_t> num_heads;
  std::optional<int64_t> intermediate_size;  // null: 4 * hidden_size
  std::optional<int64_t> window_size;
  AttentionTypes attention_types;             // empty: global and local in turn
  std::vector<std::string> attention_layers;  // the type of each layer; goes before attention_types
  std::optional<double> layer_norm_epsilon;
  std::optional<double> initializer_range;
  std::optional<bool> tie_word_embeddings;

  bool operator==(const NewModelOptions&) const = default;
};

/// The configuration group `model_config`.
struct Options : NewModelOptions {
  std::string pretrained_model_name;  // folder, or hub id; empty: a new model
  std::string revision = "main";
  std::string problem_type;           // ..._label_classification | regression; empty: from data
  std::optional<int64_t> num_labels;  // checked against the label map
  std::optional<int64_t> pad_token_id;
  std::optional<double> embed_dropout;      // null: config.json's, as the next two
  std::optional<double> resid_dropout;      // of the outputs of attention and MLP
  std::optional<double> attention_dropout;  // of the probabilities
  Dtype frozen_dtype = Dtype::kFloat16;
  bool train_all = false;                // allows full-parameter training above 500 M parameters
  bool ignore_mismatched_sizes = false;  // replace a base's head with other labels by a fresh one
};

/// PEFT's two ways to choose modules: a list of full names or their ends, where all-linear stands for every linear, or
/// a regular expression over the full name.
struct ModuleChoice {
  std::vector<std::string> names;
  bool is_expression = false;  // names holds the expression

  bool empty() const { return names.empty(); }
  bool operator==(const ModuleChoice&) const = default;
};

/// A value for the modules whose full name, or its end after a dot, matches a regular expression.
template <typename T>
using ModulePattern = std::vector<std::pair<std::string, T>>;  // the first that matches holds

/// How A and B start: PEFT's init_lora_weights.
struct AdapterInit {
  enum class Kind {
    kTrue,        // A ~ U(-1/sqrt(in), 1/sqrt(in)), B = 0
    kFalse,       // the same A, B ~ U(-1/sqrt(r), 1/sqrt(r)): not a no-op, for debugging
    kGaussian,    // A ~ N(0, 1/r), B = 0
    kOrthogonal,  // both random with B A = 0; r is even
    kPissa,       // the r largest singular values of the frozen weight, which loses them
    kOlora,       // the first r columns of its QR decomposition, likewise
  };
  Kind kind = Kind::kTrue;
  int64_t iterations = -1;  // kPissa: subspace iterations of a randomised SVD; -1: the exact one

  /// Whether s B A at the start is taken from the frozen weight.
  bool splits_weights() const { return kind == Kind::kPissa || kind == Kind::kOlora; }
  /// Whether values come from a matrix decomposition, so that ranks share the work.
  bool decomposes() const { return splits_weights() || kind == Kind::kOrthogonal; }
  bool operator==(const AdapterInit&) const = default;
};
std::string init_name(const AdapterInit& init);  // "true", "pissa_niter_4", ...
/// Throws: Error(kUsage) with what to do, for PEFT's other initialisations and unknown names.
AdapterInit init_from_name(const std::string& name);

/// The configuration group `peft_config`, with PEFT's names and meanings.
struct LoraOptions {
  std::string task_type;  // SEQ_CLS | CAUSAL_LM; empty: from the data columns
  int64_t r = 8;
  double lora_alpha = 8.0;
  double lora_dropout = 0.0;
  ModuleChoice target_modules = {{"q_proj", "v_proj"}};
  ModuleChoice exclude_modules;              // wins over target_modules
  std::vector<int64_t> layers_to_transform;  // blocks with adapters; empty: all
  std::vector<std::string> layers_pattern;   // name of the list of blocks: h
  ModulePattern<int64_t> rank_pattern;       // r of single modules
  ModulePattern<double> alpha_pattern;       // lora_alpha of single modules
  bool use_rslora = false;
  bool use_dora = false;
  std::string bias = "none";  // biases that train: none | all | lora_only (of adapted layers)
  bool lora_bias = false;     // B has a bias
  AdapterInit init_lora_weights;
  std::vector<std::string> modules_to_save;      // trained whole; classifiers: score, also called classifier
  std::vector<int64_t> trainable_token_indices;  // tokens whose rows of wte train; in the order of their stored rows
  std::string init_from;                         // PEFT folder with initial adapter values; empty: none
  /// alpha / rank, or alpha / sqrt(rank). Throws: Error(kUsage) unless the rank is above 0.
  double scaling(int64_t rank, double alpha) const;
};

}  // namespace neoloom::model
