// SPDX-License-Identifier: Apache-2.0
// Tests the CUDA backend on CPU tensors, with reference_operators.h for operators that exist on CUDA only.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "model/batch/packing.h"
#include "model/cuda/attention.h"
#include "model/cuda/attention_choice.h"
#include "model/weight_cache/weight_cache.h"
#include "runtime/core/error.h"
#include "tests/support/operator_record.h"
#include "tests/unit/model/random_model.h"
#include "tests/unit/model/reference_operators.h"
#include "tests/unit/model/setups.h"

namespace neoloom::model::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

TEST(AttentionChoice, FollowsFromDeviceTypeAndWindowAlone) {
  struct Row {
    DeviceTraits device;
    Dtype compute;
    int64_t head_size, window;
    AttentionKernel expected;
  };
  const std::vector<Row> table = {
      {gpu(9, 0), Dtype::kBFloat16, 64, 256, AttentionKernel::kFlash},
      {gpu(9, 0), Dtype::kBFloat16, 128, 0, AttentionKernel::kFlash},
      {gpu(9, 0, false), Dtype::kBFloat16, 128, 0, AttentionKernel::kCudnn},
      {gpu(9, 0, false), Dtype::kFloat16, 128, 256, AttentionKernel::kFlash},  // cuDNN has no window
      {gpu(8, 0, false), Dtype::kFloat16, 64, 0, AttentionKernel::kFlash},     // cuDNN is slower there
      {gpu(10, 0, false), Dtype::kFloat16, 64, 0, AttentionKernel::kFlash},
      {gpu(9, 0), Dtype::kFloat32, 64, 0, AttentionKernel::kMath},
      {gpu(7, 5), Dtype::kFloat16, 64, 0, AttentionKernel::kMath},   // no flash kernel
      {gpu(9, 0), Dtype::kFloat16, 60, 0, AttentionKernel::kMath},   // heads in steps of 8 channels
      {gpu(9, 0), Dtype::kFloat16, 256, 0, AttentionKernel::kMath},  // nor above 128
      {DeviceTraits{}, Dtype::kBFloat16, 64, 0, AttentionKernel::kMath},
  };
  for (size_t row = 0; row < table.size(); ++row) {
    const Row& r = table[row];
    EXPECT_EQ(choose_attention(r.device, r.compute, r.head_size, r.window), r.expected) << "row " << row;
  }
}

TEST(SlidingWindow, WindowOfTheKernelDoesNotCountTheTokenItself) {
  const SlidingWindow local = sliding_window(256);
  EXPECT_FALSE(local.causal);
  EXPECT_EQ(local.left, 255);
  EXPECT_EQ(local.right, 0);
  const SlidingWindow global = sliding_window(0);
  EXPECT_TRUE(global.causal);
  EXPECT_FALSE(global.left.has_value());
  EXPECT_FALSE(global.right.has_value());
}

TEST(CuSeqlens, SaysWhereEachSampleBeginsAndHowLongTheLongestIs) {
  const CuSeqlens rows = cu_seqlens({{0, 3, 0, 3}, {3, 5, 3, 5}, {8, 1, 8, 1}}, at::kCPU);
  EXPECT_TRUE(rows.queries_are_keys);
  EXPECT_EQ(rows.max_seqlen_q, 5);
  EXPECT_EQ(rows.max_seqlen_k, 5);
  const int32_t* const bounds = rows.cu_seqlens_k.const_data_ptr<int32_t>();
  EXPECT_THAT(std::vector<int32_t>(bounds, bounds + rows.cu_seqlens_k.numel()), ElementsAre(0, 3, 8, 9));
}

TEST(CuSeqlens, LastTokensOnlyHaveOneQueryASample) {
  const CuSeqlens rows = cu_seqlens({{0, 1, 0, 3}, {1, 1, 3, 5}}, at::kCPU);
  EXPECT_FALSE(rows.queries_are_keys);
  EXPECT_EQ(rows.max_seqlen_q, 1);
  EXPECT_EQ(rows.max_seqlen_k, 5);
  const int32_t* const bounds = rows.cu_seqlens_q.const_data_ptr<int32_t>();
  EXPECT_THAT(std::vector<int32_t>(bounds, bounds + rows.cu_seqlens_q.numel()), ElementsAre(0, 1, 2));
}

