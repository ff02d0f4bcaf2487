// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <memory>
#include <string>
#include <vector>

#include "model/cpu/packed_weights.h"
#include "model/gpt_neo_config.h"
#include "model/options.h"

namespace neoloom::model {

/// Frozen weights of one block, all in the frozen dtype, as Hugging Face stores them: linear weights [out, in].
struct BlockWeights {
  at::Tensor ln_1_weight, ln_1_bias;                       // [h]
  at::Tensor q_proj_weight, k_proj_weight, v_proj_weight;  // [h, h], no bias
  at::Tensor out_proj_weight, out_proj_bias;               // [h, h], [h]
  at::Tensor ln_2_weight, ln_2_bias;                       // [h]
  at::Tensor c_fc_weight, c_fc_bias;                       // [ff, h], [ff]
  at::Tensor c_proj_weight, c_proj_bias;                   // [h, ff], [h]
  std::array<Panels, 6> panels;                            // of the six linears, in the order of LinearSite
};

/// Products of GPUs are many times slower where a dimension is odd, as GPT-2's vocabulary is.
inline constexpr int64_t kHeadAlignment = 64;

struct Weights {
  at::Tensor wte;  // [V, h]
  at::Tensor wpe;  // [max_pos, h]
  std::vector<BlockWeights> blocks;
  at::Tensor ln_f_weight, ln_f_bias;    // [h]
  at::Tensor lm_head;                   // [V, h]; the same tensor as wte when tied
  Panels head_panels;                   // of lm_head
  at::Tensor aligned_lm_head;           // GPUs: lm_head, followed by rows of 0 up to a multiple of kHeadAlignment rows
  at::Tensor score;                     // [num_labels, h] fp32 when the source has one, else undefined
  std::shared_ptr<const void> storage;  // keeps the mapping alive; tensors are views of it
  std::string source_hash;              // SHA-256 of the source files' bytes
  std::vector<std::string> notes;       // what the loader found worth telling the user
};

/// (Hugging Face name with "transformer." prefix, tensor) in file order; for full-parameter training and export.
std::vector<std::pair<std::string, at::Tensor>> named_tensors(const Weights& weights);

/// A matrix of the frozen products, and where its panels belong.
struct FrozenMatrix {
  std::string name;
  at::Tensor values;
  Panels* panels;
};

/// The six linears of every block in the order of LinearSite, then the language model's head where there is one.
std::vector<FrozenMatrix> frozen_matrices(Weights& weights);

}  // namespace neoloom::model
