// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <fstream>
#include <functional>

#include "model/cpu/attention.h"
#include "model/cpu/elementwise.h"
#include "model/cpu/matmul.h"
#include "model/gpt_neo_config.h"
#include "model/lora/dropout.h"
#include "model/lora/target_modules.h"
#include "model/parameter_layout.h"
#include "runtime/core/error.h"
#include "tests/unit/model/random_model.h"

namespace neoloom::model::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::string error_of(const std::function<void()>& action, core::ErrorKind kind) {
  try {
    action();
  } catch (const core::Error& error) {
    EXPECT_EQ(error.kind(), kind);
    return error.what();
  }
  return "no error";
}

TEST(Layout, SlotsStartAtBoundariesOf64Bytes) {
  ParameterLayout layout;
  EXPECT_EQ(layout.add("a", {3, 5}, true), 0);
  EXPECT_EQ(layout.add("b", {16}, true), 1);
  EXPECT_EQ(layout.add("c", {1}, false), 2);
  EXPECT_EQ(layout.slots[1].offset_elements, 16);
  EXPECT_EQ(layout.slots[2].offset_elements, 32);
  EXPECT_EQ(layout.total_elements, 48);
  EXPECT_EQ(layout.trainable_elements, 32);
}

TEST(Options, ScalingIsAlphaOverRankOrItsRoot) {
  LoraOptions options;
  EXPECT_DOUBLE_EQ(options.scaling(16, 8), 0.5);
  options.use_rslora = true;
  EXPECT_DOUBLE_EQ(options.scaling(16, 8), 2.0);
}

TEST(Options, DtypesHaveHuggingFacesNames) {
  EXPECT_EQ(dtype_from_name("torch.bfloat16"), Dtype::kBFloat16);
  EXPECT_EQ(dtype_name(dtype_from_name("fp16")), "float16");
  EXPECT_THAT(error_of([] { dtype_from_name("int8"); }, core::ErrorKind::kUsage), HasSubstr("int8"));
}

LoraOptions targets(ModuleChoice choice) {
  LoraOptions options;
  options.target_modules = std::move(choice);
  return options;
}

/// Returns the ranks of all linears, blocks one after another.
std::vector<int64_t> ranks(const LoraOptions& options, int64_t num_layers) {
  std::vector<int64_t> result;
  for (const auto& layer : adapter_map(options, num_layers)) {
    for (const AdapterShape& adapter : layer) result.push_back(adapter.rank);
  }
  return result;
}

TEST(Targets, SuffixMatchesWholeNamesOnly) {
  EXPECT_THAT(ranks(targets({{"proj", "h.1.mlp.c_fc", "q_proj"}}), 2), ElementsAre(8, 0, 0, 0, 0, 0, 8, 0, 0, 0, 8, 0));
  EXPECT_THAT(ranks(targets({{"All-Linear"}}), 1), ::testing::Each(8));
}

TEST(Targets, AnExpressionMatchesTheFullName) {
  const ModuleChoice expression{{R"(.*\.h\.1\..*\.(q_proj|c_fc))"}, true};
  EXPECT_THAT(ranks(targets(expression), 2), ElementsAre(0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 8, 0));
  const auto refusal = [](const std::string& text) {
    return error_of([&] { adapter_map(targets({{text}, true}), 2); }, core::ErrorKind::kUsage);
  };
  EXPECT_THAT(refusal("(q_proj"), HasSubstr("peft_config.target_modules: \"(q_proj\" is no regular expression"));
  EXPECT_THAT(refusal("q_pro."), HasSubstr("matches no module"));  // the end of a name is not the whole
}

TEST(Targets, ExclusionsWinAndBlocksLimitEndsButNotFullNames) {
  LoraOptions options = targets({{"q_proj", "c_fc", "transformer.h.0.mlp.c_proj"}});
  options.exclude_modules = {{"h.1.mlp.c_fc"}};
  EXPECT_THAT(ranks(options, 2), ElementsAre(8, 0, 0, 0, 8, 8, 8, 0, 0, 0, 0, 0));
  options.layers_to_transform = {1};
  EXPECT_THAT(ranks(options, 2), ElementsAre(0, 0, 0, 0, 0, 8, 8, 0, 0, 0, 0, 0));
  options.exclude_modules = {{".*"}, true};
  EXPECT_THAT(error_of([&] { adapter_map(options, 2); }, core::ErrorKind::kUsage),
              HasSubstr("that exclude_modules and layers_to_transform leave"));
}