TEST(CuSeqlens, GapsBetweenSamplesAreRefused) {
  EXPECT_THROW(cu_seqlens({{0, 3, 0, 3}, {4, 2, 4, 2}}, at::kCPU), core::Error);
}

/// Holds kernel, window, last tokens only, samples of one length.
using AttentionCase = std::tuple<AttentionKernel, int64_t, bool, bool>;
class PackedAttention : public ::testing::TestWithParam<AttentionCase> {};

TEST_P(PackedAttention, EqualsTheHostsSampleBySample) {
  const auto [kernel, window, last_only, equal] = GetParam();
  const std::vector<int64_t> lengths = equal ? std::vector<int64_t>{6, 6, 6} : std::vector<int64_t>{5, 1, 12, 7};
  std::vector<SequenceSpan> segments;
  int64_t keys = 0;
  int64_t queries = 0;
  for (const int64_t length : lengths) {
    segments.push_back({queries, last_only ? 1 : length, keys, length});
    queries += last_only ? 1 : length;
    keys += length;
  }
  const int64_t h = 16;
  const at::Tensor q = random({queries, h}, 0.5, 1), k = random({keys, h}, 0.5, 2), v = random({keys, h}, 0.5, 3);
  const at::Tensor grad = random({queries, h}, 0.5, 4);
  const Attention host(2, window);
  const auto operators = ReferenceOperators::table();
  const Attention on_cuda(2, window, /*on_cuda=*/true);
  const CudaAttention device(kernel, on_cuda, *operators);
  const CuSeqlens packed = cu_seqlens(segments, at::kCPU);
  const AttentionRows rows{segments, packed};
  const neoloom::support::OperatorRecord record;
  AttentionSaved saved;
  const at::Tensor out = device.forward(q, k, v, rows, saved);
  const AttentionGradients d = device.backward(grad, q, k, v, out, rows, saved);
  EXPECT_LT(distance(out, host.forward(q, k, v, segments)), 1e-5);
  const AttentionGradients expected = host.backward(grad, q, k, v, segments);
  EXPECT_LT(distance(d.dq, expected.dq), 1e-5);
  EXPECT_LT(distance(d.dk, expected.dk), 1e-5);
  EXPECT_LT(distance(d.dv, expected.dv), 1e-5);
  const bool cudnn = kernel == AttentionKernel::kCudnn && !last_only && equal;
  EXPECT_EQ(record.kernels().count("_cudnn_attention_backward"), cudnn ? 1U : 0U);
}

INSTANTIATE_TEST_SUITE_P(Rows, PackedAttention,
                         ::testing::Values(AttentionCase{AttentionKernel::kFlash, 0, false, false},
                                           AttentionCase{AttentionKernel::kFlash, 4, false, false},
                                           AttentionCase{AttentionKernel::kFlash, 0, true, false},
                                           AttentionCase{AttentionKernel::kFlash, 4, true, false},
                                           AttentionCase{AttentionKernel::kCudnn, 0, false, true},
                                           AttentionCase{AttentionKernel::kCudnn, 0, false, false},
                                           AttentionCase{AttentionKernel::kCudnn, 0, true, true},
                                           AttentionCase{AttentionKernel::kMath, 4, false, false},
                                           AttentionCase{AttentionKernel::kMath, 0, true, false}));

struct Both {
  Trial host, device;
};

Both both_paths(const ModelSetup& setup, Dtype compute) {
  const auto weights = random_weights(setup.config, at::kFloat);
  const auto host = Model::create(setup, weights);
  const auto device = Model::create(device_setup(setup, compute), weights);
  const Batch batch = batch_for(setup);
  at::Tensor params = random_params(*host);
  if (!setup.lora) host->initialize(params, 1);
  return {train_once(*host, batch, params), train_once(*device, batch, params)};
}

TEST(DevicePath, EqualsTheHostsInFp32) {
  for (const ModelSetup& setup : every_setup()) {
    const Both both = both_paths(setup, Dtype::kFloat32);
    EXPECT_NEAR(both.device.loss, both.host.loss, 1e-5 * both.host.loss);
    EXPECT_EQ(both.device.count, both.host.count);
    EXPECT_LT(distance(both.device.grads, both.host.grads), 1e-5);
  }
}

