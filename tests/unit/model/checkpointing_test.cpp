// SPDX-License-Identifier: Apache-2.0
// Tests blocks that keep only their input and recompute the rest right before their backward.
#include <gtest/gtest.h>

#include "tests/support/operator_record.h"
#include "tests/unit/model/setups.h"

namespace neoloom::model::testing {
namespace {

Trial train_with(ModelSetup setup, const std::shared_ptr<Weights>& weights, bool checkpointing) {
  setup.gradient_checkpointing = checkpointing;
  const auto model = Model::create(setup, weights);
  at::Tensor params = random_params(*model);
  if (!setup.lora) model->initialize(params, 1);
  return train_once(*model, batch_for(setup), params, {5, 1, 3, 2}, 4.0);
}

void expect_same_bits(const ModelSetup& setup, const std::shared_ptr<Weights>& weights) {
  const Trial kept = train_with(setup, weights, false);
  const Trial recomputed = train_with(setup, weights, true);
  EXPECT_EQ(kept.loss, recomputed.loss);
  EXPECT_TRUE(same_bits(kept.grads, recomputed.grads));
  EXPECT_GT(kept.grads.abs().max().item<float>(), 0.0F);
}

std::vector<ModelSetup> every_setup_with_dropout() {
  std::vector<ModelSetup> setups = every_setup();
  for (ModelSetup& setup : setups) {
    if (setup.lora) setup.lora->lora_dropout = 0.1;
    setup.config.embed_dropout = setup.config.resid_dropout = 0.1;
    setup.neftune_noise_alpha = 3.0;
  }
  const std::vector<ModelSetup> others = setups;
  for (ModelSetup setup : others) {
    setup.config.attention_dropout = 0.2;
    setups.push_back(std::move(setup));
  }
  return setups;
}

TEST(GradientCheckpointing, GivesTheSameBitsOnTheHost) {
  for (const Dtype compute : {Dtype::kFloat32, Dtype::kBFloat16}) {
    for (const at::ScalarType frozen : {at::kFloat, at::kHalf, at::kBFloat16}) {
      for (ModelSetup setup : every_setup_with_dropout()) {
        setup.compute_dtype = compute;
        const auto weights = random_weights(setup.config, frozen);
        expect_same_bits(setup, setup.lora ? with_packed_weights(weights, compute) : weights);
      }
    }
  }
}

TEST(GradientCheckpointing, GivesTheSameBitsAlongTheDevicePath) {
  for (const Dtype compute : {Dtype::kFloat32, Dtype::kFloat16, Dtype::kBFloat16}) {
    for (const ModelSetup& setup : every_setup_with_dropout()) {
      expect_same_bits(device_setup(setup, compute), random_weights(setup.config, at::kFloat));
    }
  }
}

TEST(GradientCheckpointing, ComputesAllBlocksButTheLastAnewAndDrawsNoMaskTwice) {
  const ModelSetup setup = device_setup(tiny_setup(Head::kCausalLm, 0.1), Dtype::kBFloat16);
  const auto weights = random_weights(setup.config, at::kFloat);
  const auto calls = [&](bool checkpointing, const std::string& name) {
    const support::OperatorRecord record;
    train_with(setup, weights, checkpointing);
    return record.kernels().at(name);
  };
  const int64_t layers = setup.config.num_layers;
  EXPECT_EQ(calls(false, "_flash_attention_forward"), layers);
  EXPECT_EQ(calls(true, "_flash_attention_forward"), 2 * layers - 1);
  EXPECT_EQ(calls(true, "native_dropout"), calls(false, "native_dropout"));
  EXPECT_EQ(calls(true, "gelu"), calls(false, "gelu")) << "an output that nobody reads was computed";
}

TEST(GradientCheckpointing, LeavesBlocksBelowTheLowestAdapterAlone) {
  ModelSetup setup = device_setup(tiny_setup(Head::kSingleLabel, 0.1), Dtype::kBFloat16);
  setup.lora->target_modules = {{"transformer.h.2.attn.attention.q_proj"}};
  const auto weights = random_weights(setup.config, at::kFloat);
  const support::OperatorRecord record;
  train_with(setup, weights, true);
  EXPECT_EQ(record.kernels().at("_flash_attention_forward"), setup.config.num_layers);
}

}  // namespace
}  // namespace neoloom::model::testing
