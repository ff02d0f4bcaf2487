// SPDX-License-Identifier: Apache-2.0
#include "tests/bench/probes/attention_cases.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/randn.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <set>
#include <tuple>

#include "model/cuda/attention_choice.h"
#include "model/flops.h"
#include "tests/bench/probes/attention_reference.h"

namespace neoloom::probes {
namespace {

/// Whether the query sees the key, as flash attention reads its bounds.
bool sees(int64_t query, int64_t key, int64_t window) {
  const model::SlidingWindow reach = model::sliding_window(window);
  return key <= query + reach.right.value_or(0) && (!reach.left || key >= query - *reach.left);
}

int64_t counted_pairs(const std::vector<int64_t>& lengths, int64_t window) {
  int64_t pairs = 0;
  for (const int64_t length : lengths) {
    for (int64_t query = 0; query < length; ++query) {
      for (int64_t key = 0; key < length; ++key) pairs += sees(query, key, window) ? 1 : 0;
    }
  }
  return pairs;
}

TEST(AttentionCases, AreEveryCombinationOnce) {
  std::set<std::tuple<int64_t, int64_t, int64_t, bool>> bf16;
  std::set<std::string> names;
  int fp16 = 0;
  for (const AttentionCase& one : attention_cases()) {
    EXPECT_TRUE(names.insert(one.name()).second) << one.name();
    EXPECT_TRUE(one.tokens() == 8192 || one.tokens() == 16384) << one.name();
    if (one.dtype == at::kHalf) {
      ++fp16;
    } else {
      bf16.emplace(one.head_size, one.length, one.window, one.ragged());
    }
  }
  EXPECT_EQ(bf16.size(), 2 * 5 * 2 * 2);
  for (const auto& [head, length, window, ragged] : bf16) {
    EXPECT_TRUE(head == 64 || head == 128);
    EXPECT_TRUE(window == 0 || window == 256);
    EXPECT_TRUE((std::set<int64_t>{128, 256, 512, 1024, 2048}.contains(length)));
  }
  EXPECT_EQ(fp16, 4);
}

TEST(AttentionCases, RaggedLengthsAreTheSameInEachRunAndSumToTheTokens) {
  for (const AttentionCase& one : attention_cases()) {
    EXPECT_EQ(*std::max_element(one.lengths.begin(), one.lengths.end()), one.length);
    EXPECT_GT(one.lengths.back(), 0);
    if (one.ragged()) {
      EXPECT_EQ(one.lengths, ragged_lengths(one.length, one.tokens()));
    }
  }
  // From another implementation of the 64-bit Mersenne twister.
  EXPECT_THAT(ragged_lengths(128, 600), ::testing::ElementsAre(128, 27, 16, 81, 80, 26, 112, 31, 37, 62));
}

TEST(AttentionCases, PairsAreThoseThatTheMaskOfFlashAttentionLetsThrough) {
  for (const int64_t window : {0, 1, 3, 256}) {
    const std::vector<int64_t> lengths = {1, 2, 3, 4, 255, 256, 257, 300};
    EXPECT_EQ(visible_pairs(lengths, window), counted_pairs(lengths, window)) << window;
  }
}

TEST(AttentionItems, FlopsOfBothPassesAreThoseOfAModelsLayer) {
  model::GptNeoConfig config;  // 1.3B
  config.num_layers = 2;
  config.layer_is_local = {false, true};
  double flops = 0.0;
  std::set<std::pair<Pass, int64_t>> counted;
  for (const AttentionItem& item : attention_items()) {
    const AttentionCase& layer = item.layer;
    const bool same = layer.dtype == at::kBFloat16 && layer.head_size == 128 && layer.length == 1024;
    if (!same || layer.ragged() || !counted.emplace(item.pass, layer.window).second) continue;
    flops += item.flops;
  }
  EXPECT_EQ(counted.size(), 4);
  EXPECT_NEAR(flops / (8192 * model::attention_flops_per_token(config, 1024)), 1.0, 1e-12);
}

TEST(AttentionItems, HaveEveryCandidateThatTheirRowsAllow) {
  std::set<std::string> titles;
  std::set<std::string> ragged_window;
  for (const AttentionItem& item : attention_items()) {
    EXPECT_TRUE(titles.insert(item.title()).second) << item.title();
    if (item.name == "attention bf16 head 128 length 1024 window 256 ragged, backward") {
      ragged_window.insert(item.candidate);
    }
    EXPECT_FALSE(item.layout == RowLayout::kEven && item.layer.ragged()) << item.title();
    EXPECT_FALSE(item.library == Library::kLibtorchCudnn && item.layer.window > 0) << item.title();
  }
  EXPECT_THAT(ragged_window,
              ::testing::UnorderedElementsAre("flash", "flash, deterministic", "cuDNN graph, ragged rows",
                                              "cuDNN graph, ragged rows, deterministic",
                                              "cuDNN graph, ragged rows, deterministic, ordered dQ",
                                              "cuDNN graph, padded rows", "cuDNN graph, padded rows, deterministic",
                                              "cuDNN graph, padded rows, deterministic, ordered dQ"));
}

/// Softmax attention of one query and head in fp64.
double attended(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, int64_t begin, int64_t query,
                int64_t window, int64_t head, int64_t channel) {
  double sum = 0.0;
  double result = 0.0;
  for (int64_t key = 0; key <= query; ++key) {
    if (!sees(query, key, window)) continue;
    const double score = q[begin + query][head].dot(k[begin + key][head]).item<double>();
    sum += std::exp(score);
    result += std::exp(score) * v[begin + key][head][channel].item<double>();
  }
  return result / sum;
}

TEST(AttentionReference, IsSoftmaxAttentionOfTheFirstAndTheLastSampleAndHead) {
  AttentionCase layer;
  layer.head_size = 4;
  layer.heads = 3;
  layer.length = 9;
  layer.window = 5;
  layer.lengths = {9, 2, 7};
  at::manual_seed(1);
  const auto rows = [] { return at::randn({18, 3, 4}, at::kDouble); };
  const at::Tensor q = rows(), k = rows(), v = rows();
  const AttentionSlice slice(layer);
  const at::Tensor out = slice.reference(q, k, v, {})[0];
  ASSERT_EQ(out.sizes(), at::IntArrayRef({16, 8}));
  EXPECT_NEAR(out[8][1].item<double>(), attended(q, k, v, 0, 8, 5, 0, 1), 1e-6);
  EXPECT_NEAR(out[15][6].item<double>(), attended(q, k, v, 11, 6, 5, 2, 2), 1e-6);
}

TEST(AttentionReference, GradientsAreThoseOfFiniteDifferences) {
  AttentionCase layer;
  layer.head_size = 2;
  layer.heads = 2;
  layer.length = 6;
  layer.window = 3;
  layer.lengths = {6, 5};
  at::manual_seed(2);
  const auto rows = [] { return at::randn({11, 2, 2}, at::kDouble); };
  const at::Tensor q = rows(), k = rows(), v = rows(), grad = rows();
  const AttentionSlice slice(layer);
  const std::vector<at::Tensor> found = slice.reference(q, k, v, grad);
  const auto loss = [&](const at::Tensor& moved_k) {
    return (slice.reference(q, moved_k, v, {})[0].to(at::kDouble) * slice.of(grad)).sum().item<double>();
  };
  constexpr double kStep = 1e-2;
  at::Tensor up = k.clone(), down = k.clone();
  up[8][1][0] += kStep;
  down[8][1][0] -= kStep;
  EXPECT_NEAR(found[2][8][2].item<double>(), (loss(up) - loss(down)) / (2 * kStep), 2e-3);
}

}  // namespace
}  // namespace neoloom::probes
