// SPDX-License-Identifier: Apache-2.0
#include "launch/monitor/frame.h"

#include <fmt/ranges.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "launch/monitor/device_rows.h"
#include "runtime/metrics/text_width.h"

namespace neoloom::launch {
namespace {

using nlohmann::ordered_json;
using testing::AllOf;
using testing::Contains;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::SizeIs;
using testing::StartsWith;

ordered_json device(int rank) {
  return {{"rank", rank},          {"host", "node" + std::to_string(rank / 4 + 1)},
          {"device", "cuda:0"},    {"samples_per_s", 2.5},
          {"tokens_per_s", 1200},  {"peak_memory_bytes", (rank + 1) * 1000000000LL},
          {"compute_share", 0.75}, {"comm_share", 0.125},
          {"data_share", 0.0}};
}

ordered_json devices(int count) {
  ordered_json all = ordered_json::array();
  for (int rank = 0; rank < count; ++rank) all.push_back(device(rank));
  return all;
}

/// A run of so many ranks in its step 60 of 100, with two evaluations and two warnings.
class Frame : public testing::Test {
 protected:
  explicit Frame(int ranks = 2) : history_("runs/mine") {
    history_.take({{"event", "run_start"}, {"total_steps", 100}, {"slurm_job_id", "77"}, {"time", 1000.0}});
    for (int step = 10; step <= 60; step += 10) {
      history_.take({{"event", "train"},
                     {"step", step},
                     {"epoch", step / 50.0},
                     {"loss", 2.0 - step / 50.0},
                     {"grad_norm", 0.5},
                     {"learning_rate", 2e-4},
                     {"step_seconds", 0.5},
                     {"devices", devices(ranks)},
                     {"time", 1000.0 + step}});
    }
    for (const auto& [step, loss] : {std::pair{20, 0.25}, {40, 0.75}}) {
      history_.take({{"event", "eval"},
                     {"step", step},
                     {"eval_samples", 21},
                     {"eval_loss", loss},
                     {"eval_accuracy", 0.5},
                     {"eval_runtime", 1.0},
                     {"time", 1000.0 + step}});
    }
    history_.take({{"event", "warning"}, {"step", 5}, {"message", "first"}, {"time", 1005.0}});
    history_.take({{"event", "warning"}, {"step", 6}, {"message", "second\n\x1b[2J"}, {"time", 1061.0}});
    told_ = describe_run("/nowhere/runs/mine", history_, {"process 9 on node1, since noon", true});
    told_["checkpoint"] = {{"step", 50}, {"path", "/nowhere"}};
  }

  std::vector<std::string> drawn(const FrameStyle& style) const {
    return draw_frame(history_, {told_, config_, 1053.0, 1063.0}, style);
  }
  std::string text(const FrameStyle& style) const { return fmt::format("{}", fmt::join(drawn(style), "\n")); }