TEST(Targets, TheFirstPatternThatMatchesSetsRankOrAlpha) {
  LoraOptions options = targets({{"q_proj", "v_proj"}});
  options.rank_pattern = {{"h.0.attn.attention.q_proj", 2}, {"q_proj", 3}};
  options.alpha_pattern = {{".*v_proj", 4}};
  const AdapterMap map = adapter_map(options, 2);
  EXPECT_EQ(map[0][0], (AdapterShape{2, 4.0}));  // PEFT: r = 2 leaves lora_alpha 8
  EXPECT_EQ(map[1][0], (AdapterShape{3, 8.0 / 3.0}));
  EXPECT_EQ(map[1][2], (AdapterShape{8, 0.5}));
  options.rank_pattern = {{"proj", 2}};  // whole parts of a name only
  EXPECT_EQ(adapter_map(options, 2)[0][0].rank, 8);
}

TEST(Targets, EntriesWithoutEffectAreNamed) {
  const auto refusal = [](const std::function<void(LoraOptions&)>& change) {
    LoraOptions options;
    change(options);
    return error_of([&] { require_all_match(options, 2); }, core::ErrorKind::kUsage);
  };
  EXPECT_THAT(refusal([](LoraOptions& o) { o.exclude_modules = {{"c_fc"}}; }), HasSubstr("exclude_modules: \"c_fc\""));
  EXPECT_THAT(refusal([](LoraOptions& o) { o.rank_pattern = {{"c_fc", 2}}; }), HasSubstr("rank_pattern: \"c_fc\""));
  EXPECT_THAT(refusal([](LoraOptions& o) { o.alpha_pattern = {{"q", 2}}; }), HasSubstr("alpha_pattern: \"q\""));
  EXPECT_THAT(refusal([](LoraOptions& o) { o.layers_to_transform = {0, 2}; }), HasSubstr("2 is no block"));
  EXPECT_THAT(refusal([](LoraOptions& o) {
                o.rank_pattern = {{"q_proj", 2}, {"h.0.attn.attention.q_proj", 4}};
              }),
              HasSubstr("the order of the keys decides"));
  LoraOptions fitting;
  fitting.exclude_modules = {{"h.1.attn.attention.v_proj"}};
  fitting.rank_pattern = {{"h.0.attn.attention.q_proj", 4}, {"q_proj", 2}};  // also their sorted order
  fitting.layers_to_transform = {0, 1};
  require_all_match(fitting, 2);
}

TEST(Targets, NothingMatchedNamesTheModulesThereAre) {
  const std::string error = error_of([] { adapter_map(targets({{"query", "value"}}), 2); }, core::ErrorKind::kUsage);
  EXPECT_THAT(error, HasSubstr("query, value"));
  EXPECT_THAT(error, HasSubstr("transformer.h.1.mlp.c_proj"));
}

TEST(Dropout, KeepsTheAskedShareAndScalesIt) {
  const DropoutMask mask{.probability = 0.25, .seed = 9, .epoch = 1, .layer = 3, .site = 2};
  std::vector<RowKey> keys;
  for (int64_t row = 0; row < 200; ++row) keys.push_back({row / 20, row % 20});
  const at::Tensor kept = mask.apply(at::full({200, 50}, 3.0F), keys);
  EXPECT_NEAR(kept.ne(0).to(at::kFloat).mean().item<double>(), 0.75, 0.02);
  EXPECT_FLOAT_EQ(kept.max().item<float>(), 4.0F);
}

TEST(Dropout, EveryPartOfTheKeyChangesTheMask) {
  const DropoutMask base{.probability = 0.5, .seed = 9, .epoch = 1, .layer = 3, .site = 2};
  const at::Tensor ones = at::full({1, 64}, 1.0F);
  const at::Tensor mask = base.apply(ones, {{7, 5}});
  EXPECT_TRUE(same_bits(mask, base.apply(at::full({2, 64}, 1.0F), {{1, 1}, {7, 5}})[1].unsqueeze(0)));
  const auto changed = [&](auto change, RowKey key) {
    DropoutMask other = base;
    change(other);
    return !same_bits(mask, other.apply(ones, {key}));
  };
  EXPECT_TRUE(changed([](DropoutMask&) {}, {8, 5}));
  EXPECT_TRUE(changed([](DropoutMask&) {}, {7, 6}));
  EXPECT_TRUE(changed([](DropoutMask&) {}, {7 + (int64_t{1} << 32), 5}));
  EXPECT_TRUE(changed([](DropoutMask& m) { m.seed = 10; }, {7, 5}));
  EXPECT_TRUE(changed([](DropoutMask& m) { m.epoch = 2; }, {7, 5}));
  EXPECT_TRUE(changed([](DropoutMask& m) { m.layer = 4; }, {7, 5}));
  EXPECT_TRUE(changed([](DropoutMask& m) { m.site = 3; }, {7, 5}));
}

