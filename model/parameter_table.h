// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "model/gpt_neo_config.h"

namespace neoloom::model {

// The only table of GPT-Neo's parameters: Hugging Face's names, shapes, and which linears have a bias.

inline constexpr const char* kWordEmbeddingName = "transformer.wte.weight";      // [V, h]
inline constexpr const char* kPositionEmbeddingName = "transformer.wpe.weight";  // [max_pos, h]
inline constexpr const char* kFinalNormWeightName = "transformer.ln_f.weight";   // [h]
inline constexpr const char* kFinalNormBiasName = "transformer.ln_f.bias";       // [h]
inline constexpr const char* kLmHeadName = "lm_head.weight";                     // [V, h]; absent when tied to wte
inline constexpr const char* kScoreName = "score.weight";                        // [C, h]; classifiers

/// PEFT's prefix and suffixes of a module's name in the keys of adapter files.
inline constexpr std::string_view kPeftPrefix = "base_model.model.";
inline constexpr std::string_view kLoraASuffix = ".lora_A.weight";              // [r, in]
inline constexpr std::string_view kLoraBSuffix = ".lora_B.weight";              // [out, r]
inline constexpr std::string_view kMagnitudeSuffix = ".lora_magnitude_vector";  // [out]; DoRA
inline constexpr std::string_view kLoraBiasSuffix = ".lora_B.bias";             // [out]; lora_bias
/// Its name of the rows of wte that train (trainable_token_indices), without the prefix.
inline constexpr std::string_view kTrainableTokensName =
    "transformer.wte.token_adapter.trainable_tokens_delta";  // [k, h]
/// Whether the key of an adapter file ends in one of these.
bool is_of_adapter(std::string_view name);

/// The six linears of a block, in the order of adapter slots and dropout sites.
enum class LinearSite { kQProj, kKProj, kVProj, kOutProj, kCFc, kCProj };
inline constexpr std::array<LinearSite, 6> kLinearSites = {LinearSite::kQProj, LinearSite::kKProj,
                                                           LinearSite::kVProj, LinearSite::kOutProj,
                                                           LinearSite::kCFc,   LinearSite::kCProj};

/// Hugging Face's module name, e.g. "transformer.h.0.attn.attention.q_proj".
std::string module_name(int64_t layer, LinearSite site);

/// (in, out) of a linear.
std::pair<int64_t, int64_t> features_of(const GptNeoConfig& config, LinearSite site);

/// One tensor of a block: the weight or the bias of a norm or of a linear.
struct BlockParameter {
  enum class Layer { kLn1, kLn2, kLinear };
  Layer layer;
  LinearSite site = LinearSite::kQProj;  // of kLinear
  bool is_bias = false;
};

/// In the order of Hugging Face's files, which is that of the flat buffer in full-parameter training.
inline constexpr std::array<BlockParameter, 13> kBlockParameters = {{
    {.layer = BlockParameter::Layer::kLn1},
    {.layer = BlockParameter::Layer::kLn1, .is_bias = true},
    {.layer = BlockParameter::Layer::kLinear, .site = LinearSite::kKProj},
    {.layer = BlockParameter::Layer::kLinear, .site = LinearSite::kVProj},
    {.layer = BlockParameter::Layer::kLinear, .site = LinearSite::kQProj},
    {.layer = BlockParameter::Layer::kLinear, .site = LinearSite::kOutProj},
    {.layer = BlockParameter::Layer::kLinear, .site = LinearSite::kOutProj, .is_bias = true},
    {.layer = BlockParameter::Layer::kLn2},
    {.layer = BlockParameter::Layer::kLn2, .is_bias = true},
    {.layer = BlockParameter::Layer::kLinear, .site = LinearSite::kCFc},
    {.layer = BlockParameter::Layer::kLinear, .site = LinearSite::kCFc, .is_bias = true},
    {.layer = BlockParameter::Layer::kLinear, .site = LinearSite::kCProj},
    {.layer = BlockParameter::Layer::kLinear, .site = LinearSite::kCProj, .is_bias = true},
}};

/// E.g. "transformer.h.0.mlp.c_fc.bias".
std::string parameter_name(int64_t layer, const BlockParameter& parameter);

/// [out, in] of a linear's weight, [width] of the others.
std::vector<int64_t> parameter_shape(const GptNeoConfig& config, const BlockParameter& parameter);

/// The parameter of a block-like object, which has ln_1 and ln_2 with weight and bias, and linears by site.
template <typename BlockLike>
auto& parameter_of(BlockLike& block, const BlockParameter& parameter) {
  switch (parameter.layer) {
    case BlockParameter::Layer::kLn1:
      return parameter.is_bias ? block.ln_1.bias : block.ln_1.weight;
    case BlockParameter::Layer::kLn2:
      return parameter.is_bias ? block.ln_2.bias : block.ln_2.weight;
    case BlockParameter::Layer::kLinear:
      break;
  }
  return parameter.is_bias ? block[parameter.site].bias : block[parameter.site].weight;
}

}  // namespace neoloom::model
