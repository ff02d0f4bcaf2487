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
#include "model/parameter_table.h"
#include "runtime/core/progress.h"

namespace neoloom::model {

struct NormWeights {
  at::Tensor weight, bias;  // [h]
};

struct LinearWeights {
  at::Tensor weight;             // [out, in]
  at::Tensor bias;               // [out]; undefined: none
  PackedWeights packed_weights;  // of `weight`
};

/// Frozen weights of one block, all in the frozen dtype, as Hugging Face stores them.
struct BlockWeights {
  NormWeights ln_1, ln_2;
  std::array<LinearWeights, 6> linears;  // in the order of LinearSite

  LinearWeights& operator[](LinearSite site) { return linears[static_cast<size_t>(site)]; }
  const LinearWeights& operator[](LinearSite site) const { return linears[static_cast<size_t>(site)]; }
};

/// GEMMs on GPUs are many times slower where a dimension is odd, as GPT-2's vocabulary size is.
inline constexpr int64_t kHeadAlignment = 64;

struct Weights {
  at::Tensor wte;  // [V, h]
  at::Tensor wpe;  // [max_pos, h]
  std::vector<BlockWeights> blocks;
  NormWeights ln_f;
  at::Tensor lm_head;                   // [V, h]; the same tensor as wte when tied
  PackedWeights packed_lm_head;         // of lm_head
  at::Tensor aligned_lm_head;           // GPUs: lm_head, its rows zero-padded to a multiple of kHeadAlignment
  at::Tensor score;                     // [num_labels, h] fp32 when the source has one, else undefined
  std::shared_ptr<const void> storage;  // keeps the mapping alive; tensors are views of it
  std::string source_hash;              // SHA-256 of the source files' bytes
  std::vector<std::string> notes;       // the loader's notes for the user
};

/// Calls visit(Hugging Face's name, tensor) for every tensor of the body, in file order, without the heads.
template <typename WeightsLike, typename Visit>
void for_each_body_tensor(WeightsLike& weights, Visit visit) {
  visit(std::string(kWordEmbeddingName), weights.wte);
  visit(std::string(kPositionEmbeddingName), weights.wpe);
  for (size_t layer = 0; layer < weights.blocks.size(); ++layer) {
    for (const BlockParameter& parameter : kBlockParameters) {
      visit(parameter_name(static_cast<int64_t>(layer), parameter), parameter_of(weights.blocks[layer], parameter));
    }
  }
  visit(std::string(kFinalNormWeightName), weights.ln_f.weight);
  visit(std::string(kFinalNormBiasName), weights.ln_f.bias);
}

/// (name, shape) of the same tensors.
std::vector<std::pair<std::string, std::vector<int64_t>>> body_shapes(const GptNeoConfig& config);

/// (name, tensor) of the body and the heads, in file order; for full-parameter training and export.
std::vector<std::pair<std::string, at::Tensor>> named_tensors(const Weights& weights);

/// Copies weights to a GPU, to memory that the result owns. Converts the matrices of the blocks and of the head to
/// `matrix_dtype`, the type of their matmuls. Places k, v and q of a block contiguously, so that one matmul computes
/// them. `device` as in at::Device ("cuda:0"). `progress`: of the blocks.
std::shared_ptr<const Weights> to_device(const std::shared_ptr<const Weights>& weights, const std::string& device,
                                         Dtype matrix_dtype, const core::Progress& progress = {});

/// A frozen matrix that matmuls read, and where its packed weights are stored.
struct FrozenMatrix {
  std::string name;
  at::Tensor values;
  PackedWeights* packed_weights;
};

/// The six linears of every block in the order of LinearSite, then the language model's head where there is one.
std::vector<FrozenMatrix> frozen_matrices(Weights& weights);

}  // namespace neoloom::model
