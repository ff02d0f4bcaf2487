// SPDX-License-Identifier: Apache-2.0
#include "model/generation/generate.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include <cmath>
#include <limits>

#include "model/generation/stop_strings.h"
#include "tests/support/scratch.h"

namespace neoloom::model {
namespace {

using core::ErrorKind;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr float kOut = -std::numeric_limits<float>::infinity();

std::vector<float> processed(const std::vector<float>& scores, const std::vector<int64_t>& context,
                             const GenerationOptions& options) {
  at::Tensor logits = at::tensor(scores);
  process_logits(logits, context, options);
  return {logits.const_data_ptr<float>(), logits.const_data_ptr<float>() + logits.numel()};
}

GenerationOptions plain() {
  GenerationOptions options;
  options.top_k = 0;
  return options;
}

TEST(ProcessLogits, TopKKeepsTiesAtTheLastPlace) {
  GenerationOptions options = plain();
  options.top_k = 2;
  EXPECT_THAT(processed({1, 2, 2, 3}, {}, options), ElementsAre(kOut, 2, 2, 3));
  options.top_k = 9;
  EXPECT_THAT(processed({1, 2, 2, 3}, {}, options), ElementsAre(1, 2, 2, 3));
}

TEST(ProcessLogits, TopPKeepsTheSmallestSetAboveP) {
  const std::vector<float> scores = {std::log(.5F), std::log(.25F), std::log(.15F), std::log(.1F)};
  GenerationOptions options = plain();
  options.top_p = 0.5;
  EXPECT_THAT(processed(scores, {}, options), ElementsAre(scores[0], kOut, kOut, kOut));
  options.top_p = 0.51;
  EXPECT_THAT(processed(scores, {}, options), ElementsAre(scores[0], scores[1], kOut, kOut));
  options.top_p = 1e-9;
  EXPECT_THAT(processed(scores, {}, options), ElementsAre(scores[0], kOut, kOut, kOut));
}

TEST(ProcessLogits, ThePenaltyReachesTheLastTokensOnly) {
  GenerationOptions options = plain();
  options.repetition_penalty = 2.0;
  options.repetition_penalty_range = 3;
  const std::vector<float> scores = {8, -8, 8, 8};
  const std::vector<int64_t> context = {3, 0, 1, 0};
  EXPECT_THAT(processed(scores, context, options), ElementsAre(4, -16, 8, 8));
  options.count_occurrences = true;
  EXPECT_THAT(processed(scores, context, options), ElementsAre(2, -16, 8, 8));
  options.repetition_penalty_range = -1;
  EXPECT_THAT(processed(scores, context, options), ElementsAre(2, -16, 8, 4));
  options.repetition_penalty_range = 0;
  EXPECT_THAT(processed(scores, context, options), ElementsAre(8, -8, 8, 8));
}

TEST(ProcessLogits, GreedyStillPenalisesAndCutsNothing) {
  GenerationOptions options;
  options.temperature = 0;
  options.top_k = 1;
  options.repetition_penalty = 2.0;
  EXPECT_THAT(processed({8, 7, 6}, {0}, options), ElementsAre(4, 7, 6));
}

TEST(ProcessLogits, MinPIsAShareOfTheLikeliest) {
  const std::vector<float> scores = {std::log(.5F), std::log(.3F), std::log(.15F), std::log(.05F)};
  GenerationOptions options = plain();
  options.min_p = 0.31;
  EXPECT_THAT(processed(scores, {}, options), ElementsAre(scores[0], scores[1], kOut, kOut));
  options.min_p = 1.0;
  EXPECT_THAT(processed(scores, {}, options), ElementsAre(scores[0], kOut, kOut, kOut));
}

TEST(ProcessLogits, NoNgramComesTwice) {
  GenerationOptions options = plain();
  options.no_repeat_ngram_size = 2;
  EXPECT_THAT(processed({1, 1, 1, 1}, {0, 1, 0, 2, 0}, options), ElementsAre(1, kOut, kOut, 1));
  EXPECT_THAT(processed({1, 1, 1, 1}, {3}, options), ElementsAre(1, 1, 1, 1));
  options.no_repeat_ngram_size = 1;
  EXPECT_THAT(processed({1, 1, 1, 1}, {3, 0}, options), ElementsAre(kOut, 1, 1, kOut));
  options.no_repeat_ngram_size = 3;
  EXPECT_THAT(processed({1, 1, 1, 1}, {1, 1, 1}, options), ElementsAre(1, kOut, 1, 1));
}

TEST(ProcessLogits, ImpossibleOptionsAreNamed) {
  const auto refusal = [](auto change) {
    GenerationOptions options;
    change(options);
    return error_of(ErrorKind::kUsage, [&] { processed({1, 2}, {}, options); });
  };
  EXPECT_THAT(refusal([](auto& o) { o.temperature = -1; }), HasSubstr("temperature is -1"));
  EXPECT_THAT(refusal([](auto& o) { o.temperature = std::nan(""); }), HasSubstr("temperature"));
  EXPECT_THAT(refusal([](auto& o) { o.top_k = -1; }), HasSubstr("top_k"));
  EXPECT_THAT(refusal([](auto& o) { o.top_p = 0; }), HasSubstr("top_p"));
  EXPECT_THAT(refusal([](auto& o) { o.repetition_penalty = 0; }), HasSubstr("repetition_penalty"));
  EXPECT_THAT(refusal([](auto& o) { o.max_tokens = -1; }), HasSubstr("max_tokens"));
  EXPECT_THAT(refusal([](auto& o) { o.min_p = 1.5; }), HasSubstr("min_p"));
  EXPECT_THAT(refusal([](auto& o) { o.no_repeat_ngram_size = -2; }), HasSubstr("no_repeat_ngram_size"));
  EXPECT_THAT(refusal([](auto& o) { o.min_new_tokens = -1; }), HasSubstr("min_new_tokens"));
}

TEST(ChooseToken, DrawsFollowTheDistribution) {
  const std::vector<double> probability = {.4, .3, .2, .1, 0.0};
  at::Tensor logits = at::empty({5});
  for (int i = 0; i < 5; ++i) logits[i] = std::log(probability[static_cast<size_t>(i)]);
  GenerationOptions options;
  options.seed = 11;
  constexpr int kDraws = 20'000;
  std::vector<int> counts(5);
  for (int position = 0; position < kDraws; ++position) {
    ++counts[static_cast<size_t>(choose_token(logits, options, position))];
  }
  EXPECT_EQ(counts[4], 0);
  double chi_square = 0;
  for (size_t i = 0; i < 4; ++i) {
    const double expected = kDraws * probability[i];
    chi_square += (counts[i] - expected) * (counts[i] - expected) / expected;
  }
  EXPECT_LT(chi_square, 16.3);  // 3 degrees of freedom, p = 0.001
}

TEST(ChooseToken, DependsOnSeedSequenceAndPositionAlone) {
  const at::Tensor logits = at::zeros({1000});
  GenerationOptions options;
  const int64_t first = choose_token(logits, options, 5);
  EXPECT_EQ(choose_token(logits, options, 5), first);
  EXPECT_NE(choose_token(logits, options, 6), first);
  EXPECT_NE(choose_token(logits, options, 5, 1), first);
  options.seed = uint64_t{1} << 33;
  EXPECT_NE(choose_token(logits, options, 5), first);
}

TEST(ChooseToken, GreedyTakesTheFirstOfEquals) {
  GenerationOptions options;
  options.temperature = 0;
  EXPECT_EQ(choose_token(at::tensor(std::vector<float>{1, 3, 3}), options, 0), 1);
}

TEST(ChooseToken, LogitsWithoutAFiniteLargestAreNumericErrors) {
  for (const float bad : {std::nanf(""), kOut, -kOut}) {
    error_of(ErrorKind::kNumeric, [&] { choose_token(at::full({3}, bad), {}, 0); });
  }
  error_of(ErrorKind::kNumeric, [&] { choose_token(at::tensor(std::vector<float>{1, std::nanf("")}), {}, 0); });
}

/// Prefers the id that is one above the last id it was fed.
class CountingModel : public Model {
 public:
  CountingModel() {
    setup_.config.vocab_size = 10;
    setup_.config.max_position_embeddings = 8;
    setup_.config.eos_token_id = 9;
  }
  const ModelSetup& setup() const override { return setup_; }
  const ParameterLayout& layout() const override { return layout_; }
  std::shared_ptr<const MicroBatch> pack(const Batch&, const at::Device&) const override { return nullptr; }
  MicroStep prepare(const MicroBatch&, const at::Tensor&, at::Tensor&, const DropoutKey&, double) override {
    return {};
  }
  std::vector<std::string> kernels() const override { return {}; }
  void initialize_share(at::Tensor&, uint64_t, Share) const override {}
  void subtract(const at::Tensor&) override {}
  const at::Tensor& subtracted() const override { return subtracted_; }
  LossSum forward_backward(const Batch&, const at::Tensor&, at::Tensor&, const DropoutKey&, double) override {
    return {};
  }
  EvalOutput evaluate(const Batch&, const at::Tensor&) override { return {}; }
  at::Tensor lm_logits(const Batch&, const at::Tensor&) override { return {}; }
  double training_flops_per_token(int64_t) const override { return 0; }
  std::unique_ptr<Decoder> make_decoder(const at::Tensor&, int64_t max_tokens, int64_t sequences) override {
    sequences_ = sequences;
    return std::make_unique<Counter>(max_tokens, sequences);
  }
  int64_t sequences_ = 0;  // of the last decoder