TEST(DevicePath, SubtractsInitialAdaptersAsTheHost) {
  for (const Head head : {Head::kCausalLm, Head::kSingleLabel}) {
    const ModelSetup setup = tiny_setup(head);
    const auto weights = random_weights(setup.config, at::kFloat);
    const auto host = Model::create(setup, weights);
    const auto device = Model::create(device_setup(setup, Dtype::kFloat32), weights);
    const at::Tensor params = random_params(*host);
    const double before = train_once(*host, batch_for(setup), params).loss;
    for (Model* model : {host.get(), device.get()}) model->subtract(params.mul(0.5));
    const Trial expected = train_once(*host, batch_for(setup), params);
    const Trial found = train_once(*device, batch_for(setup), params);
    EXPECT_GT(std::abs(expected.loss - before), 1e-3 * before) << "it was to matter";
    EXPECT_NEAR(found.loss, expected.loss, 1e-5 * expected.loss);
    EXPECT_LT(distance(found.grads, expected.grads), 1e-5);
  }
}

TEST(DevicePath, IsCloseToFp32In16Bit) {
  for (const Dtype compute : {Dtype::kBFloat16, Dtype::kFloat16}) {
    // Adapters on all linears of so small a model magnify the rounding of GEMM inputs.
    const double tolerance = 6e-2;
    for (const ModelSetup& setup : every_setup()) {
      const Both both = both_paths(setup, compute);
      EXPECT_NEAR(both.device.loss, both.host.loss, tolerance * both.host.loss);
      EXPECT_EQ(both.device.count, both.host.count);
      EXPECT_LT(distance(both.device.grads, both.host.grads), tolerance);
    }
  }
}

// Uses weights as they lie on a GPU: the head has more rows than the vocabulary.
TEST(DevicePath, RowsOfZeroBehindTheHeadChangeNothing) {
  const ModelSetup setup = tiny_setup(Head::kCausalLm);
  ASSERT_NE(setup.config.vocab_size % kHeadAlignment, 0);
  const auto weights = random_weights(setup.config, at::kFloat);
  for (const Dtype compute : {Dtype::kFloat32, Dtype::kBFloat16}) {
    const auto plain = Model::create(device_setup(setup, compute), weights);
    const auto aligned = Model::create(device_setup(setup, compute), to_device(weights, "cpu", compute));
    const at::Tensor params = random_params(*plain);
    const Batch batch = batch_for(setup);
    const Trial expected = train_once(*plain, batch, params), found = train_once(*aligned, batch, params);
    const double tolerance = compute == Dtype::kFloat32 ? 1e-5 : 2e-2;  // the embeddings are rounded, too
    EXPECT_NEAR(found.loss, expected.loss, tolerance * expected.loss);
    EXPECT_LT(distance(found.grads, expected.grads), tolerance);
    EXPECT_NEAR(aligned->evaluate(batch, params).loss.loss.item<double>(), found.loss, 1e-5 * found.loss);
  }
}

// Eight samples of 16 tokens are 128 rows, the smallest shape; their halves are filled up to it.
TEST(DevicePath, AMicroBatchThatFillsItsShapeIsTheSumOfItsHalves) {
  for (const Head head : {Head::kCausalLm, Head::kSingleLabel}) {
    const ModelSetup setup = device_setup(tiny_setup(head), Dtype::kBFloat16);
    const auto model = Model::create(setup, random_weights(setup.config, at::kFloat));
    const at::Tensor params = random_params(*model);
    const auto samples = [&](size_t count) {
      Batch batch = random_batch(std::vector<int64_t>(count, 16), setup.config.vocab_size);
      return head == Head::kCausalLm ? with_lm_labels(std::move(batch))
                                     : with_class_labels(std::move(batch), setup.num_labels);
    };
    at::Tensor grads = at::zeros_like(params);
    EXPECT_THAT(model->prepare(*model->pack(samples(8), at::kCPU), params, grads, {}, 1.0).shape,
                HasSubstr(head == Head::kCausalLm ? "128 rows, 9 samples" : "256 rows, 9 samples"));
    const Trial whole = train_once(*model, samples(8), params);
    const Trial first = train_once(*model, samples(4), params), second = train_once(*model, samples(4), params);
    EXPECT_NEAR(whole.loss, first.loss + second.loss, 1e-5 * whole.loss);
    EXPECT_EQ(whole.count, first.count + second.count);
    EXPECT_LT(distance(whole.grads, first.grads.add(second.grads)), 1e-4);
  }
}

