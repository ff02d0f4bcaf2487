// SPDX-License-Identifier: Apache-2.0
#include "model/lora/dora.h"

#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/mm.h>

#include <gtest/gtest.h>

#include "model/gpt_neo/backend.h"
#include "model/gpt_neo/dora_norms.h"
#include "model/lora/trainable_count.h"
#include "model/parameter_table.h"
#include "tests/unit/model/device_path.h"
#include "tests/unit/model/setups.h"

namespace neoloom::model::testing {
namespace {

ModelSetup dora_setup(Head head, double dropout = 0.0) {
  ModelSetup setup = tiny_setup(head, dropout);
  setup.lora->use_dora = true;
  return setup;
}

at::Tensor in_fp64(const at::Tensor& x) { return x.to(at::kDouble); }

at::Tensor exact_norms(const at::Tensor& weight, const at::Tensor& a, const at::Tensor& b, double scaling) {
  return at::linalg_vector_norm(in_fp64(weight).add(at::mm(in_fp64(b), in_fp64(a)), scaling), 2, at::IntArrayRef{1});
}

TEST(Dora, RowNormsEqualThoseOfTheSumInFp64) {
  for (const at::ScalarType frozen : {at::kFloat, at::kHalf, at::kBFloat16}) {
    for (const double size : {0.0, 0.01, 1.0, 30.0}) {
      const at::Tensor weight = random({900, 2000}, 0.1, 1).to(frozen);
      const at::Tensor a = random({5, 2000}, 0.1, 2), b = random({900, 5}, size, 3);
      const at::Tensor projected = at::mm(a, weight.to(at::kFloat).t());
      const at::Tensor found = row_norms({row_squares(weight), projected, a, b, 0.7});
      const at::Tensor exact = exact_norms(weight, a, b, 0.7);
      EXPECT_LT(in_fp64(found).sub(exact).div(exact).abs().max().item<double>(), 1e-6) << size;
      if (size == 0.0) {
        EXPECT_TRUE(same_bits(found, row_squares(weight).sqrt()));
      }
    }
  }
}

at::Tensor slot_of(const Model& model, const at::Tensor& params, const std::string& end) {
  for (const ParameterSlot& slot : model.layout().slots) {
    if (slot.name.ends_with(end)) return params.narrow(0, slot.offset_elements, slot.elements()).view(slot.shape);
  }
  return {};
}

TEST(Dora, StartsAsTheBaseModel) {
  for (const Dtype compute : {Dtype::kFloat32, Dtype::kBFloat16}) {
    for (const bool on_cuda : {false, true}) {
      ModelSetup setup = dora_setup(Head::kCausalLm);
      setup.compute_dtype = compute;
      if (on_cuda) setup = device_setup(setup, compute);
      const auto weights = with_packed_weights(random_weights(setup.config, at::kBFloat16), compute);
      const auto dora = Model::create(setup, weights);
      setup.lora->use_dora = false;
      const auto plain = Model::create(setup, weights);
      at::Tensor params = at::zeros({dora->layout().total_elements}, at::kFloat);
      at::Tensor plain_params = at::zeros({plain->layout().total_elements}, at::kFloat);
      dora->initialize(params, 3);
      const TrainableCount count = count_trainable(setup.config, dora->setup().lora, 0);
      EXPECT_EQ(count.parameters, dora->layout().trainable_elements);
      int64_t factored = 0;
      for (const ParameterSlot& slot : dora->layout().slots) {
        for (const int64_t extent : slot.shape) factored += extent;
      }
      EXPECT_EQ(count.factored_elements, factored);
      plain->initialize(plain_params, 3);
      const at::Tensor magnitude = slot_of(*dora, params, "h.1.mlp.c_fc.lora_magnitude_vector");
      const at::Tensor expected = exact_norms(weights->blocks[1][LinearSite::kCFc].weight,
                                              at::zeros({1, 16}, at::kFloat), at::zeros({64, 1}, at::kFloat), 1.0);
      EXPECT_LT(distance(in_fp64(magnitude), expected), 1e-6);
      const Batch batch = batch_for(setup);
      EXPECT_LT(distance(dora->lm_logits(batch, params), plain->lm_logits(batch, plain_params)), 1e-5);
    }
  }
}

/// Calls visit(view of the magnitudes, norms in fp64) for every adapter.
template <typename Visit>
void for_each_adapter(const Weights& weights, const NetworkBuilder& builder, const at::Tensor& params, Visit visit) {
  const Network network = builder.build(params, {}, nullptr);
  for (size_t layer = 0; layer < network.blocks.size(); ++layer) {
    for (const LinearSite site : kLinearSites) {
      const LoraBranch& lora = network.blocks[layer][site].lora;
      visit(lora.dora.magnitude, exact_norms(weights.blocks[layer][site].weight, lora.a, lora.b, lora.scaling));
    }
  }
}

/// Returns params + t * direction, with magnitudes that make the gain what it would be had the norms stayed: PEFT takes
/// them for constants in backward, so this is the path along which its gradient is the loss's slope.
at::Tensor moved(const ModelSetup& setup, const Weights& weights, const at::Tensor& params, const at::Tensor& direction,
                 double t) {
  const NetworkBuilder builder(setup, std::make_shared<Weights>(weights));
  at::Tensor result = params.add(direction, t);
  std::vector<at::Tensor> before;
  for_each_adapter(weights, builder, params,
                   [&](const at::Tensor&, const at::Tensor& norms) { before.push_back(norms); });
  size_t next = 0;
  for_each_adapter(weights, builder, result, [&](const at::Tensor& magnitude, const at::Tensor& norms) {
    magnitude.copy_(in_fp64(magnitude).mul(norms).div(before[next++]));
  });
  return result;
}

class DoraGradients : public ::testing::TestWithParam<std::tuple<bool, double, Head>> {};

TEST_P(DoraGradients, AreTheSlopeOfTheLossWithNormsThatStay) {
  const auto [on_cuda, dropout, head] = GetParam();
  ModelSetup setup = dora_setup(head, dropout);
  if (on_cuda) setup = device_setup(setup, Dtype::kFloat32);
  const auto weights = random_weights(setup.config, at::kFloat);
  const auto model = Model::create(setup, weights);
  const at::Tensor params = random_params(*model);
  const Batch batch = batch_for(setup);
  const DropoutKey key{5, 0, 1, 0};
  const at::Tensor grads = train_once(*model, batch, params, key).grads;
  const double step = 1e-3;
  for (const std::string part : {".lora_A.weight", ".lora_B.weight", ".lora_magnitude_vector", ""}) {
    at::Tensor direction = at::zeros_like(params);
    for (const ParameterSlot& slot : model->layout().slots) {
      if (slot.name.ends_with(part)) {
        direction.narrow(0, slot.offset_elements, slot.elements())
            .copy_(grads.narrow(0, slot.offset_elements, slot.elements()));
      }
    }
    direction.div_(direction.norm());
    const auto loss_at = [&](double t) {
      return train_once(*model, batch, moved(setup, *weights, params, direction, t), key).loss;
    };
    const double slope = (loss_at(step) - loss_at(-step)) / (2 * step);
    const double expected = grads.mul(direction).sum().item<double>();
    EXPECT_NEAR(slope, expected, 1e-2 * expected) << part;
  }
}

INSTANTIATE_TEST_SUITE_P(Paths, DoraGradients,
                         ::testing::Combine(::testing::Bool(), ::testing::Values(0.0, 0.4),
                                            ::testing::Values(Head::kCausalLm, Head::kSingleLabel)));

TEST(Dora, TheDevicePathEqualsTheHosts) {
  for (const Head head : {Head::kCausalLm, Head::kSingleLabel}) expect_device_equals_host(dora_setup(head));
}

TEST(Dora, DecodesAsTheWholeSequenceWould) {
  const ModelSetup setup = dora_setup(Head::kCausalLm);
  const auto model = Model::create(setup, random_weights(setup.config, at::kFloat));
  const at::Tensor params = random_params(*model);
  Batch batch = random_batch({7}, setup.config.vocab_size);
  const at::Tensor logits = model->lm_logits(batch, params);
  EXPECT_LT(distance(model->make_decoder(params, 10)->feed({{0, batch.ids}})[0], logits.select(0, 6)), 1e-5);
}

TEST(Dora, GradientCheckpointingGivesTheSameBits) {
  for (const bool on_cuda : {false, true}) {
    ModelSetup setup = dora_setup(Head::kCausalLm, 0.3);
    if (on_cuda) setup = device_setup(setup, Dtype::kBFloat16);
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

// The norms are kept between micro-batches: this fails when they outlive the parameters that they belong to.
TEST(Dora, NormsFollowParametersThatChangeInPlace) {
  const ModelSetup setup = dora_setup(Head::kCausalLm);
  const auto weights = random_weights(setup.config, at::kFloat);
  const auto model = Model::create(setup, weights);
  at::Tensor params = random_params(*model);
  const Batch batch = batch_for(setup);
  train_once(*model, batch, params);
  params.mutable_data_ptr<float>()[5] += 0.5F;  // an element of the first A, written as the optimizer writes
  const Trial found = train_once(*model, batch, params);
  const Trial expected = train_once(*Model::create(setup, weights), batch, params);
  EXPECT_TRUE(same_bits(found.grads, expected.grads));
  EXPECT_EQ(found.loss, expected.loss);
}

/// Counts the products with weights that a Backend is asked for.
class CountingBackend final : public Backend {
 public:
  explicit CountingBackend(const ModelSetup& setup) : backend_(make_backend(setup)) {}

  at::Tensor multiply(const at::Tensor& x, const Matrix& weight) override {
    ++products;
    return backend_->multiply(x, weight);
  }
  std::unique_ptr<BlockOps> block_ops(const Block& block, const RowSelection& rows) override {
    return backend_->block_ops(block, rows);
  }
  std::unique_ptr<LmHeadOps> lm_head_ops(const Network& network, int64_t chunk_rows) override {
    return backend_->lm_head_ops(network, chunk_rows);
  }
  at::Tensor cross_entropy(at::Tensor& logits, const at::Tensor& targets, const LossOptions& options) const override {
    return backend_->cross_entropy(logits, targets, options);
  }
  at::Tensor drop(const DropoutMask& dropout, const at::Tensor& x, const std::vector<RowKey>& keys,
                  at::Tensor& mask) const override {
    return backend_->drop(dropout, x, keys, mask);
  }
  void add_noise(const EmbeddingNoise& noise, at::Tensor& x, const PackedBatch& batch) const override {
    backend_->add_noise(noise, x, batch);
  }
  std::string describe_attention(int64_t window) const override { return backend_->describe_attention(window); }

  int products = 0;

 private:
  std::unique_ptr<Backend> backend_;
};

TEST(Dora, NormsAreComputedOnceAnUpdateOnCpus) {
  const ModelSetup setup = dora_setup(Head::kCausalLm);
  const NetworkBuilder builder(setup, random_weights(setup.config, at::kFloat));
  at::Tensor params = random({builder.layout().total_elements}, 0.2, 9);
  CountingBackend backend(setup);
  DoraNorms norms(/*keeps=*/true), on_gpus(/*keeps=*/false);
  constexpr int kAdapters = 18;
  for (int update = 1; update <= 2; ++update) {
    for (int micro_batch = 0; micro_batch < 3; ++micro_batch) {
      Network network = builder.build(params, {}, nullptr);
      norms.set(network, backend, params);
    }
    EXPECT_EQ(backend.products, kAdapters * update);
    params.add_(0.1);
  }
  for (int micro_batch = 0; micro_batch < 2; ++micro_batch) {
    Network network = builder.build(params, {}, nullptr);
    on_gpus.set(network, backend, params);
  }
  EXPECT_EQ(backend.products, kAdapters * 4);
}

}  // namespace
}  // namespace neoloom::model::testing
