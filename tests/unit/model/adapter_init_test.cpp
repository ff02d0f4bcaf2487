// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <ATen/ops/mm.h>

#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "model/lora/target_modules.h"
#include "runtime/core/error.h"
#include "tests/unit/model/random_model.h"

namespace neoloom::model::testing {
namespace {

using ::testing::HasSubstr;

ModelSetup setup_with(const char* init, double dropout = 0.0) {
  ModelSetup setup = tiny_setup(Head::kCausalLm, dropout);
  setup.lora->init_lora_weights = init_from_name(init);
  return setup;
}

at::Tensor initial(const Model& model, uint64_t seed = 3) {
  at::Tensor values = at::empty({model.layout().total_elements}, at::TensorOptions().dtype(at::kFloat));
  model.initialize(values, seed);
  return values;
}

/// A and B of one adapter after the other.
std::vector<std::pair<at::Tensor, at::Tensor>> adapters(const Model& model, const at::Tensor& values) {
  std::vector<std::pair<at::Tensor, at::Tensor>> pairs;
  for (const ParameterSlot& slot : model.layout().slots) {
    const at::Tensor value = values.narrow(0, slot.offset_elements, slot.elements()).view(slot.shape);
    if (slot.name.ends_with(kLoraASuffix)) pairs.emplace_back(value, at::Tensor());
    if (slot.name.ends_with(kLoraBSuffix)) pairs.back().second = value;
  }
  return pairs;
}

/// The weights less s B0 A0 of each adapter.
std::shared_ptr<Weights> less(const Weights& weights, const Model& model, const at::Tensor& values) {
  auto changed = std::make_shared<Weights>(weights);
  const auto pairs = adapters(model, values);
  size_t next = 0;
  for (BlockWeights& block : changed->blocks) {
    for (const LinearSite site : kLinearSites) {
      const auto& [a, b] = pairs[next++];
      block[site].weight = block[site].weight.sub(at::mm(b, a), 2.0);  // alpha 8 / r 4
    }
  }
  return changed;
}

TEST(Subtract, ComputesWithTheWeightsLessTheInitialProduct) {
  for (const double dropout : {0.0, 0.3}) {
    const ModelSetup setup = setup_with("true", dropout);
    const auto weights = random_weights(setup.config, at::kFloat);
    const auto model = Model::create(setup, weights);
    const at::Tensor params = random_params(*model);
    const at::Tensor values = params.mul(0.5).add(0.01);
    const auto changed = Model::create(setup, less(*weights, *model, values));
    model->subtract(values);
    const Batch batch = with_lm_labels(random_batch({9, 3, 14}, setup.config.vocab_size));
    const Trial expected = train_once(*changed, batch, params, {7, 1}),
                found = train_once(*model, batch, params, {7, 1});
    EXPECT_NEAR(found.loss, expected.loss, 1e-5 * expected.loss);
    EXPECT_LT(distance(found.grads, expected.grads), 1e-4);
    const std::vector<Model::Decoder::NextTokens> next = {{0, {1, 2, 3}}};
    EXPECT_LT(distance(model->make_decoder(params, 20)->feed(next), changed->make_decoder(params, 20)->feed(next)),
              1e-5);
  }
}

TEST(AdapterInit, AModelThatSubtractsItsInitialValuesStartsAsTheBase) {
  const ModelSetup plain = setup_with("true");
  const auto weights = random_weights(plain.config, at::kFloat);
  const Batch batch = with_lm_labels(random_batch({9, 3, 14}, plain.config.vocab_size));
  const auto base = Model::create(plain, weights);
  const double expected = train_once(*base, batch, initial(*base)).loss;
  for (const char* init : {"pissa", "pissa_niter_2", "olora"}) {
    const auto model = Model::create(setup_with(init), weights);
    const at::Tensor values = initial(*model);
    EXPECT_GT(std::abs(train_once(*model, batch, values).loss - expected), 1e-2 * expected) << init;
    model->subtract(values);
    EXPECT_NEAR(train_once(*model, batch, values).loss, expected, 1e-5 * expected) << init;
  }
}

TEST(AdapterInit, SharesOfAnyNumberOfCallersAreTheWholeToTheBit) {
  for (const char* init : {"orthogonal", "pissa", "pissa_niter_2", "olora"}) {
    const auto model = Model::create(setup_with(init), random_weights(tiny_config(), at::kFloat));
    const at::Tensor whole = initial(*model);
    for (const int64_t callers : {2, 3, 40}) {
      at::Tensor sum = at::zeros_like(whole);
      for (int64_t caller = 0; caller < callers; ++caller) {
        at::Tensor share = at::empty_like(whole);
        model->initialize_share(share, 3, {caller, callers});
        sum.add_(share);
      }
      EXPECT_TRUE(same_bits(sum, whole.add(0.0))) << init << ", " << callers << " callers";
    }
  }
}

TEST(AdapterInit, RandomOnesDependOnTheSeedAndTheOthersDoNot) {
  const auto weights = random_weights(tiny_config(), at::kFloat);
  for (const char* init : {"true", "false", "gaussian", "orthogonal", "pissa_niter_0", "pissa", "olora"}) {
    const auto model = Model::create(setup_with(init), weights);
    const bool random = std::string(init) != "pissa" && std::string(init) != "olora";
    EXPECT_NE(same_bits(initial(*model, 3), initial(*model, 4)), random) << init;
    EXPECT_TRUE(same_bits(initial(*model, 3), initial(*model, 3))) << init;
  }
}

TEST(AdapterInit, OnlyFalseStartsWithAProductThatIsNotZero) {
  const auto weights = random_weights(tiny_config(), at::kFloat);
  for (const char* init : {"true", "false", "gaussian", "orthogonal"}) {
    const auto model = Model::create(setup_with(init), weights);
    for (const auto& [a, b] : adapters(*model, initial(*model))) {
      EXPECT_GT(a.abs().max().item<float>(), 0) << init;
      EXPECT_EQ(at::mm(b, a).abs().max().item<float>() > 1e-7, std::string(init) == "false") << init;
    }
  }
}

std::string refusal(const char* init, int64_t r) {
  ModelSetup setup = setup_with(init);
  setup.lora->r = r;
  try {
    Model::create(setup, random_weights(setup.config, at::kFloat));
  } catch (const core::Error& error) {
    EXPECT_EQ(error.kind(), core::ErrorKind::kUsage);
    return error.what();
  }
  return "accepted";
}

TEST(AdapterInit, ARankThatTheWeightDoesNotHaveIsRefused) {
  EXPECT_EQ(refusal("pissa", 16), "accepted");
  for (const char* init : {"pissa", "olora"}) {
    EXPECT_THAT(refusal(init, 17), HasSubstr("transformer.h.0.attn.attention.q_proj has 16, r is 17"));
  }
  EXPECT_THAT(refusal("orthogonal", 3), HasSubstr("needs an even r"));
  EXPECT_EQ(refusal("true", 17), "accepted");
}

TEST(AdapterInit, AWeightThatIsNotFiniteIsNamed) {
  const auto weights = random_weights(tiny_config(), at::kFloat);
  weights->blocks[1][LinearSite::kKProj].weight.fill_(std::numeric_limits<float>::quiet_NaN());
  const auto model = Model::create(setup_with("pissa"), weights);
  try {
    initial(*model);
    FAIL() << "expected an error";
  } catch (const core::Error& error) {
    EXPECT_EQ(error.kind(), core::ErrorKind::kWeights);
    EXPECT_THAT(error.what(), HasSubstr("h.1.attn.attention.k_proj"));
  }
}

TEST(AdapterInit, NamesComeBackAndUnknownOnesSayWhatToDo) {
  for (const char* name : {"true", "false", "gaussian", "orthogonal", "pissa", "pissa_niter_16", "olora"}) {
    EXPECT_EQ(init_name(init_from_name(name)), name);
  }
  const auto complaint = [](const char* name) -> std::string {
    try {
      init_from_name(name);
    } catch (const core::Error& error) {
      return error.what();
    }
    return "accepted";
  };
  EXPECT_THAT(complaint("loftq"), HasSubstr("\"loftq\" is not supported: it corrects a quantised base model"));
  for (const char* name : {"eva", "corda", "lora_ga"}) EXPECT_THAT(complaint(name), HasSubstr("init_from")) << name;
  for (const char* name : {"pissa_niter_", "pissa_niter_-1", "pissa_niter_2x", "Pissa", ""}) {
    EXPECT_THAT(complaint(name), HasSubstr("expected true, false, gaussian")) << name;
  }
}

}  // namespace
}  // namespace neoloom::model::testing
