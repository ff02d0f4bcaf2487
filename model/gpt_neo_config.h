// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace neoloom::model {

/// GPTNeoConfig of transformers, checked. Defaults are the 1.3B shape.
struct GptNeoConfig {
  int64_t vocab_size = 50257;
  int64_t max_position_embeddings = 2048;
  int64_t hidden_size = 2048;
  int64_t num_layers = 24;
  int64_t num_heads = 16;
  int64_t intermediate_size = 8192;
  int64_t window_size = 256;
  double layer_norm_epsilon = 1e-5;
  double initializer_range = 0.02;
  double embed_dropout = 0.0;  // in training only, like the other two
  double resid_dropout = 0.0;
  double attention_dropout = 0.0;
  bool tie_word_embeddings = true;
  std::vector<bool> layer_is_local;  // [num_layers]
  int64_t bos_token_id = 50256;
  int64_t eos_token_id = 50256;
  int64_t pad_token_id = -1;        // -1: null
  std::vector<std::string> labels;  // id2label in index order; empty when absent
  std::string problem_type;         // empty when null
  std::string json;                 // the file's text, for writing a changed copy

  int64_t head_dim() const { return hidden_size / num_heads; }
  int64_t body_parameters() const;  // without a score head

  /// Reads and checks config.json. Throws: Error(kWeights) naming file, key, expected and found (model_type other than
  /// gpt_neo, hidden % heads, attention_types of the wrong length, activation other than gelu_new, dropouts outside [0,
  /// 1]).
  static GptNeoConfig from_file(const std::string& path);
  /// The same for the text of a config.json; `name` names it in messages.
  static GptNeoConfig from_text(const std::string& name, std::string text);
};

}  // namespace neoloom::model
