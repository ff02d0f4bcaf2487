// SPDX-License-Identifier: Apache-2.0
#include "model/model.h"
#include "model/gpt_neo/weights.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <set>
#include <utility>

#include "runtime/core/error.h"
#include "tests/unit/model/random_model.h"

namespace neoloom::model::testing {
namespace {

std::unique_ptr<Model> tiny_model(const ModelSetup& setup, at::ScalarType dtype = at::kFloat) {
  return Model::create(setup, random_weights(setup.config, dtype));
}

TEST(Model, ResultsDoNotDependOnEarlierCalls) {
  const auto model = tiny_model(tiny_setup(Head::kCausalLm, 0.1), at::kHalf);
  const at::Tensor params = random_params(*model);
  const Batch batch = with_lm_labels(random_batch({9, 3, 14}, 97));
  const Trial first = train_once(*model, batch, params, {3, 1});
  train_once(*model, with_lm_labels(random_batch({200, 5}, 97)), params, {3, 2});
  const Trial again = train_once(*model, batch, params, {3, 1});
  EXPECT_TRUE(same_bits(first.grads, again.grads));
  EXPECT_EQ(first.loss, again.loss);
}

/// Every kind of random number that training draws.
ModelSetup random_setup(Head head, double dropout) {
  ModelSetup setup = tiny_setup(head, dropout);
  setup.config.embed_dropout = setup.config.resid_dropout = setup.config.attention_dropout = dropout;
  setup.neftune_noise_alpha = 3.0;
  return setup;
}

TEST(Model, DropoutMasksAndNoiseFollowTheSampleIntoAnyBatch) {
  const auto model = tiny_model(random_setup(Head::kSingleLabel, 0.3));
  const at::Tensor params = random_params(*model);
  const DropoutKey key{11, 2};
  const auto batch_of = [](const std::vector<int64_t>& lengths) {
    return with_class_labels(random_batch(lengths, 97), 3);
  };
  const Trial together = train_once(*model, batch_of({5, 12, 17}), params, key);
  at::Tensor sum = at::zeros_like(together.grads);
  double loss = 0;
  for (const int64_t length : {5, 12, 17}) {
    const Trial alone = train_once(*model, batch_of({length}), params, key);
    sum.add_(alone.grads);
    loss += alone.loss;
  }
  EXPECT_LT(distance(together.grads, sum), 1e-5);
  EXPECT_NEAR(together.loss, loss, 1e-5);
  const Trial next_epoch = train_once(*model, batch_of({5, 12, 17}), params, {11, 3});
  EXPECT_GT(distance(next_epoch.grads, together.grads), 1e-2);
}

TEST(Model, GradientsWithDropoutAgreeWithDifferencesOfTheLoss) {
  const auto model = tiny_model(random_setup(Head::kCausalLm, 0.4));
  at::Tensor params = random_params(*model);
  const Batch batch = with_lm_labels(random_batch({9, 6}, 97));
  const DropoutKey key{5, 0};
  const Trial trial = train_once(*model, batch, params, key);
  // Along the gradient the loss changes by |g|^2 per unit step.
  const at::Tensor direction = trial.grads / trial.grads.norm();
  const double step = 1e-3;
  const double up = train_once(*model, batch, params + direction * step, key).loss;
  const double down = train_once(*model, batch, params - direction * step, key).loss;
  const double slope = trial.grads.norm().item<double>();
  EXPECT_NEAR((up - down) / (2 * step), slope, 1e-2 * slope);
}

TEST(Model, EachKindOfRandomNumbersChangesTrainingAndNoEvaluation) {
  const ModelSetup plain = tiny_setup(Head::kCausalLm);
  const at::Tensor params = random_params(*tiny_model(plain));
  const Batch batch = with_lm_labels(random_batch({9, 6}, 97));
  const auto losses = [&](const std::function<void(ModelSetup&)>& change) {
    ModelSetup setup = plain;
    change(setup);
    const auto model = tiny_model(setup);
    return std::pair(train_once(*model, batch, params, {5, 0}).loss,
                     model->evaluate(batch, params).loss.loss.item<double>());
  };
  const auto expected = losses([](ModelSetup&) {});
  EXPECT_EQ(losses([](ModelSetup& setup) { setup.neftune_noise_alpha = 0.0; }), expected);
  std::set<double> trained = {expected.first};
  for (const auto& [training, evaluation] : {losses([](ModelSetup& setup) { setup.neftune_noise_alpha = 2.0; }),
                                             losses([](ModelSetup& setup) { setup.config.embed_dropout = 0.1; }),
                                             losses([](ModelSetup& setup) { setup.config.resid_dropout = 0.1; }),
                                             losses([](ModelSetup& setup) { setup.config.attention_dropout = 0.1; })}) {
    EXPECT_TRUE(trained.insert(training).second);
    EXPECT_EQ(evaluation, expected.second);
  }
}

TEST(Model, LossScaleOnlyScalesGradients) {
  for (const Head head : {Head::kCausalLm, Head::kSingleLabel}) {
    const auto model = tiny_model(tiny_setup(head));
    const at::Tensor params = random_params(*model);
    Batch batch = random_batch({9, 3}, 97);
    batch = head == Head::kCausalLm ? with_lm_labels(batch) : with_class_labels(batch, 3);
    const Trial plain = train_once(*model, batch, params);
    const Trial scaled = train_once(*model, batch, params, {}, 1024.0);
    EXPECT_TRUE(same_bits(plain.grads * 1024.0, scaled.grads));  // a power of two changes exponents only
    EXPECT_EQ(plain.loss, scaled.loss);
  }
}

TEST(Model, ABatchWithoutAnySupervisedTokenHasNoLossAndNoGradient) {
  const auto model = tiny_model(tiny_setup(Head::kCausalLm));
  Batch batch = random_batch({9, 1}, 97);
  batch.has_targets = true;
  const Trial trial = train_once(*model, batch, random_params(*model));
  EXPECT_EQ(trial.count, 0);
  EXPECT_EQ(trial.loss, 0.0);
  EXPECT_EQ(trial.grads.abs().max().item<float>(), 0.0F);
}

TEST(Model, RowsWithoutALabelDoNotCount) {
  const auto model = tiny_model(tiny_setup(Head::kSingleLabel));
  const at::Tensor params = random_params(*model);
  Batch batch = with_class_labels(random_batch({9, 5, 12}, 97), 3);
  batch.targets[1] = -1;
  const Trial with_gap = train_once(*model, batch, params);
  const Trial without = train_once(*model, with_class_labels(random_batch({9, 12}, 97), 3), params);
  EXPECT_EQ(with_gap.count, 2);
  EXPECT_NEAR(with_gap.loss, without.loss, 1e-5);
  EXPECT_LT(distance(with_gap.grads, without.grads), 1e-5);
}

TEST(Model, ChunksOfLogitsDoNotChangeTheLoss) {
  ModelSetup setup = tiny_setup(Head::kCausalLm);
  const auto whole = tiny_model(setup);
  setup.logits_chunk_rows = 3;
  const auto chunked = tiny_model(setup);
  const at::Tensor params = random_params(*whole);
  const Batch batch = with_lm_labels(random_batch({9, 3, 14}, 97));
  const Trial a = train_once(*whole, batch, params);
  const Trial b = train_once(*chunked, batch, params);
  EXPECT_NEAR(a.loss, b.loss, 1e-6 * a.loss);
  EXPECT_LT(distance(a.grads, b.grads), 1e-5);
}

TEST(Model, DecoderContinuesAsTheWholeSequenceWould) {
  const auto model = tiny_model(tiny_setup(Head::kCausalLm));
  const at::Tensor params = random_params(*model);
  const Batch batch = random_batch({140}, 97);
  const at::Tensor all = model->lm_logits(batch, params);
  const std::vector<int64_t>& ids = batch.ids;
  const auto decoder = model->make_decoder(params, 140);
  // The window is much shorter than the prompt and than what follows it.
  for (const int64_t prompt : {1, 7, 131}) {
    decoder->restart(0);
    EXPECT_LT(distance(decoder->feed({{0, {ids.begin(), ids.begin() + prompt}}})[0], all[prompt - 1]), 1e-5);
    for (int64_t token = prompt; token < 140; ++token) {
      EXPECT_LT(distance(decoder->feed({{0, {ids[static_cast<size_t>(token)]}}})[0], all[token]), 1e-5);
    }
  }
  EXPECT_EQ(decoder->position(0), 140);
  EXPECT_THROW(decoder->feed({{0, {1}}}), core::Error);
}

TEST(Model, SequencesDecodedBesideEachOtherAreThoseOfOneAlone) {
  const auto model = tiny_model(tiny_setup(Head::kCausalLm));
  const at::Tensor params = random_params(*model);
  const std::vector<std::vector<int64_t>> prompts = {random_batch({30}, 97).ids, {5}, {6, 7, 8, 9}};
  const auto together = model->make_decoder(params, 60, 3);
  std::vector<Model::Decoder::NextTokens> next;
  for (size_t i = 0; i < prompts.size(); ++i) next.push_back({static_cast<int64_t>(i), prompts[i]});
  std::vector<at::Tensor> rows = {together->feed(next)};
  for (int64_t token = 10; token < 30; ++token)
    rows.push_back(together->feed({{2, {token}}, {0, {token + 1}}, {1, {3}}}));
  for (size_t i = 0; i < prompts.size(); ++i) {
    const auto alone = model->make_decoder(params, 60);
    EXPECT_LT(distance(alone->feed({{0, prompts[i]}})[0], rows[0][static_cast<int64_t>(i)]), 1e-5);
    for (int64_t token = 10; token < 30; ++token) {
      const std::array<int64_t, 3> id = {token + 1, 3, token}, row = {1, 2, 0};
      EXPECT_LT(distance(alone->feed({{0, {id[i]}}})[0], rows[static_cast<size_t>(token - 9)][row[i]]), 1e-5) << i;
    }
  }
}

TEST(Model, InitialValuesAreAPureFunctionOfSeedAndName) {
  const auto small = tiny_model(tiny_setup(Head::kCausalLm));
  ModelSetup with_score = tiny_setup(Head::kSingleLabel);
  with_score.lora->target_modules = {{"c_fc", "v_proj"}};
  const auto other = tiny_model(with_score);
  at::Tensor a = at::empty({small->layout().total_elements}, at::TensorOptions().dtype(at::kFloat));
  at::Tensor b = at::empty({other->layout().total_elements}, a.options());
  small->initialize(a, 42);
  other->initialize(b, 42);
  const auto view = [](const Model& model, const at::Tensor& values, const std::string& name) {
    for (const ParameterSlot& slot : model.layout().slots) {
      if (slot.name == name) return values.narrow(0, slot.offset_elements, slot.elements());
    }
    return at::Tensor();
  };
  const std::string module = "base_model.model.transformer.h.1.mlp.c_fc.";
  const at::Tensor lora_a = view(*small, a, module + "lora_A.weight");
  EXPECT_TRUE(same_bits(lora_a, view(*other, b, module + "lora_A.weight")));
  EXPECT_LE(lora_a.abs().max().item<double>(), 0.25);  // 1 / sqrt(16)
  EXPECT_GT(lora_a.abs().max().item<double>(), 0.2);
  EXPECT_EQ(view(*small, a, module + "lora_B.weight").abs().max().item<float>(), 0.0F);
  const at::Tensor score = view(*other, b, "base_model.model.score.weight");
  EXPECT_NEAR(score.square().mean().sqrt().item<double>(), 0.02, 0.006);
  at::Tensor other_seed = at::empty_like(a);
  small->initialize(other_seed, 43);
  EXPECT_FALSE(same_bits(a, other_seed));
}

TEST(Model, FullParameterModeStartsFromTheLoadedWeightsAndSparesNormsAndBiasesFromDecay) {
  ModelSetup setup = tiny_setup(Head::kCausalLm);
  setup.lora.reset();
  const auto weights = random_weights(setup.config, at::kHalf);
  const auto model = Model::create(setup, weights);
  EXPECT_EQ(model->layout().trainable_elements, setup.config.body_parameters());
  at::Tensor params = at::empty({model->layout().total_elements}, at::TensorOptions().dtype(at::kFloat));
  model->initialize(params, 1);
  size_t slot = 0;
  for (const auto& [name, tensor] : named_tensors(*weights)) {
    const ParameterSlot& place = model->layout().slots.at(slot++);
    EXPECT_EQ(place.name, name);
    EXPECT_EQ(place.decay, tensor.dim() == 2) << name;
    EXPECT_TRUE(
        same_bits(params.narrow(0, place.offset_elements, place.elements()), tensor.to(at::kFloat).reshape({-1})))
        << name;
  }
}

TEST(Model, BadBatchesAreRefusedByName) {
  const auto model = tiny_model(tiny_setup(Head::kSingleLabel));
  const at::Tensor params = random_params(*model);
  const auto error_of = [&](const Batch& batch) -> std::string {
    try {
      model->evaluate(batch, params);
    } catch (const core::Error& error) {
      EXPECT_EQ(error.kind(), core::ErrorKind::kData);
      return error.what();
    }
    return "";
  };
  EXPECT_THAT(error_of(random_batch({301}, 97)), ::testing::HasSubstr("301 tokens, but the model has 300"));
  Batch foreign = random_batch({4}, 97);
  foreign.ids[2] = 97;
  EXPECT_THAT(error_of(foreign), ::testing::HasSubstr("token 2 has id 97"));
  Batch label = random_batch({4}, 97);
  label.has_targets = true;
  label.targets = {3};
  EXPECT_THAT(error_of(label), ::testing::HasSubstr("label 3 with only 3 classes"));
}

TEST(Model, FlopsOfATokenFollowTheCostModel) {
  ModelSetup setup;
  setup.config.hidden_size = 768;
  setup.config.intermediate_size = 3072;
  setup.config.num_layers = 12;
  setup.config.num_heads = 12;
  for (int layer = 0; layer < 12; ++layer) setup.config.layer_is_local.push_back(layer % 2 == 1);
  setup.lora = LoraOptions{};
  auto weights = std::make_shared<Weights>();
  const auto shape = [](const std::vector<int64_t>& sizes) {
    return at::empty(sizes, at::TensorOptions().dtype(at::kHalf));
  };
  weights->wte = shape({50257, 768});
  weights->wpe = shape({2048, 768});
  weights->lm_head = weights->wte;
  weights->ln_f.weight = weights->ln_f.bias = shape({768});
  BlockWeights block;
  for (at::Tensor* small : {&block.ln_1.weight, &block.ln_1.bias, &block.ln_2.weight, &block.ln_2.bias,
                            &block[LinearSite::kOutProj].bias, &block[LinearSite::kCProj].bias}) {
    *small = shape({768});
  }
  block[LinearSite::kQProj].weight = block[LinearSite::kKProj].weight = block[LinearSite::kVProj].weight =
      block[LinearSite::kOutProj].weight = shape({768, 768});
  block[LinearSite::kCFc].weight = shape({3072, 768});
  block[LinearSite::kCFc].bias = shape({3072});
  block[LinearSite::kCProj].weight = shape({768, 3072});
  weights->blocks.assign(12, block);
  const double flops = Model::create(setup, weights)->training_flops_per_token(512);
  // 4 N = 0.494 GFLOP, attention 0.025 x 2 / 2.5 counted as forward + 2 x, LoRA 6 x 294,912.
  EXPECT_NEAR(flops, 0.494e9 + 0.0249e9 + 6 * 294912.0, 0.004e9);
}

}  // namespace
}  // namespace neoloom::model::testing