  RunHistory history_;
  ordered_json told_;
  std::map<std::string, std::string> config_ = {{"trainer_config.metric_for_best_model", "loss"}};
};

TEST_F(Frame, ShowsWhatARunIsDoing) {
  const std::vector<std::string> lines = drawn({.columns = 80});
  EXPECT_THAT(lines[0], AllOf(StartsWith("run /nowhere/runs/mine  "), HasSubstr("  running, heard 00:02 ago")));
  EXPECT_THAT(lines[1], HasSubstr("process 9 on node1, since noon, Slurm job 77"));
  for (const char* line : {"step     60 of 100 (60.0 %), epoch 1.20, about 00:20 left",
                           "lr       2.00e-04, gradient norm 0.5000", "best     step 20: loss 0.2500",
                           "eval     step 40: loss 0.7500, accuracy 0.5000", "saved    step 50, 00:10 ago"}) {
    EXPECT_THAT(lines, Contains(line));
  }
  EXPECT_THAT(lines, Contains("loss     0.8000    #*=~._  0.8000 to 1.8000"));
  EXPECT_THAT(lines, Contains(StartsWith("         ##########")));
  EXPECT_THAT(lines, Contains("rank  host     device  tokens/s  samples/s   memory  compute  comm  data"));
  EXPECT_THAT(lines, Contains("0     node1    cuda:0     1,200       2.50  1.00 GB     75 %  12 %   0 %"));
  EXPECT_THAT(lines, Contains("all   2 ranks             2,400       5.00  2.00 GB     75 %  12 %   0 %"));
}

TEST_F(Frame, WhatFilesHoldCannotMoveTheCursor) {
  EXPECT_THAT(drawn({.columns = 80}), Contains(StartsWith("warnings 2, the last: second \\x1b[2J")));
  EXPECT_THAT(text({.columns = 80}), Not(HasSubstr("\x1b")));
}

TEST_F(Frame, ColoursDoNotCountAsWidth) {
  const std::string coloured = text({.columns = 40, .rows = 12, .colours = true});
  EXPECT_THAT(coloured, HasSubstr("\x1b[32mrunning\x1b[0m"));
  std::string plain;
  for (size_t i = 0; i < coloured.size(); ++i) {
    if (coloured[i] == '\x1b') i = coloured.find('m', i) + 1;
    for (; i < coloured.size() && coloured[i] == '\x1b';) i = coloured.find('m', i) + 1;
    if (i < coloured.size()) plain += coloured[i];
  }
  EXPECT_EQ(plain, text({.columns = 40, .rows = 12}));
}

TEST_F(Frame, FitsEveryWidthAndHeight) {
  for (size_t columns = 1; columns <= 120; ++columns) {
    for (const size_t rows : {size_t{1}, size_t{2}, size_t{5}, size_t{12}, size_t{24}, size_t{50}}) {
      const std::vector<std::string> lines = drawn({.columns = columns, .rows = rows, .unicode = true, .footer = "q"});
      EXPECT_LE(lines.size(), rows) << columns;
      for (const std::string& line : lines) EXPECT_LE(metrics::display_width(line), columns) << rows;
      EXPECT_EQ(lines.back(), "q");
    }
  }
}

TEST_F(Frame, ALowScreenKeepsWhatMattersMost) {
  const std::string shown = text({.columns = 40, .rows = 7});
  for (const char* kept : {"running", "step     60 of 100", "loss", "eval", "tokens/s", "all"})
    EXPECT_THAT(shown, HasSubstr(kept));
  EXPECT_THAT(shown, Not(HasSubstr("warnings")));
}

TEST_F(Frame, ANarrowScreenKeepsTheTimeLeftAndTheNameOfTheRun) {
  const std::vector<std::string> lines = drawn({.columns = 40});
  EXPECT_THAT(lines[0], AllOf(StartsWith("run ~runs/mine  "), HasSubstr("running")));
  EXPECT_THAT(lines, Contains("step     60 of 100, about 00:20 left"));
  EXPECT_THAT(drawn({.columns = 56}), Contains("step     60 of 100 (60.0 %), about 00:20 left"));
  EXPECT_THAT(drawn({.columns = 30}), Contains("step     60 of 100, 00:20 left"));
}

TEST_F(Frame, AnEndedRunTellsWhyAndWhatIsNext) {
  history_.take(
      {{"event", "run_end"}, {"status", "failed"}, {"step", 61}, {"reason", "loss is NaN"}, {"time", 1063.0}});
  told_ = describe_run("/nowhere/runs/mine", history_, {});
  const std::vector<std::string> lines = drawn({.columns = 80});
  EXPECT_THAT(lines[0], HasSubstr("failed, 00:00 ago"));
  EXPECT_THAT(lines, Contains("reason   loss is NaN"));
  EXPECT_THAT(lines, Contains("next     there is no checkpoint: the same train command starts over"));
}

TEST_F(Frame, ARunThatHasLoggedNothingIsShown) {
  RunHistory empty("runs/new");
  const ordered_json told = describe_run("/nowhere/runs/new", empty, {"process 9", true});
  EXPECT_THAT(draw_frame(empty, {told, {}, 0.0, 0.0}, {.columns = 60}),
              testing::ElementsAre(AllOf(StartsWith("run /nowhere/runs/new"), HasSubstr("running")),
                                   "job      process 9", "", "step     0", ""));
}

TEST(BestEvaluation, FollowsTheMetricItsSetAndItsDirection) {
  RunHistory history("runs/mine");
  for (const int step : {1, 2, 3}) {
    history.take({{"event", "eval"},
                  {"step", step},
                  {"eval_dev_samples", 4},
                  {"eval_dev_loss", step * 1.0},
                  {"eval_dev_macro_f1", step * 0.1}});
    history.take({{"event", "eval"},
                  {"step", step},
                  {"eval_hard_samples", 4},
                  {"eval_hard_loss", step == 2 ? 0.5 : 4.0},
                  {"eval_hard_macro_f1", nullptr}});
  }
  const auto best = [&](const char* metric, const char* greater = "") {
    const auto found = best_evaluation(history.record(), {{"trainer_config.metric_for_best_model", metric},
                                                          {"trainer_config.greater_is_better", greater}});
    return found ? fmt::format("{} {:g} at {}", found->metric, found->value, found->step) : "none";
  };
  EXPECT_EQ(best("dev_loss"), "eval_dev_loss 1 at 1");
  EXPECT_EQ(best("eval_hard_loss"), "eval_hard_loss 0.5 at 2");
  EXPECT_EQ(best("dev_f1"), "eval_dev_macro_f1 0.3 at 3");
  EXPECT_EQ(best("dev_f1", "false"), "eval_dev_macro_f1 0.1 at 1");
  EXPECT_EQ(best("hard_f1"), "none");
  EXPECT_EQ(best("accuracy"), "none");
}

TEST(DeviceRows, CountTheDevicesForWhichThereIsNoRoom) {
  EXPECT_THAT(device_rows(devices(64), 80, 66), SizeIs(66));
  const std::vector<std::string> few = device_rows(devices(64), 80, 6);
  ASSERT_THAT(few, SizeIs(6));
  EXPECT_THAT(few[3], StartsWith("2     node1"));
  EXPECT_EQ(few[4], "... 61 more");
  EXPECT_THAT(few[5], AllOf(StartsWith("all   64 ranks"), HasSubstr("76,800"), HasSubstr("64.00 GB")));
  EXPECT_THAT(device_rows(devices(64), 80, 2), testing::ElementsAre(StartsWith("rank"), StartsWith("all ")));
  EXPECT_THAT(device_rows(devices(64), 80, 1), IsEmpty());
  EXPECT_THAT(device_rows(nullptr, 80, 9), IsEmpty());
  EXPECT_THAT(device_rows(devices(1), 80, 2), SizeIs(2));
}

TEST(DeviceRows, ANarrowTableKeepsRankTokensAndMemory) {
  EXPECT_EQ(device_rows(devices(1), 39, 9)[0], "rank  device  tokens/s   memory");
  EXPECT_EQ(device_rows(devices(1), 8, 9)[0], "tokens/s");
}

TEST(DeviceRows, UnknownValuesAreDashes) {
  const auto rows = device_rows(ordered_json::array({{{"rank", 0}, {"tokens_per_s", nullptr}}, 7}), 80, 9);
  ASSERT_THAT(rows, SizeIs(2));
  EXPECT_THAT(rows[1], AllOf(StartsWith("0     ?     ?"), HasSubstr(" - ")));
}

}  // namespace
}  // namespace neoloom::launch
