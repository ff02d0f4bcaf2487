// SPDX-License-Identifier: Apache-2.0
#include "runtime/train/reporter.h"

#include <gtest/gtest.h>

#include <fstream>

#include "tests/support/no_ranks.h"
#include "tests/support/scratch.h"

namespace neoloom::train {
namespace {

using nlohmann::json;

class Reporting : public ::testing::Test {
 protected:
  ReporterSetup setup(int32_t rank = 0) {
    return {.output_dir = folder_.path(),
            .progress = "off",
            .self = {.rank = rank, .host = "here", .device = "cpu"},
            .total_steps = 10,
            .peak_memory_bytes = [] { return int64_t{1000}; },
            .gather =
                [](const std::string& mine) {
                  return std::vector<std::string>{mine, mine};
                },
            .guard = {}};
  }
  std::vector<json> events() const {
    std::vector<json> events;
    std::ifstream file(folder_.path("metrics.jsonl"));
    for (std::string line; std::getline(file, line);) events.push_back(json::parse(line));
    return events;
  }

  /// Reports one step of so many tokens. Returns the run_end event.
  json end_after_step(ReporterSetup ready, int64_t tokens) {
    Reporter reporter(communicator_, std::move(ready));
    reporter.start();
    reporter.measure().tokens = tokens;
    reporter.log({.step = 1});
    reporter.finish();
    reporter.run_end("completed", 1, nlohmann::ordered_json::object());
    return events().back();
  }

  ScratchFolder folder_;
  support::NoRanks communicator_;
};

TEST_F(Reporting, ALogLineSumsTheRanksAndBeginsAnew) {
  Reporter reporter(communicator_, setup());
  reporter.start();
  reporter.measure().samples = 3;
  reporter.measure().tokens = 20;
  reporter.measure().padded_tokens = 25;
  reporter.log({.step = 2, .epoch = 0.5, .loss = 1.5, .grad_norm = 0.25, .learning_rate = 1e-3});
  EXPECT_EQ(reporter.measure().samples, 0);
  EXPECT_EQ(reporter.measure().host, "here");
  const json event = events().at(0);
  EXPECT_EQ(event["event"], "train");
  EXPECT_EQ(event["loss"], 1.5);
  EXPECT_EQ(event["samples"], 6);
  EXPECT_EQ(event["tokens"], 40);
  EXPECT_EQ(event["padded_tokens"], 50);
  EXPECT_EQ(event["devices"].size(), 2U);
}

TEST_F(Reporting, TheEndSumsAllLogLines) {
  Reporter reporter(communicator_, setup());
  reporter.start();
  for (const int64_t step : {1, 2}) {
    reporter.measure().samples = 5;
    reporter.log({.step = step});
  }
  reporter.finish();
  reporter.run_end("completed", 2, {{"reason", "early stopping"}});
  const json end = events().back();
  EXPECT_EQ(end["status"], "completed");
  EXPECT_EQ(end["reason"], "early stopping");
  const double seconds = end["train_runtime"];
  EXPECT_NEAR(end["train_samples_per_second"].get<double>() * seconds, 20.0, 1e-9);
}

TEST_F(Reporting, TheEndSaysHowNearTheStepsWereToTheirLimit) {
  ReporterSetup ready = setup();
  ready.limit = {.seconds_per_token = 0.5, .rates = "measured some day", .advice = ""};
  const json end = end_after_step(std::move(ready), 100);
  EXPECT_EQ(end["gemm_rates"], "measured some day");
  const double first_seconds = events().front()["step_seconds"];  // a part of the devices' time
  EXPECT_GT(end["share_of_limit"].get<double>(), 0.0);
  EXPECT_LE(end["share_of_limit"].get<double>() * first_seconds, 0.5 * 100);
}

TEST_F(Reporting, AShareAboveOneAsksForNewRates) {
  for (const double seconds_per_token : {1e-12, 1e12}) {
    ReporterSetup ready = setup();
    ready.limit = {.seconds_per_token = seconds_per_token, .rates = "measured some day", .advice = "measure again"};
    ::testing::internal::CaptureStderr();
    end_after_step(std::move(ready), 1);
    const bool asks = ::testing::internal::GetCapturedStderr().find("measure again") != std::string::npos;
    EXPECT_EQ(asks, seconds_per_token > 1.0);
  }
}

TEST_F(Reporting, AShareWithoutRatesIsUnknown) {
  const json end = end_after_step(setup(), 100);
  EXPECT_TRUE(end.at("share_of_limit").is_null());
  EXPECT_FALSE(end.contains("gemm_rates"));
}

TEST_F(Reporting, AFailureOnTheWayHasNoThroughput) {
  Reporter reporter(communicator_, setup());
  reporter.start();
  reporter.run_end("failed", 3, {{"skipped_steps", 3}});
  const json end = events().back();
  EXPECT_EQ(end["skipped_steps"], 3);
  EXPECT_FALSE(end.contains("train_runtime"));
}

TEST_F(Reporting, OnlyRankZeroWrites) {
  Reporter reporter(communicator_, setup(/*rank=*/1));
  EXPECT_FALSE(reporter.writes());
  reporter.start();
  reporter.warn(1, "nobody reads this");
  reporter.log({.step = 1});
  EXPECT_TRUE(events().empty());
}

TEST_F(Reporting, AWarningCarriesItsStepAndMore) {
  Reporter reporter(communicator_, setup());
  reporter.warn(4, "out of memory", {{"micro_batch_size", 2}});
  const json event = events().at(0);
  EXPECT_EQ(event["event"], "warning");
  EXPECT_EQ(event["step"], 4);
  EXPECT_EQ(event["message"], "out of memory");
  EXPECT_EQ(event["micro_batch_size"], 2);
}

TEST_F(Reporting, TheWorldSizeBeforeIsThatOfTheLastStart) {
  EXPECT_EQ(Reporter(communicator_, setup()).world_size_before(), 0);
  {
    std::ofstream file(folder_.path("metrics.jsonl"));
    file << R"({"event":"run_start","world_size":8})"
         << "\n"
         << R"({"event":"run_start","world_size":3})"
         << "\n"
         << "{\"event\":\"tra";  // a killed run
  }
  EXPECT_EQ(Reporter(communicator_, setup()).world_size_before(), 3);
}

}  // namespace
}  // namespace neoloom::train