 private:
  at::Tensor subtracted_;
  class Counter : public Decoder {
   public:
    Counter(int64_t max_tokens, int64_t sequences)
        : max_tokens_(max_tokens), positions_(static_cast<size_t>(sequences)) {}
    at::Tensor feed(const std::vector<NextTokens>& next) override {
      at::Tensor logits = at::zeros({static_cast<int64_t>(next.size()), 10});
      for (size_t row = 0; row < next.size(); ++row) {
        int64_t& position = positions_.at(static_cast<size_t>(next[row].sequence));
        position += static_cast<int64_t>(next[row].ids.size());
        EXPECT_LE(position, max_tokens_);
        logits[static_cast<int64_t>(row)][(next[row].ids.back() + 1) % 10] = 5.0F;
      }
      return logits;
    }
    int64_t position(int64_t sequence) const override { return positions_.at(static_cast<size_t>(sequence)); }
    void restart(int64_t sequence) override { positions_.at(static_cast<size_t>(sequence)) = 0; }

   private:
    int64_t max_tokens_;
    std::vector<int64_t> positions_;
  };
  ModelSetup setup_;
  ParameterLayout layout_;
};

class Generation : public ::testing::Test {
 protected:
  Generation() { options_.temperature = 0; }
  std::vector<std::vector<int64_t>> run_all(const std::vector<std::vector<int64_t>>& prompts, int64_t batch_size) {
    CountingModel model;
    std::vector<TextRequest> requests;
    requests.reserve(prompts.size());
    for (const auto& prompt : prompts) requests.push_back({prompt});
    std::vector<std::vector<int64_t>> texts(prompts.size(), {-1});
    const auto on_token = [&](size_t, int64_t id) {
      streamed_.push_back(id);
      return id == last_;
    };
    generate(model, {}, requests, options_, batch_size, {on_token, [&](size_t text, Generated generated) {
                                                           EXPECT_THAT(texts[text], ElementsAre(-1)) << "ended twice";
                                                           texts[text] = std::move(generated.ids);
                                                           finish_ = generated.finish;
                                                         }});
    sequences_ = model.sequences_;
    return texts;
  }
  std::vector<int64_t> run(const std::vector<int64_t>& prompt) { return run_all({prompt}, 1).front(); }

