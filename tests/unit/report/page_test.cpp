// SPDX-License-Identifier: Apache-2.0
#include "launch/report/page.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <fstream>

#include "runtime/core/error.h"
#include "tests/support/scratch.h"

namespace neoloom::launch {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;
using testing::SizeIs;

class RunFolder : public testing::Test {
 protected:
  void write(const std::string& lines) { std::ofstream(folder_.path("metrics.jsonl")) << lines; }
  RunRecord read() { return read_run(folder_.path(), "mine"); }
  std::vector<int64_t> steps() {
    std::vector<int64_t> steps;
    const RunRecord run = read();
    for (const TrainPoint& point : points_of(run.train)) steps.push_back(point.step);
    return steps;
  }
  ScratchFolder folder_;
};

TEST_F(RunFolder, AResumeDropsTheStepsBeyondIt) {
  write(R"({"event":"run_start"}
{"event":"train","step":1,"loss":3}
{"event":"eval","step":2,"eval_samples":4,"eval_loss":2}
{"event":"train","step":2,"loss":2}
{"event":"run_start"}
{"event":"resume","step":1}
{"event":"train","step":2,"loss":2.5}
)");
  EXPECT_THAT(steps(), ElementsAre(1, 2));
  const RunRecord run = read();
  EXPECT_EQ(last_of(run.train).loss, 2.5);
  EXPECT_TRUE(run.validation.at(0).points.empty());
  EXPECT_THAT(points_of(run.progress), SizeIs(3));
  EXPECT_EQ(run.state(), "no end");
}

TEST_F(RunFolder, AStartWithoutAResumeBeginsAnew) {
  write(R"({"event":"run_start"}
{"event":"train","step":1}
{"event":"train","step":2}
{"event":"run_start"}
{"event":"train","step":1}
)");
  EXPECT_THAT(steps(), ElementsAre(1));
}

TEST_F(RunFolder, OfALongRunItKeepsThousandsOfLogLines) {
  constexpr int64_t kLines = 50'000;
  std::string lines = "{\"event\":\"run_start\"}\n";
  for (int64_t step = 1; step <= kLines; ++step) {
    lines += fmt::format(
        R"({{"event":"train","step":{},"epoch":0.5,"loss":{},"grad_norm":1.0,"learning_rate":1e-3,"devices":[{{"rank":0,"host":"a","device":"cpu","tokens_per_s":{}}}],"time":{}.5}})",
        step, step == 12'345 ? 99 : 1, step, step);
    lines += '\n';
  }
  write(lines);
  const RunRecord run = read();
  const std::vector<TrainPoint> points = points_of(run.train);
  EXPECT_LT(points.size(), 8 * TrainSeries::kMost);
  EXPECT_EQ(std::count_if(points.begin(), points.end(), [](const TrainPoint& point) { return point.loss == 99; }), 1);
  EXPECT_EQ(last_of(run.train).step, kLines);
  const std::vector<DeviceLine>& devices = run.device_lines.stretches();
  EXPECT_GE(devices.size(), TrainSeries::kMost / 2);
  EXPECT_LE(devices.size(), TrainSeries::kMost);
  for (const DeviceLine& line : devices) {
    ASSERT_EQ(line.devices.size(), 1U) << line.step;
    EXPECT_EQ(line.devices[0].tokens_per_s, static_cast<double>(line.step));
  }
  EXPECT_LE(points_of(run.progress).size(), 4 * TrainSeries::kMost);
  EXPECT_EQ(last_of(run.progress).time_seconds, kLines + 0.5);
  const std::string page = report_page({run});
  EXPECT_LT(page.size(), 1'000'000U);
  EXPECT_THAT(page, HasSubstr("greatest 99 at 12345"));
}

TEST_F(RunFolder, ALineThatIsWrittenOtherwiseCountsAsWell) {
  const std::string devices = R"("devices":[{"rank":0,"host":"a","device":"cpu"}])";
  for (const char* const colon : {":", ": "}) {
    std::string lines;
    for (int step = 1; step <= 3000; ++step) {
      lines += fmt::format("{{\"event\"{0}\"train\",\"step\"{0}{1},\"loss\"{0}0.{1},{2},\"time\"{0}1}}\n", colon, step,
                           devices);
    }
    write(lines + lines);
    const RunRecord run = read();
    EXPECT_EQ(last_of(run.train).step, 3000);
    EXPECT_EQ(last_of(run.train).loss, 0.3);
    double sum = 0.0;
    int64_t count = 0;
    for (const MeanLoss& stretch : run.losses.stretches()) {
      sum += stretch.sum;
      count += stretch.count;
    }
    EXPECT_EQ(count, 6000) << colon;
    EXPECT_GT(sum, 1000.0);
  }
}

TEST_F(RunFolder, SetsWithNamesAreKeptApart) {
  write(R"({"event":"eval","step":2,"eval_dev_samples":4,"eval_dev_loss":2,"eval_dev_runtime":1}
{"event":"eval","step":2,"eval_my_samples_samples":4,"eval_my_samples_loss":null}
)");
  const RunRecord run = read();
  ASSERT_EQ(run.validation.size(), 2U);
  EXPECT_EQ(run.validation[0].name, "dev");
  EXPECT_EQ(run.validation[0].points.at(0).values.at(1), (std::pair<std::string, double>("loss", 2.0)));
  EXPECT_EQ(run.validation[1].name, "my_samples");
  EXPECT_TRUE(std::isnan(run.validation[1].points.at(0).values.at(1).second));
}

TEST_F(RunFolder, TextOfOthersIsNoMarkup) {
  write(R"({"event":"run_start","labels":["<script>x</script>"]}
{"event":"warning","step":1,"message":"<img src=x onerror=y>"}
{"event":"train","step":1,"loss":1,"devices":[{"rank":0,"host":"<b>","device":"cpu","tokens_per_s":1}]}
{"event":"eval","step":1,"eval_samples":1,"eval_<i>":0.5,"eval_labels":["<script>x</script>"],"eval_per_class":[{"label":"<script>x</script>","rows":1}],"eval_confusion_matrix":[[1]]}
)");
  std::ofstream(folder_.path("config.yaml")) << "data:\n  train: \"</td><script>\"\n";
  const std::string page = report_page({read_run(folder_.path(), "\"><script>")});
  for (const char* markup : {"<script", "<img", "<b>", "<i>"}) EXPECT_THAT(page, Not(HasSubstr(markup)));
  EXPECT_THAT(page, HasSubstr("&lt;script&gt;x&lt;/script&gt;"));
}

TEST_F(RunFolder, EventsOfUnexpectedTypesDoNotEndTheReport) {
  write(R"({"event":"run_start","total_steps":"many","token_lengths":[1,{"from":"a"}],"versions":3,"labels":7}
{"event":7}
{"event":"train","step":"x","loss":"y","devices":[{"rank":"a"},5]}
{"event":"eval","eval_samples":"x","eval_per_class":[5],"eval_labels":3,"eval_confusion_matrix":[5],"eval_calibration":[5]}
{"event":"run_end","status":5,"step":-3}
[1]
not JSON
)");
  EXPECT_THAT(report_page({read(), read()}), HasSubstr("</html>"));
}

TEST_F(RunFolder, ShowsTheMostConfidentMistakesOfTheLastEvaluation) {
  write(R"({"event":"eval","step":1,"eval_samples":3,"eval_labels":["a","b"],"eval_confusion_matrix":[[1,1],[1,0]]}
)");
  folder_.write("mistakes.jsonl", "");
  EXPECT_THAT(report_page({read()}), HasSubstr("There is none."));
  folder_.write("mistakes.jsonl",
                R"({"index":7,"label":"a","score":0.9,"scores":{"b":0.1},"truth":"b","set":"dev","text":"<x>"})"
                "\n");
  const std::string page = report_page({read()});
  EXPECT_THAT(page, HasSubstr("Mistakes of the last evaluation"));
  EXPECT_THAT(page, HasSubstr("<th scope=\"row\">7</th><td>b</td><td>a</td><td>0.9</td><td>0.1</td>"
                              "<td>set: dev; text: &lt;x&gt;</td></tr>"));
}

TEST_F(RunFolder, ShowsTheMostConfidentMistakesOfItsPredictions) {
  write(R"({"event":"eval","step":1,"eval_samples":3,"eval_labels":["a","b"],"eval_confusion_matrix":[[1,1],[1,0]]}
)");
  EXPECT_THAT(report_page({read()}), HasSubstr("There is no mistakes.jsonl in the run folder"));
  std::string rows;
  for (int i = 0; i < 40; ++i) {
    rows += R"({"index":)" + std::to_string(i) + R"(,"label":"a","score":0.)" + std::to_string(50 + i) +
            R"(,"scores":{"a":0.9,"b":0.1},"truth":")" + (i == 39 ? "a" : "b") + R"(","text":"<row>)" +
            std::to_string(i) + "\"}\n";
  }
  folder_.write("predictions.jsonl", rows);
  const std::string page = report_page({read()});
  EXPECT_THAT(page, HasSubstr("39 of 40 rows of predictions.jsonl are labelled wrongly"));
  EXPECT_THAT(page, HasSubstr("<th scope=\"row\">38</th><td>b</td><td>a</td><td>0.88</td><td>0.1</td>"
                              "<td>text: &lt;row&gt;38</td></tr>\n<tr><th scope=\"row\">37</th>"));
  EXPECT_THAT(page, HasSubstr("&lt;row&gt;19<"));
  EXPECT_THAT(page, Not(HasSubstr("&lt;row&gt;18<")));
  EXPECT_THAT(page, Not(HasSubstr("&lt;row&gt;39<")));
  folder_.write("predictions.jsonl", "{\"index\":0,\"label\":\"a\",\"scores\":{\"a\":1},\"truth\":1}\n");
  EXPECT_THAT(report_page({read()}), HasSubstr("No row of predictions.jsonl has its true label"));
}

TEST_F(RunFolder, WithoutEventsIsRefused) {
  try {
    read();
    FAIL();
  } catch (const core::Error& error) {
    EXPECT_EQ(error.kind(), core::ErrorKind::kUsage);
    EXPECT_THAT(error.what(), HasSubstr("has no metrics.jsonl"));
  }
}

TEST(ConfigLines, AreReadWithoutSecrets) {
  const auto config = read_config_lines(
      "# a comment: x\nmodel_config:\n  name: a: b\npeft_config: null\ndata:\n"
      "  hub_token: abc\n  url: https://me:pass@host/x\n");
  EXPECT_EQ(config.at("model_config.name"), "a: b");
  EXPECT_EQ(config.at("peft_config"), "null");
  EXPECT_EQ(config.at("data.hub_token"), "***");
  EXPECT_THAT(config.at("data.url"), Not(HasSubstr("pass")));
}

}  // namespace
}  // namespace neoloom::launch
