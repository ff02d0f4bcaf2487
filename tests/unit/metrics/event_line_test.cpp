// SPDX-License-Identifier: Apache-2.0
#include "runtime/metrics/event_line.h"

#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "runtime/metrics/events.h"

namespace neoloom::metrics {
namespace {

using nlohmann::ordered_json;

/// A train event as a reporter writes it.
ordered_json train_event() {
  DeviceMeasure measure{
      .rank = 0, .host = "a\"},{\"time\":1", .device = "cpu", .batches = 4, .samples = 8, .tokens = 70};
  measure.seconds = 0.7;
  return {{"event", "train"},
          {"step", 1'000'000},
          {"epoch", 3.1},
          {"loss", 0.1 + 0.2},
          {"grad_norm", 1e-300},
          {"learning_rate", 5e-324},
          {"samples", 8},
          {"devices", {device_json(measure), device_json(measure)}},
          {"micro_batch_fill", 0.5},
          {"time", 1795919417.53}};
}

TEST(EventLine, ATrainEventHasTheNumbersThatAParserReads) {
  const ordered_json event = train_event();
  const auto numbers = scan_train_line(event.dump());
  ASSERT_TRUE(numbers);
  EXPECT_EQ(numbers->step, event["step"].get<double>());
  EXPECT_EQ(numbers->epoch, event["epoch"].get<double>());
  EXPECT_EQ(numbers->loss, event["loss"].get<double>());
  EXPECT_EQ(numbers->grad_norm, event["grad_norm"].get<double>());
  EXPECT_EQ(numbers->learning_rate, event["learning_rate"].get<double>());
  EXPECT_EQ(numbers->time_seconds, event["time"].get<double>());
}

TEST(EventLine, NullAndWhatIsMissingIsNotANumber) {
  ordered_json event = train_event();
  event["loss"] = nullptr;
  event.erase("grad_norm");
  const auto numbers = scan_train_line(event.dump());
  ASSERT_TRUE(numbers);
  EXPECT_TRUE(std::isnan(numbers->loss));
  EXPECT_TRUE(std::isnan(numbers->grad_norm));
  EXPECT_EQ(numbers->epoch, 3.1);
}

TEST(EventLine, WhatIsWrittenOtherwiseIsLeftToTheParser) {
  const std::string line = train_event().dump();
  for (size_t size = 0; size < line.size(); ++size) EXPECT_FALSE(scan_train_line(line.substr(0, size))) << size;
  EXPECT_FALSE(scan_train_line(line + ","));
  for (const char* other :
       {R"({"event":"eval","step":1,"devices":[],"time":1})", R"({"event":"train","step":1,"time":1})",
        R"({"event":"train","step":"1","devices":[],"time":1})", R"({"event": "train","step":1,"devices":[],"time":1})",
        R"({"event":"train","a\"b":1,"devices":[],"time":1})",
        R"({"event":"train","step":1,"devices":[],"time":1,"more":2})",
        R"({"step":1,"event":"train","devices":[],"time":1})"}) {
    EXPECT_FALSE(scan_train_line(other)) << other;
  }
  EXPECT_TRUE(scan_train_line(R"({"event":"train","step":1,"devices":[],"time":1})"));
}

TEST(EventLine, TellsTheKindOfALineThatBeginsWithIt) {
  EXPECT_EQ(kind_of(train_event().dump()), "train");
  EXPECT_EQ(kind_of(R"({"event":"run_start"})"), "run_start");
  for (const char* other : {"", "{", R"({"event":"run)", R"({"event":7})", R"({"event": "train"})",
                            R"({"event":"a\"b"})", R"([{"event":"train"}])"}) {
    EXPECT_EQ(kind_of(other), "") << other;
  }
}

}  // namespace
}  // namespace neoloom::metrics