TEST(DevicePath, EvaluatesAndDecodesAsTheHost) {
  const ModelSetup setup = tiny_setup(Head::kCausalLm);
  const auto weights = random_weights(setup.config, at::kFloat);
  const auto host = Model::create(setup, weights);
  const auto device = Model::create(device_setup(setup, Dtype::kFloat32), weights);
  const at::Tensor params = random_params(*host);
  const Batch batch = batch_for(setup);
  EXPECT_LT(distance(device->lm_logits(batch, params), host->lm_logits(batch, params)), 1e-5);
  const std::vector<Model::Decoder::NextTokens> next = {{0, {1, 2, 3}}, {1, {4}}};
  EXPECT_LT(distance(device->make_decoder(params, 20, 2)->feed(next), host->make_decoder(params, 20, 2)->feed(next)),
            1e-5);
}

TEST(DevicePath, MasksFollowFromStepAndMicroBatchAndDifferBetweenThem) {
  const ModelSetup setup = device_setup(tiny_setup(Head::kCausalLm, 0.5), Dtype::kBFloat16);
  const auto model = Model::create(setup, random_weights(setup.config, at::kFloat));
  const at::Tensor params = random_params(*model);
  const Batch batch = batch_for(setup);
  const auto grads = [&](int64_t step, int64_t micro_batch) {
    return train_once(*model, batch, params, {7, 0, step, micro_batch}).grads;
  };
  const at::Tensor first = grads(3, 1);
  EXPECT_FALSE(same_bits(first, grads(3, 2)));
  EXPECT_FALSE(same_bits(first, grads(4, 1)));
  EXPECT_TRUE(same_bits(first, grads(3, 1)));
}

TEST(DevicePath, MaskedGradientsAreThoseOfTheMaskedForward) {
  // Compares with differences of the loss along a direction, with the masks of one micro-batch.
  ModelSetup setup = device_setup(tiny_setup(Head::kCausalLm, 0.3), Dtype::kFloat32);
  setup.config.embed_dropout = setup.config.resid_dropout = setup.config.attention_dropout = 0.3;
  setup.neftune_noise_alpha = 3.0;
  const auto model = Model::create(setup, random_weights(setup.config, at::kFloat));
  const at::Tensor params = random_params(*model);
  const Batch batch = batch_for(setup);
  const at::Tensor direction = random({params.numel()}, 1.0, 77);
  const double step = 1e-3;
  const auto loss_at = [&](double t) { return train_once(*model, batch, params.add(direction, t), {7, 0, 1, 0}).loss; };
  const double slope = (loss_at(step) - loss_at(-step)) / (2 * step);
  const at::Tensor grads = train_once(*model, batch, params, {7, 0, 1, 0}).grads;
  EXPECT_NEAR(grads.mul(direction).sum().item<double>(), slope, 2e-2 * std::abs(slope));
}

TEST(DevicePath, OnlyTrainingWithDropoutOfAttentionGoesWithoutFlashAttentionAndGraphs) {
  ModelSetup setup = device_setup(tiny_setup(Head::kCausalLm), Dtype::kBFloat16);
  setup.config.attention_dropout = 0.1;
  const auto model = Model::create(setup, random_weights(setup.config, at::kFloat));
  const at::Tensor params = random_params(*model);
  at::Tensor grads = at::zeros_like(params);
  const Batch batch = batch_for(setup);
  const auto flash_calls = [](const auto& run) {
    const neoloom::support::OperatorRecord record;
    run();
    return record.kernels().count("_flash_attention_forward");
  };
  EXPECT_EQ(flash_calls([&] { model->forward_backward(batch, params, grads, {}, 1.0); }), 0U);
  EXPECT_EQ(flash_calls([&] { model->evaluate(batch, params); }), 1U);
  EXPECT_EQ(model->prepare(*model->pack(batch, at::kCPU), params, grads, {}, 1.0).shape, "");
}

TEST(DevicePath, NothingInAMicroStepMakesTheHostWait) {
  for (ModelSetup setup : every_setup()) {
    for (const Dtype compute : {Dtype::kFloat32, Dtype::kBFloat16}) {
      if (setup.lora) setup.lora->lora_dropout = 0.1;
      setup.config.embed_dropout = setup.config.resid_dropout = 0.1;
      if (compute == Dtype::kFloat32) setup.config.attention_dropout = 0.1;
      setup.neftune_noise_alpha = 3.0;
      const auto model = Model::create(device_setup(setup, compute), random_weights(setup.config, at::kFloat));
      const at::Tensor params = random_params(*model);
      at::Tensor grads = at::zeros_like(params);
      const Batch batch = batch_for(setup);
      const neoloom::support::OperatorRecord record;
      model->forward_backward(batch, params, grads, {}, 1.0);
      EXPECT_GT(record.total(), 50);
      EXPECT_THAT(record.waits(), IsEmpty());
    }
  }
}