  Finish finish_ = Finish::kLength;
  GenerationOptions options_;
  int64_t last_ = -1;  // the text ends after this id
  int64_t sequences_ = 0;
  std::vector<int64_t> streamed_;
};

TEST_F(Generation, TextsBesideEachOtherAreThoseOfOneAlone) {
  options_.max_tokens = 4;
  options_.eos_token_ids = {9};
  const std::vector<std::vector<int64_t>> prompts = {{1}, {8}, {2, 3}, std::vector<int64_t>(8, 1), {}, {6}, {0}};
  const auto alone = run_all(prompts, 1);
  EXPECT_EQ(sequences_, 1);
  EXPECT_THAT(alone, ElementsAre(ElementsAre(2, 3, 4, 5), ElementsAre(), ElementsAre(4, 5, 6, 7), ElementsAre(),
                                 ElementsAre(0, 1, 2, 3), ElementsAre(7, 8), ElementsAre(1, 2, 3, 4)));
  EXPECT_EQ(run_all(prompts, 3), alone);
  EXPECT_EQ(sequences_, 3);
  EXPECT_EQ(run_all(prompts, 100), alone);
  EXPECT_EQ(sequences_, 7);
}

TEST_F(Generation, CallerMayEndAText) {
  last_ = 4;
  EXPECT_THAT(run({1}), ElementsAre(2, 3, 4));
  EXPECT_EQ(finish_, Finish::kStop);
}

TEST_F(Generation, NoStopTokenBeforeTheLeastNumber) {
  options_.eos_token_ids = {3, 99};
  options_.min_new_tokens = 2;
  options_.max_tokens = 3;
  EXPECT_THAT(run({2}), ElementsAre(0, 1, 2)) << "3 is impossible at first; the first of equals follows";
}

TEST_F(Generation, StopsAtTheStopTokenWithoutReturningIt) {
  options_.eos_token_ids = {9};
  EXPECT_THAT(run({6}), ElementsAre(7, 8));
  EXPECT_EQ(finish_, Finish::kStop);
  EXPECT_THAT(streamed_, ElementsAre(7, 8));
}

TEST_F(Generation, StopsAtEachOfSeveralStopTokens) {
  options_.eos_token_ids = {9, 7};
  EXPECT_THAT(run({5}), ElementsAre(6));
}

TEST_F(Generation, StopsAtTheLimitAndAtTheLastPosition) {
  options_.max_tokens = 3;
  EXPECT_THAT(run({1, 2}), ElementsAre(3, 4, 5));
  EXPECT_EQ(finish_, Finish::kLength);
  options_.max_tokens = std::numeric_limits<int64_t>::max();
  EXPECT_THAT(run({1, 2}), ElementsAre(3, 4, 5, 6, 7, 8));
  EXPECT_EQ(finish_, Finish::kPositions);
  EXPECT_TRUE(run({1, 2, 3, 4, 5, 6, 7, 8}).empty());
  EXPECT_EQ(finish_, Finish::kPositions);
  options_.max_tokens = 0;
  EXPECT_TRUE(run({1}).empty());
  EXPECT_EQ(finish_, Finish::kLength);
}

TEST_F(Generation, AnEmptyPromptBeginsAfterTheEndOfText) {
  options_.max_tokens = 2;
  EXPECT_THAT(run({}), ElementsAre(0, 1));
}

TEST(StopStrings, TextEndsBeforeTheFirstOne) {
  StopStrings text({"\n\n", "###"});
  EXPECT_FALSE(text.append("a\n"));
  EXPECT_EQ(text.settled_bytes(), 1) << "the line break may be the first of two";
  EXPECT_FALSE(text.append("b##"));
  EXPECT_EQ(text.settled_bytes(), 3);
  EXPECT_TRUE(text.append("#\n\n"));
  EXPECT_EQ(text.text(), "a\nb");
  EXPECT_EQ(text.settled_bytes(), 3);
  EXPECT_TRUE(text.append("more"));
  EXPECT_EQ(text.text(), "a\nb");
}

TEST(StopStrings, WithoutOneNothingIsHeldBack) {
  StopStrings text({});
  EXPECT_FALSE(text.append("abc"));
  EXPECT_EQ(text.settled_bytes(), 3);
}

TEST_F(Generation, PromptsThatDoNotFitAreDataErrors) {
  EXPECT_THAT(error_of(ErrorKind::kData, [&] { run(std::vector<int64_t>(9, 1)); }), HasSubstr("9 tokens"));
  EXPECT_THAT(error_of(ErrorKind::kData, [&] { run({10}); }), HasSubstr("token id 10"));
  EXPECT_THAT(error_of(ErrorKind::kData, [&] { run({-1}); }), HasSubstr("token id -1"));
}

}  // namespace
}  // namespace neoloom::model