TEST(EmbeddingNoiseTest, IsUniformWithinTheReachOfEachRow) {
  std::vector<RowKey> keys;
  for (int64_t row = 0; row < 400; ++row) keys.push_back({row / 20, row % 20});
  at::Tensor reach = at::full({400}, 0.5F);
  reach.narrow(0, 200, 200).fill_(2.0F);
  const EmbeddingNoise noise{.alpha = 5, .seed = 9, .epoch = 1, .layer = 3};
  at::Tensor x = at::full({400, 50}, 7.0F);
  noise.add_to(x, reach, keys);
  const at::Tensor unit = (x - 7.0F) / reach.unsqueeze(1);
  EXPECT_LE(unit.abs().max().item<float>(), 1.00001F);
  EXPECT_NEAR(unit.mean().item<double>(), 0.0, 0.02);
  EXPECT_NEAR(unit.std().item<double>(), std::sqrt(1.0 / 3.0), 0.02);
  for (int tenth = -10; tenth < 10; ++tenth) {  // each tenth of the range has its share
    const at::Tensor within = unit.ge(tenth / 10.0).logical_and(unit.lt((tenth + 1) / 10.0));
    EXPECT_NEAR(within.to(at::kFloat).mean().item<double>(), 0.05, 0.01);
  }
  EXPECT_NEAR((unit.narrow(1, 0, 49) * unit.narrow(1, 1, 49)).mean().item<double>(), 0.0, 0.02);
}

TEST(EmbeddingNoiseTest, EveryPartOfTheKeyChangesTheNoise) {
  const EmbeddingNoise base{.alpha = 5, .seed = 9, .epoch = 1, .layer = 3};
  const auto drawn = [](const EmbeddingNoise& noise, const std::vector<RowKey>& keys) {
    const auto rows = static_cast<int64_t>(keys.size());
    at::Tensor x = at::zeros({rows, 64});
    noise.add_to(x, at::full({rows}, 1.0F), keys);
    return x.narrow(0, rows - 1, 1);
  };
  const at::Tensor noise = drawn(base, {{7, 5}});
  EXPECT_TRUE(same_bits(noise, drawn(base, {{1, 1}, {7, 5}})));
  EXPECT_FALSE(same_bits(noise, drawn(base, {{8, 5}})));
  EXPECT_FALSE(same_bits(noise, drawn(base, {{7, 6}})));
  for (const auto& other : {EmbeddingNoise{5, 10, 1, 3}, EmbeddingNoise{5, 9, 2, 3}, EmbeddingNoise{5, 9, 1, 4}}) {
    EXPECT_FALSE(same_bits(noise, drawn(other, {{7, 5}})));
  }
}

/// Computes attention by its definition, in double, one query at a time. Shapes: q, k, v [T, h].
at::Tensor naive_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, int64_t heads,
                           int64_t window) {
  const int64_t tokens = q.size(0);
  const int64_t size = q.size(1) / heads;
  at::Tensor out = at::zeros({tokens, q.size(1)}, at::kDouble);
  for (int64_t head = 0; head < heads; ++head) {
    const auto part = [&](const at::Tensor& x) { return x.narrow(1, head * size, size).to(at::kDouble); };
    for (int64_t i = 0; i < tokens; ++i) {
      const int64_t first = window > 0 ? std::max<int64_t>(0, i - window + 1) : 0;
      const at::Tensor scores = part(k).narrow(0, first, i + 1 - first).mv(part(q)[i]);
      const at::Tensor p = scores.sub(scores.max()).exp();
      out[i].narrow(0, head * size, size).copy_(part(v).narrow(0, first, i + 1 - first).t().mv(p / p.sum()));
    }
  }
  return out;
}

TEST(Attention, BlocksAndWindowsEqualTheDefinition) {
  for (const int64_t window : {0, 3, 128, 130}) {
    const int64_t tokens = 270;  // three blocks of queries, the last one short
    const at::Tensor q = random({tokens, 8}, 1.0, 1);
    const at::Tensor k = random({tokens, 8}, 1.0, 2);
    const at::Tensor v = random({tokens, 8}, 1.0, 3);
    const at::Tensor out = Attention(2, window).forward(q, k, v, {{0, tokens, 0, tokens}});
    EXPECT_LT(distance(out.to(at::kDouble), naive_attention(q, k, v, 2, window)), 2e-6) << "window " << window;
  }
}