TEST(GradientsReady, AreFinalWhenAnnouncedFromTheLastBlockToTheFirst) {
  for (const ModelSetup& bare : every_setup()) {
    for (const ModelSetup& setup : {bare, device_setup(bare, Dtype::kBFloat16)}) {
      const auto model = Model::create(setup, random_weights(setup.config, at::kFloat));
      at::Tensor params = random_params(*model);
      if (!setup.lora) model->initialize(params, 1);
      at::Tensor grads = at::zeros_like(params);
      const Model::MicroStep step = model->prepare(*model->pack(batch_for(setup), at::kCPU), params, grads, {}, 1.0);
      std::vector<std::pair<int64_t, at::Tensor>> announced;
      step.enqueue([&](int64_t begin) { announced.emplace_back(begin, grads.slice(0, begin).clone()); });
      ASSERT_EQ(announced.size(), 3U);
      const auto& blocks = model->layout().block_begin_elements;
      for (size_t i = 0; i < announced.size(); ++i) {
        EXPECT_EQ(announced[i].first, blocks[2 - i]);
        EXPECT_TRUE(same_bits(announced[i].second, grads.slice(0, announced[i].first))) << "block " << 2 - i;
      }
      EXPECT_EQ(blocks[0] == 0, setup.lora.has_value()) << "embeddings lie before the blocks";
    }
  }
}

TEST(GradientsReady, BlocksWithoutAdaptersAnnounceNothingNew) {
  ModelSetup setup = tiny_setup(Head::kSingleLabel);
  setup.lora->target_modules = {{"transformer.h.1.attn.attention.q_proj"}};
  const auto model = Model::create(setup, random_weights(setup.config, at::kFloat));
  const at::Tensor params = random_params(*model);
  at::Tensor grads = at::zeros_like(params);
  std::vector<int64_t> begins;
  model->prepare(*model->pack(batch_for(setup), at::kCPU), params, grads, {}, 1.0).enqueue([&](int64_t begin) {
    begins.push_back(begin);
  });
  const int64_t score = model->layout().slots.back().offset_elements;
  EXPECT_THAT(begins, ElementsAre(score, 0));
  EXPECT_THAT(model->layout().block_begin_elements, ElementsAre(0, 0, score));
}

TEST(RoundedRows, AreOfEightSizesBetweenPowersOfTwo) {
  EXPECT_EQ(rounded_rows(0), 128);
  EXPECT_EQ(rounded_rows(127), 128);
  EXPECT_EQ(rounded_rows(128), 128);
  EXPECT_EQ(rounded_rows(129), 256);
  EXPECT_EQ(rounded_rows(1024), 1024);
  EXPECT_EQ(rounded_rows(1025), 1152);
  EXPECT_EQ(rounded_rows(8193), 9216);
}

void drop_targets_of_sample(Batch& batch, size_t sample) {
  const auto first = std::lower_bound(batch.target_rows.begin(), batch.target_rows.end(), batch.cu_seqlens[sample]);
  const auto last = std::lower_bound(first, batch.target_rows.end(), batch.cu_seqlens[sample + 1]);
  batch.targets.erase(batch.targets.begin() + (first - batch.target_rows.begin()),
                      batch.targets.begin() + (last - batch.target_rows.begin()));
  batch.target_rows.erase(first, last);
}

/// Returns micro-batches of different lengths that have one shape.
std::pair<Batch, Batch> batches_of_one_shape(const ModelSetup& setup) {
  std::pair<Batch, Batch> batches{random_batch({9, 3, 14}, setup.config.vocab_size),
                                  random_batch({2, 16, 11}, setup.config.vocab_size)};
  for (Batch* batch : {&batches.first, &batches.second}) {
    if (setup.head == Head::kCausalLm) {
      *batch = with_lm_labels(std::move(*batch));
      drop_targets_of_sample(*batch, 1);  // a prompt
    } else if (setup.head == Head::kSingleLabel) {
      *batch = with_class_labels(std::move(*batch), setup.num_labels);
      batch->targets[batch == &batches.first ? 0 : 2] = -1;
    } else {
      *batch = with_random_flags(std::move(*batch), setup.num_labels, 6);
    }
  }
  return batches;
}

