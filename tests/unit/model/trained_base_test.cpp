// SPDX-License-Identifier: Apache-2.0
// LoRA that also trains tensors of the base.
#include <ATen/ops/zeros.h>

#include <gtest/gtest.h>

#include "model/lora/trainable_count.h"
#include "model/model.h"
#include "model/parameter_table.h"
#include "tests/unit/model/device_path.h"
#include "tests/unit/model/setups.h"

namespace neoloom::model::testing {
namespace {

struct Kind {
  const char* bias;
  bool lora_bias;
  std::vector<std::string> modules_to_save = {};
  std::vector<int64_t> tokens = {};
};

ModelSetup setup_of(const Kind& kind, Head head, double dropout = 0.0) {
  ModelSetup setup = tiny_setup(head, dropout);
  setup.lora->bias = kind.bias;
  setup.lora->lora_bias = kind.lora_bias;
  setup.lora->modules_to_save = kind.modules_to_save;
  setup.lora->trainable_token_indices = kind.tokens;
  return setup;
}

const std::vector<Kind> kKinds = {{"all", false},
                                  {"lora_only", false},
                                  {"none", true},
                                  {"all", true},
                                  {"none", false, {"ln_f"}},
                                  {"none", false, {"wte"}},
                                  {"all", true, {"wte", "ln_f", "lm_head"}},
                                  {"none", false, {}, {5, 0, 2}}};

TEST(TrainedBase, StartsAsTheBaseModelAndIsCounted) {
  for (const Kind& kind : kKinds) {
    const ModelSetup setup = setup_of(kind, Head::kCausalLm);
    const auto weights = random_weights(setup.config, at::kBFloat16);
    const auto model = Model::create(setup, weights);
    const auto plain = Model::create(tiny_setup(Head::kCausalLm), weights);
    at::Tensor params = at::zeros({model->layout().total_elements}, at::kFloat);
    at::Tensor plain_params = at::zeros({plain->layout().total_elements}, at::kFloat);
    model->initialize(params, 3);
    plain->initialize(plain_params, 3);
    const Batch batch = random_batch({7, 3}, setup.config.vocab_size);
    EXPECT_LT(distance(model->lm_logits(batch, params), plain->lm_logits(batch, plain_params)), 1e-6) << kind.bias;
    const TrainableCount count = count_trainable(setup.config, setup.lora, 0);
    EXPECT_EQ(count.parameters, model->layout().trainable_elements);
    EXPECT_EQ(count.flat_elements, model->layout().total_elements);
    EXPECT_GT(count.parameters, plain->layout().trainable_elements);
    for (const ParameterSlot& slot : model->layout().slots) {
      const bool norm_or_bias = slot.name.ends_with(".bias") || slot.name.ends_with("ln_f.weight");
      EXPECT_NE(slot.decay, norm_or_bias) << slot.name;
    }
  }
}

TEST(TrainedBase, TheDevicePathEqualsTheHosts) {
  for (const Kind& kind : kKinds) {
    SCOPED_TRACE(::testing::Message() << kind.bias << " " << kind.lora_bias);
    for (const Head head : {Head::kCausalLm, Head::kSingleLabel}) expect_device_equals_host(setup_of(kind, head));
  }
}

TEST(TrainedBase, GradientCheckpointingGivesTheSameBits) {
  for (const Kind& kind : kKinds) {
    ModelSetup setup = setup_of(kind, Head::kCausalLm, 0.3);
    const auto weights = random_weights(setup.config, at::kFloat);
    const auto kept = Model::create(setup, weights);
    setup.gradient_checkpointing = true;
    const auto recomputed = Model::create(setup, weights);
    const at::Tensor params = random_params(*kept);
    const DropoutKey key{5, 0, 1, 0};
    const Trial expected = train_once(*kept, batch_for(setup), params, key);
    EXPECT_TRUE(same_bits(train_once(*recomputed, batch_for(setup), params, key).grads, expected.grads));
  }
}

}  // namespace
}  // namespace neoloom::model::testing