TEST(Attention, ALastQueryAloneSeesWhatItSeesAmongAll) {
  for (const int64_t window : {0, 5}) {
    const Attention attention(2, window);
    const at::Tensor q = random({20, 8}, 1.0, 1);
    const at::Tensor k = random({20, 8}, 1.0, 2);
    const at::Tensor v = random({20, 8}, 1.0, 3);
    const at::Tensor all = attention.forward(q, k, v, {{0, 20, 0, 20}});
    const at::Tensor last = attention.forward(q.narrow(0, 19, 1), k, v, {{0, 1, 0, 20}});
    EXPECT_LT(distance(last, all.narrow(0, 19, 1)), 1e-6);
  }
}

TEST(Kernels, GeluAndItsSlopeEqualTheFormulaInDouble) {
  std::vector<float> x;
  for (int i = -4000; i <= 4000; ++i) x.push_back(static_cast<float>(i) * 0.005F);
  std::vector<float> y(x.size());
  std::vector<float> slope(x.size(), 1.0F);
  std::vector<float> together(x.size());
  std::vector<float> in_place = x;
  const auto count = static_cast<int64_t>(x.size());
  cpu::gelu(cpu::Rows{x.data(), count, 1, count}, y.data(), count);
  cpu::gelu_backward({slope.data(), count, 1, count}, x.data(), count, slope.data(), count);
  cpu::gelu_and_slope({in_place.data(), count, 1, count}, together.data(), count, in_place.data(), count);
  EXPECT_EQ(together, y);
  EXPECT_EQ(in_place, slope);
  const double k = std::sqrt(2.0 / M_PI);
  for (size_t i = 0; i < x.size(); ++i) {
    const double v = x[i];
    const double t = std::tanh(k * (v + 0.044715 * v * v * v));
    EXPECT_NEAR(y[i], 0.5 * v * (1 + t), 3e-7 * std::max(1.0, std::abs(v)));
    EXPECT_NEAR(slope[i], 0.5 * (1 + t) + 0.5 * v * (1 - t * t) * k * (1 + 3 * 0.044715 * v * v), 1e-6);
  }
}

TEST(Kernels, CrossEntropyOfARowEqualsTheFormulaInDouble) {
  for (const int64_t width : {1, 15, 16, 17, 50257}) {
    const at::Tensor row = random({width}, 5.0, 4);
    const at::Tensor converted = row.to(at::kDouble);
    const int64_t target = width / 2;
    const at::Tensor log_p = converted.sub(converted.max()).sub(converted.sub(converted.max()).exp().sum().log());
    at::Tensor gradient = row.clone();
    const float loss = cpu::cross_entropy_row(gradient.mutable_data_ptr<float>(), width, target, 2.0F);
    EXPECT_NEAR(loss, -log_p[target].item<double>(), 4e-6);
    at::Tensor expected = log_p.exp();
    expected[target].sub_(1.0);
    EXPECT_LT(gradient.to(at::kDouble).sub(expected * 2.0).abs().max().item<double>(), 3e-6);
  }
}

TEST(Kernels, NotANumberInARowStaysVisible) {
  for (const int64_t place : {0, 3, 30}) {
    at::Tensor row = random({33}, 1.0, 4);
    row[place].fill_(NAN);
    EXPECT_TRUE(std::isnan(cpu::cross_entropy_row(row.mutable_data_ptr<float>(), 33, 5, 1.0F)));
    EXPECT_TRUE(row.isnan().all().item<bool>());
  }
}

TEST(Matmul, ConvertingInSlicesEqualsConvertingAtOnce) {
  const at::Tensor weight = random({3000, 2100}, 0.1, 1).to(at::kHalf);  // two slices
  const at::Tensor x = random({5, 2100}, 1.0, 2);
  const at::Tensor bias = random({3000}, 1.0, 3);
  const at::Tensor converted = weight.to(at::kFloat);
  Matmul matmul(Dtype::kFloat16);
  EXPECT_LT(distance(matmul.forward(x, weight, {.bias = bias}), x.mm(converted.t()) + bias), 1e-5);
  const at::Tensor dy = random({5, 3000}, 1.0, 4);
  EXPECT_LT(distance(matmul.input_gradient(dy, weight), dy.mm(converted)), 1e-5);
  at::Tensor dx = x.clone();
  matmul.add_input_gradient(dx, dy, weight);
  EXPECT_LT(distance(dx, dy.mm(converted) + x), 1e-5);
}