// Does what a CUDA graph does: the kernels of the first micro-batch read the values of the second.
TEST(MicroStep, KernelsOfOneMicroBatchComputeAnotherOfItsShape) {
  for (const ModelSetup& bare : every_setup()) {
    const ModelSetup setup = device_setup(bare, Dtype::kBFloat16);
    const auto weights = random_weights(setup.config, at::kFloat);
    const auto model = Model::create(setup, weights);
    at::Tensor params = random_params(*model);
    if (!setup.lora) model->initialize(params, 1);
    const auto [first, second] = batches_of_one_shape(setup);
    const Trial expected = train_once(*Model::create(setup, weights), second, params);

    at::Tensor grads = at::zeros_like(params);
    const Model::MicroStep recorded = model->prepare(*model->pack(first, at::kCPU), params, grads, {}, 1.0);
    const Model::MicroStep next = model->prepare(*model->pack(second, at::kCPU), params, grads, {}, 1.0);
    ASSERT_FALSE(recorded.shape.empty());
    EXPECT_EQ(recorded.shape, next.shape);
    recorded.enqueue({});
    EXPECT_TRUE(same_bits(grads, expected.grads));
    EXPECT_EQ(next.loss.loss.item<double>(), expected.loss);
    EXPECT_EQ(next.loss.count, expected.count);
  }
}

TEST(MicroStep, ShapeTellsWhatKernelsDependOn) {
  const ModelSetup setup = device_setup(tiny_setup(Head::kCausalLm), Dtype::kBFloat16);
  const auto model = Model::create(setup, random_weights(setup.config, at::kFloat));
  const at::Tensor params = random_params(*model);
  at::Tensor grads = at::zeros_like(params);
  const auto shape = [&](const std::vector<int64_t>& lengths, double scale) {
    const Batch batch = with_lm_labels(random_batch(lengths, setup.config.vocab_size));
    return model->prepare(*model->pack(batch, at::kCPU), params, grads, {}, scale).shape;
  };
  const std::string base = shape({50, 20}, 1.0);
  EXPECT_EQ(shape({30, 60}, 1.0), base);
  EXPECT_NE(shape({30, 60}, 2.0), base);
  EXPECT_NE(shape({30, 30, 30}, 1.0), base);
  EXPECT_NE(shape({100, 100}, 1.0), base);
  EXPECT_NE(shape({200, 1}, 1.0), shape({100, 101}, 1.0));
}

TEST(MicroStep, WhereAttentionGoesSampleBySampleNothingIsRecorded) {
  const ModelSetup setup = device_setup(tiny_setup(Head::kCausalLm), Dtype::kFloat32);
  const auto model = Model::create(setup, random_weights(setup.config, at::kFloat));
  const at::Tensor params = random_params(*model);
  at::Tensor grads = at::zeros_like(params);
  EXPECT_EQ(model->prepare(*model->pack(batch_for(setup), at::kCPU), params, grads, {}, 1.0).shape, "");
}

TEST(OperatorRecord, SeesReadsAndMovesButNoConversions) {
  const at::Tensor x = random({3}, 1.0, 1);
  const neoloom::support::OperatorRecord record;
  const at::Tensor half = x.to(at::kHalf);
  EXPECT_THAT(record.waits(), IsEmpty());
  static_cast<void>(half.cpu());
  static_cast<void>(x.sum().item<float>());
  EXPECT_THAT(record.waits(), ElementsAre("to", "item", "_local_scalar_dense"));
}

TEST(DevicePath, EveryChoiceIsNamedForTheLog) {
  ModelSetup setup = device_setup(tiny_setup(Head::kCausalLm), Dtype::kBFloat16);
  setup.device.deterministic = false;
  const auto model = Model::create(setup, random_weights(setup.config, at::kFloat));
  EXPECT_THAT(
      model->kernels(),
      ElementsAre(
          HasSubstr("global layers: cuDNN attention (not deterministic) for samples of one length, else flash, causal"),
          HasSubstr("local layers: flash attention, causal, window 4")));
}

}  // namespace
}  // namespace neoloom::model::testing
