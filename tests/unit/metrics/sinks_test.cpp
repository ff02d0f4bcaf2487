// SPDX-License-Identifier: Apache-2.0
#include "runtime/metrics/event_sinks.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "runtime/core/error.h"
#include "runtime/metrics/events.h"
#include "runtime/metrics/tf_record.h"
#include "tests/support/scratch.h"

namespace neoloom::metrics {
namespace {

using nlohmann::ordered_json;
using testing::HasSubstr;
using testing::SizeIs;

TEST(Crc32c, GivesTheValuesOfRfc3720) {
  EXPECT_EQ(crc32c("123456789"), 0xE3069283U);
  EXPECT_EQ(crc32c(std::string(32, '\0')), 0x8A9136AAU);
  EXPECT_EQ(crc32c(std::string(32, '\xff')), 0x62A8AB43U);
  EXPECT_EQ(crc32c(""), 0U);
}

ordered_json train_event(int64_t step, double loss) {
  return {{"event", "train"}, {"step", step}, {"loss", loss}, {"time", 1.5}};
}

class Sinks : public testing::Test {
 protected:
  SinkSetup setup(int64_t first_step = 0) {
    return {.report_to = {},
            .output_dir = folder_.path(),
            .logging_dir = "",
            .config_text = "a: 1\n",
            .host = "here",
            .first_step = first_step};
  }
  /// Writes an event as a run does: to metrics.jsonl, then to the sink.
  void pass(const ordered_json& event, EventSink& sink) {
    EventLog(folder_.path("metrics.jsonl")).write(event);
    sink.take(event);
  }
  ScratchFolder folder_;
};

TEST_F(Sinks, CsvDropsTheRowsThatAResumeComputesAgain) {
  {
    const auto csv = make_csv(setup());
    pass({{"event", "run_start"}}, *csv);
    for (int64_t step = 1; step <= 4; ++step) pass(train_event(step, 0.5), *csv);
    pass({{"event", "eval"}, {"step", 4}, {"eval_loss", 0.25}}, *csv);
  }
  EXPECT_EQ(folder_.read("eval.csv"), "step,eval_loss\n4,0.25\n");
  const auto csv = make_csv(setup(2));
  EXPECT_EQ(folder_.read("train.csv"), "step,loss,time\n1,0.5,1.5\n2,0.5,1.5\n");
  EXPECT_FALSE(std::filesystem::exists(folder_.path("eval.csv")));
  pass({{"event", "run_start"}}, *csv);
  pass({{"event", "resume"}, {"step", 2}}, *csv);
  pass(train_event(3, 0.75), *csv);
  EXPECT_EQ(folder_.read("train.csv"), "step,loss,time\n1,0.5,1.5\n2,0.5,1.5\n3,0.75,1.5\n");
}

TEST_F(Sinks, CsvOfARunThatBeginsAnewHasNoOldRows) {
  {
    const auto csv = make_csv(setup());
    pass({{"event", "run_start"}}, *csv);
    pass({{"event", "eval"}, {"step", 0}, {"eval_loss", 1.0}}, *csv);
    pass(train_event(1, 0.5), *csv);
  }
  const auto csv = make_csv(setup());
  EXPECT_FALSE(std::filesystem::exists(folder_.path("train.csv")));
  EXPECT_FALSE(std::filesystem::exists(folder_.path("eval.csv")));
}

TEST_F(Sinks, CsvGetsANewHeaderForNewColumns) {
  const auto csv = make_csv(setup());
  pass({{"event", "run_start"}}, *csv);
  pass({{"event", "eval"}, {"step", 4}, {"eval_a_loss", 0.25}}, *csv);
  pass({{"event", "eval"}, {"step", 4}, {"eval_b, \"c\"_loss", nullptr}, {"more", 1e-7}}, *csv);
  pass({{"event", "eval"}, {"step", 8}, {"eval_a_loss", 0.125}}, *csv);
  EXPECT_EQ(folder_.read("eval.csv"),
            "step,eval_a_loss,\"eval_b, \"\"c\"\"_loss\",more\n4,0.25,,\n4,,,1e-07\n8,0.125,,\n");
}

TEST_F(Sinks, DevicesAreSummedUp) {
  const ordered_json event = {
      {"event", "train"},
      {"devices",
       {{{"rank", 0}, {"tokens_per_s", 10.0}, {"compute_share", 0.5}, {"peak_memory_bytes", 7}},
        {{"rank", 1}, {"tokens_per_s", 20.0}, {"compute_share", 1.0}, {"peak_memory_bytes", 5}}}}};
  std::map<std::string, double> numbers;
  for (const auto& [name, value] : numbers_of(event)) numbers[name] = value;
  EXPECT_EQ(numbers.at("tokens_per_s"), 30.0);
  EXPECT_EQ(numbers.at("compute_share"), 0.75);
  EXPECT_EQ(numbers.at("peak_memory_bytes"), 7.0);
}

TEST_F(Sinks, PrometheusHoldsTheLastValuesWithLabels) {
  SinkSetup ready = setup();
  ready.host = "a\"b\\c\nd";
  const auto prometheus = make_prometheus(ready);
  const std::string labels = "{run=\"" + folder_.path() + "\",host=\"a\\\"b\\\\c\\nd\"";
  prometheus->take({{"event", "run_start"}, {"total_steps", 10}, {"world_size", 2}});
  prometheus->take(train_event(1, 0.5));
  prometheus->take(train_event(2, std::nan("")));
  prometheus->take({{"event", "checkpoint"}, {"step", 2}, {"time", 1764000000.25}});
  prometheus->take({{"event", "eval"}, {"step", 2}, {"eval_loss", 0.25}});
  const std::string text = folder_.read("metrics.prom");
  EXPECT_THAT(text, HasSubstr("# TYPE neoloom_step gauge\nneoloom_step" + labels + "} 2\n"));
  EXPECT_THAT(text, HasSubstr("neoloom_loss" + labels + "} NaN\n"));
  EXPECT_THAT(text, HasSubstr("neoloom_checkpoint_step" + labels + "} 2\n"));
  EXPECT_THAT(text, HasSubstr("neoloom_checkpoint_timestamp_seconds" + labels + "} 1764000000.25\n"));
  EXPECT_THAT(text, HasSubstr("neoloom_evaluation" + labels + ",metric=\"eval_loss\"} 0.25\n"));
  EXPECT_THAT(text, HasSubstr("neoloom_running" + labels + "} 1\n"));
  prometheus->take({{"event", "run_end"}});
  EXPECT_THAT(folder_.read("metrics.prom"), HasSubstr("neoloom_running" + labels + "} 0\n"));
}

TEST_F(Sinks, TensorBoardFilesOfLaterStartsComeLaterInOrder) {
  for (int start = 0; start < 3; ++start) make_tensorboard(setup(start));
  const std::string folder = folder_.path("tensorboard");
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) names.push_back(entry.path().filename());
  std::sort(names.begin(), names.end());
  ASSERT_THAT(names, SizeIs(3));
  for (int start = 0; start < 3; ++start) {
    // The second record: time (9 bytes), step unless it is 0, session_log.
    const std::string file = folder_.read("tensorboard/" + names[static_cast<size_t>(start)]);
    const std::string log("\x3a\x02\x08\x01", 4);
    const std::string step = start == 0 ? "" : std::string("\x10") + static_cast<char>(start + 1);
    EXPECT_THAT(file, HasSubstr(step + log)) << start;
  }
}

TEST_F(Sinks, TensorBoardFilesGoToLoggingDir) {
  SinkSetup ready = setup();
  ready.logging_dir = folder_.path("elsewhere/tb");
  make_tensorboard(ready)->take(train_event(3, 0.5));
  EXPECT_FALSE(std::filesystem::exists(folder_.path("tensorboard")));
  EXPECT_FALSE(std::filesystem::is_empty(ready.logging_dir));
}

TEST_F(Sinks, AFolderThatCannotBeIsRefusedAtTheStart) {
  folder_.write("file", "");
  SinkSetup ready = setup();
  ready.logging_dir = folder_.path("file/tb");
  error_of(core::ErrorKind::kUsage, [&] { make_tensorboard(ready); });
}

}  // namespace
}  // namespace neoloom::metrics
