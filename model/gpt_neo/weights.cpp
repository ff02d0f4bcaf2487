// SPDX-License-Identifier: Apache-2.0
#include "model/gpt_neo/weights.h"

#include <fmt/format.h>

#include "model/lora/target_modules.h"

namespace neoloom::model {

std::vector<std::pair<std::string, at::Tensor>> named_tensors(const Weights& weights) {
  std::vector<std::pair<std::string, at::Tensor>> named;
  named.emplace_back("transformer.wte.weight", weights.wte);
  named.emplace_back("transformer.wpe.weight", weights.wpe);
  for (size_t layer = 0; layer < weights.blocks.size(); ++layer) {
    const BlockWeights& block = weights.blocks[layer];
    const auto add = [&](const char* name, const at::Tensor& tensor) {
      named.emplace_back(fmt::format("transformer.h.{}.{}", layer, name), tensor);
    };
    add("ln_1.weight", block.ln_1_weight);
    add("ln_1.bias", block.ln_1_bias);
    add("attn.attention.k_proj.weight", block.k_proj_weight);
    add("attn.attention.v_proj.weight", block.v_proj_weight);
    add("attn.attention.q_proj.weight", block.q_proj_weight);
    add("attn.attention.out_proj.weight", block.out_proj_weight);
    add("attn.attention.out_proj.bias", block.out_proj_bias);
    add("ln_2.weight", block.ln_2_weight);
    add("ln_2.bias", block.ln_2_bias);
    add("mlp.c_fc.weight", block.c_fc_weight);
    add("mlp.c_fc.bias", block.c_fc_bias);
    add("mlp.c_proj.weight", block.c_proj_weight);
    add("mlp.c_proj.bias", block.c_proj_bias);
  }
  named.emplace_back("transformer.ln_f.weight", weights.ln_f_weight);
  named.emplace_back("transformer.ln_f.bias", weights.ln_f_bias);
  if (weights.lm_head.defined() && !weights.lm_head.is_same(weights.wte)) {
    named.emplace_back("lm_head.weight", weights.lm_head);
  }
  if (weights.score.defined()) named.emplace_back("score.weight", weights.score);
  return named;
}

std::vector<FrozenMatrix> frozen_matrices(Weights& weights) {
  std::vector<FrozenMatrix> matrices;
  for (size_t layer = 0; layer < weights.blocks.size(); ++layer) {
    BlockWeights& block = weights.blocks[layer];
    const at::Tensor* const values[] = {&block.q_proj_weight,   &block.k_proj_weight, &block.v_proj_weight,
                                        &block.out_proj_weight, &block.c_fc_weight,   &block.c_proj_weight};
    for (const LinearSite site : kLinearSites) {
      const auto index = static_cast<size_t>(site);
      matrices.push_back(
          {module_name(static_cast<int64_t>(layer), site) + ".weight", *values[index], &block.panels[index]});
    }
  }
  if (weights.lm_head.defined()) matrices.push_back({"lm_head.weight", weights.lm_head, &weights.head_panels});
  return matrices;
}

}  // namespace neoloom::model
