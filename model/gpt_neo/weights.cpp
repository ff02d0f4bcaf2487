// SPDX-License-Identifier: Apache-2.0
#include "model/gpt_neo/weights.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include "model/scalar_type.h"

namespace neoloom::model {

namespace {

bool is_qkv_weight(const BlockParameter& parameter) {
  using enum LinearSite;
  return parameter.layer == BlockParameter::Layer::kLinear && !parameter.is_bias &&
         (parameter.site == kQProj || parameter.site == kKProj || parameter.site == kVProj);
}

}  // namespace

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

std::shared_ptr<const Weights> to_device(const std::shared_ptr<const Weights>& weights, const std::string& device,
                                         Dtype matrix_dtype, const core::Progress& progress) {
  const at::Device target(device);
  const at::ScalarType type = scalar_type(matrix_dtype);
  const auto copied = [&](const at::Tensor& tensor, at::ScalarType dtype) {
    return tensor.defined() ? tensor.to(target, dtype, /*non_blocking=*/false, /*copy=*/true) : tensor;
  };
  auto moved = std::make_shared<Weights>(*weights);
  const bool tied = moved->lm_head.defined() && moved->lm_head.is_same(moved->wte);
  if (moved->lm_head.defined()) {
    const int64_t vocabulary = moved->lm_head.size(0);
    const int64_t rows = (vocabulary + kHeadAlignment - 1) / kHeadAlignment * kHeadAlignment;
    moved->aligned_lm_head = at::zeros({rows, moved->lm_head.size(1)}, at::TensorOptions().dtype(type).device(target));
    moved->lm_head = moved->aligned_lm_head.narrow(0, 0, vocabulary).copy_(moved->lm_head);
  }
  const bool same_head = tied && moved->wte.scalar_type() == type;
  moved->wte = same_head ? moved->lm_head : copied(moved->wte, moved->wte.scalar_type());
  for (at::Tensor* tensor : {&moved->wpe, &moved->ln_f.weight, &moved->ln_f.bias, &moved->score}) {
    *tensor = copied(*tensor, tensor->defined() ? tensor->scalar_type() : type);
  }
  int64_t copied_blocks = 0;
  for (BlockWeights& block : moved->blocks) {
    for (const BlockParameter& parameter : kBlockParameters) {
      at::Tensor& tensor = parameter_of(block, parameter);
      if (!is_qkv_weight(parameter)) tensor = copied(tensor, tensor.dim() == 2 ? type : tensor.scalar_type());
    }
    // Contiguous, so that one matmul computes all three.
    const int64_t h = block[LinearSite::kKProj].weight.size(0);
    const at::Tensor inputs = at::empty({3 * h, h}, at::TensorOptions().dtype(type).device(target));
    int64_t row = 0;
    for (const BlockParameter& parameter : kBlockParameters) {
      if (!is_qkv_weight(parameter)) continue;
      at::Tensor& matrix = parameter_of(block, parameter);
      matrix = inputs.narrow(0, row, h).copy_(matrix);
      row += h;
    }
    if (progress) progress(++copied_blocks, std::ssize(moved->blocks));
  }
  moved->storage.reset();
  return moved;
}

}  // namespace neoloom::model