class ConfigFile {
 public:
  explicit ConfigFile(const std::string& text) : path_(::testing::TempDir() + "config-" + std::to_string(getpid())) {
    std::ofstream(path_) << text;
  }
  ~ConfigFile() { unlink(path_.c_str()); }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

GptNeoConfig parse_config(const std::string& text) { return GptNeoConfig::from_file(ConfigFile(text).path()); }

TEST(Config, ReleasedShapesHaveTheirParameterCounts) {
  const GptNeoConfig small = parse_config(
      R"({"model_type": "gpt_neo", "hidden_size": 768, "num_layers": 12, "num_heads": 12, "intermediate_size": null,
          "attention_types": [[["global", "local"], 6]]})");
  EXPECT_EQ(small.body_parameters(), 125198592);
  EXPECT_EQ(small.intermediate_size, 3072);
  EXPECT_FALSE(small.layer_is_local[0]);
  EXPECT_TRUE(small.layer_is_local[11]);
  EXPECT_EQ(parse_config(R"({"model_type": "gpt_neo"})").body_parameters(), 1315575808);
}

TEST(Config, AliasesLabelsAndListsOfStopTokensAreRead) {
  const GptNeoConfig config = parse_config(
      R"({"model_type": "gpt_neo", "num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 8,
          "attention_types": [[["local"], 1], [["global"], 1]], "eos_token_id": [7, 8],
          "id2label": {"1": "spam", "0": "ham \ud83d\ude00"}, "problem_type": "multi_label_classification"})");
  EXPECT_THAT(config.layer_is_local, ::testing::ElementsAre(true, false));
  EXPECT_EQ(config.eos_token_id, 7);
  EXPECT_THAT(config.labels, ::testing::ElementsAre("ham 😀", "spam"));
  EXPECT_EQ(config.problem_type, "multi_label_classification");
  EXPECT_EQ(config.pad_token_id, -1);
}

TEST(Config, WhatIsWrongIsNamed) {
  const auto error = [](const std::string& text) {
    return error_of([&] { parse_config(text); }, core::ErrorKind::kWeights);
  };
  EXPECT_THAT(error(R"({"model_type": "gpt2"})"), HasSubstr("\"gpt_neo\", found \"gpt2\""));
  EXPECT_THAT(error("{"), HasSubstr("not valid JSON"));
  const std::string head = R"({"model_type": "gpt_neo", )";
  EXPECT_THAT(error(head + R"("num_heads": 3})"), HasSubstr("divisor of hidden_size 2048, found 3"));
  EXPECT_THAT(error(head + R"("num_layers": 3})"), HasSubstr("no error"));
  EXPECT_THAT(error(head + R"("num_layers": 3, "attention_types": [[["global"], 2]]})"), HasSubstr("3 layers"));
  EXPECT_THAT(error(head + R"("attention_types": [[["sliding"], 24]]})"), HasSubstr("sliding"));
  EXPECT_THAT(error(head + R"("activation_function": "relu"})"), HasSubstr("gelu_new"));
  EXPECT_THAT(error(head + R"("resid_dropout": 0.1})"), HasSubstr("no error"));
  EXPECT_THAT(error(head + R"("vocab_size": -1})"), HasSubstr("vocab_size"));
  EXPECT_THAT(error(head + R"("id2label": {"0": "a", "2": "b"}})"), HasSubstr("id2label"));
}

TEST(Config, AbsurdSizesAreRefusedBeforeAnythingIsSizedByThem) {
  const auto error = [](const std::string& text) {
    return error_of([&] { parse_config("{\"model_type\": \"gpt_neo\", " + text + "}"); }, core::ErrorKind::kWeights);
  };
  for (const char* key : {"vocab_size", "max_position_embeddings", "hidden_size", "num_layers", "num_heads",
                          "intermediate_size", "window_size", "bos_token_id", "pad_token_id"}) {
    for (const char* value : {"1073741824", "9223372036854775807", "18446744073709551615", "1e300"}) {
      EXPECT_THAT(error(fmt::format("\"{}\": {}", key, value)), HasSubstr(key)) << value;
    }
  }
  EXPECT_THAT(error("\"num_layers\": 4096, \"hidden_size\": 262144"), HasSubstr("parameters; expected at most"));
  std::string names = "\"global\"";
  for (int i = 0; i < 500'000; ++i) names += ", \"global\"";
  EXPECT_THAT(error("\"num_layers\": 4000, \"attention_types\": [[[" + names + "], 4000]]"), HasSubstr("4000 layers"));
  EXPECT_THAT(error("\"id2label\": " + std::string(5'000'000, '[')), HasSubstr("nested deeper than 100 levels"));
}

}  // namespace
}  // namespace neoloom::model::testing
