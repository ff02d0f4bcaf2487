// SPDX-License-Identifier: Apache-2.0
#include "model/gpt_neo/weights.h"

namespace neoloom::model {

std::vector<std::pair<std::string, std::vector<int64_t>>> body_shapes(const GptNeoConfig& config) {
  const int64_t h = config.hidden_size;
  std::vector<std::pair<std::string, std::vector<int64_t>>> shapes;
  shapes.push_back({kWordEmbeddingName, {config.vocab_size, h}});
  shapes.push_back({kPositionEmbeddingName, {config.max_position_embeddings, h}});
  for (int64_t layer = 0; layer < config.num_layers; ++layer) {
    for (const BlockParameter& parameter : kBlockParameters) {
      shapes.emplace_back(parameter_name(layer, parameter), parameter_shape(config, parameter));
    }
  }
  shapes.push_back({kFinalNormWeightName, {h}});
  shapes.push_back({kFinalNormBiasName, {h}});
  return shapes;
}

std::vector<std::pair<std::string, at::Tensor>> named_tensors(const Weights& weights) {
  std::vector<std::pair<std::string, at::Tensor>> named;
  for_each_body_tensor(weights,
                       [&](const std::string& name, const at::Tensor& tensor) { named.emplace_back(name, tensor); });
  if (weights.lm_head.defined() && !weights.lm_head.is_same(weights.wte)) {
    named.emplace_back(kLmHeadName, weights.lm_head);
  }
  if (weights.score.defined()) named.emplace_back(kScoreName, weights.score);
  return named;
}

std::vector<FrozenMatrix> frozen_matrices(Weights& weights) {
  std::vector<FrozenMatrix> matrices;
  for (size_t layer = 0; layer < weights.blocks.size(); ++layer) {
    for (const LinearSite site : kLinearSites) {
      LinearWeights& linear = weights.blocks[layer][site];
      matrices.push_back(
          {module_name(static_cast<int64_t>(layer), site) + ".weight", linear.weight, &linear.packed_weights});
    }
  }
  if (weights.lm_head.defined()) matrices.push_back({kLmHeadName, weights.lm_head, &weights.packed_lm_head});
  return matrices;
}

}  // namespace neoloom::model
