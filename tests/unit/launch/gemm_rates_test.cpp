// SPDX-License-Identifier: Apache-2.0
#include "launch/planning/gemm_rates.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <regex>

#include "launch/system/cpu_info.h"
#include "tests/support/scratch.h"

namespace neoloom::launch {
namespace {

using nlohmann::json;

class GemmRatesFile : public ::testing::Test {
 protected:
  GemmRatesFile() {
    cache_.say = [this](const std::string& line) { lines_.push_back(line); };
    setup_.threads = 2;
  }
  void measure() {
    GemmRates rates(cache_);
    rates.set(setup_, gemm_, {450.5, "2026-11-28"});
    rates.save();
  }
  std::optional<GemmRate> find(const model::MemorySetup& setup, const model::StepGemm& gemm) const {
    return GemmRates(cache_).find(setup, gemm);
  }

  ScratchFolder folder_;
  core::Cache cache_{folder_.path()};
  std::vector<std::string> lines_;
  model::MemorySetup setup_;
  model::StepGemm gemm_{.rows = 1024, .in = 768, .out = 3072};
};

TEST_F(GemmRatesFile, WithoutOneThereIsNoRateAndNoLine) {
  EXPECT_TRUE(GemmRates(cache_).empty());
  EXPECT_FALSE(find(setup_, gemm_));
  EXPECT_TRUE(lines_.empty());
  EXPECT_TRUE(folder_.names().empty());
}

TEST_F(GemmRatesFile, KeepsRatesForTheNextProcess) {
  measure();
  const std::optional<GemmRate> rate = find(setup_, gemm_);
  ASSERT_TRUE(rate);
  EXPECT_EQ(rate->gflops, 450.5);
  EXPECT_EQ(rate->date, "2026-11-28");
  EXPECT_EQ(folder_.names(), std::vector<std::string>{"gemm-rates.json"});
  model::StepGemm other = gemm_;
  other.in = 1024;
  GemmRates more(cache_);
  more.set(setup_, other, {300.0, "2026-11-29"});
  more.save();
  EXPECT_EQ(find(setup_, gemm_)->gflops, 450.5) << "a later measurement forgot an earlier one";
  EXPECT_EQ(find(setup_, other)->gflops, 300.0);
}

TEST_F(GemmRatesFile, HoldsForRowsThatRoundToTheSamePowerOfTwo) {
  measure();
  for (const int64_t rows : {725, 1000, 1448}) EXPECT_TRUE(find(setup_, {rows, 768, 3072})) << rows;
  for (const int64_t rows : {1, 724, 1449, 2048}) EXPECT_FALSE(find(setup_, {rows, 768, 3072})) << rows;
  EXPECT_EQ(measured_rows(1), 1);
  EXPECT_EQ(measured_rows(1000), 1024);
}

TEST_F(GemmRatesFile, HoldsForNoOtherShape) {
  measure();
  EXPECT_FALSE(find(setup_, {1024, 3072, 768}));
  EXPECT_FALSE(find(setup_, {1024, 768, 3072, /*backward=*/true}));
}

TEST_F(GemmRatesFile, HoldsForNoOtherThreadsOrDtypes) {
  measure();
  model::MemorySetup other = setup_;
  other.threads = 1;
  EXPECT_FALSE(find(other, gemm_));
  other = setup_;
  other.model.compute_dtype = model::Dtype::kBFloat16;
  EXPECT_FALSE(find(other, gemm_));
  other = setup_;
  other.frozen_dtype = model::Dtype::kFloat32;
  EXPECT_FALSE(find(other, gemm_));
  other = setup_;
  other.packed_weights = true;
  EXPECT_FALSE(find(other, gemm_));
}

TEST_F(GemmRatesFile, HoldsForNoOtherProcessorOrInstructionSets) {
  measure();
  const std::string text = folder_.read("gemm-rates.json");
  for (const std::string& ours : {cpu_model(), instruction_sets()}) {
    std::string theirs = text;
    ASSERT_NE(theirs.find(ours), std::string::npos) << ours;
    folder_.write("gemm-rates.json", theirs.replace(theirs.find(ours), ours.size(), "another"));
    EXPECT_FALSE(GemmRates(cache_).empty());
    EXPECT_FALSE(find(setup_, gemm_));
  }
}

TEST_F(GemmRatesFile, ThatIsDamagedIsIgnoredWithALineAndMadeAgain) {
  measure();
  const std::string good = folder_.read("gemm-rates.json");
  const std::string negative = std::regex_replace(good, std::regex("450\\.5"), "-1");
  const std::string later = std::regex_replace(good, std::regex("\"format\": 1"), "\"format\": 2");
  for (const std::string& text : {std::string(), std::string("{"), std::string("[]"), std::string("{\"format\": 1}"),
                                  good.substr(0, good.size() / 2), negative, later}) {
    folder_.write("gemm-rates.json", text);
    lines_.clear();
    EXPECT_TRUE(GemmRates(cache_).empty()) << text;
    ASSERT_EQ(lines_.size(), 1U) << text;
    EXPECT_THAT(lines_[0], testing::HasSubstr("gemm-rates.json"));
    measure();
    EXPECT_EQ(folder_.read("gemm-rates.json"), good);
  }
}

TEST_F(GemmRatesFile, ThatIsAFolderIsMovedAside) {
  folder_.write("gemm-rates.json/inside", "");
  measure();
  EXPECT_TRUE(find(setup_, gemm_));
  EXPECT_EQ(folder_.names().size(), 2U);
}

TEST_F(GemmRatesFile, ThatEverybodyCouldHaveWrittenIsIgnored) {
  measure();
  namespace fs = std::filesystem;
  fs::permissions(folder_.path("gemm-rates.json"), fs::perms::others_write, fs::perm_options::add);
  EXPECT_FALSE(find(setup_, gemm_));
  ASSERT_EQ(lines_.size(), 1U);
  cache_.trusts_everybody = true;
  EXPECT_TRUE(find(setup_, gemm_));
}

}  // namespace
}  // namespace neoloom::launch
