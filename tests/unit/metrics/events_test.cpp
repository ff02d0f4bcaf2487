// SPDX-License-Identifier: Apache-2.0
#include "runtime/metrics/events.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>
#include <sstream>
#include <vector>

#include "runtime/core/error.h"
#include "runtime/metrics/text_width.h"

namespace neoloom::metrics {
namespace {

using nlohmann::ordered_json;
using testing::HasSubstr;
using testing::Not;

class EventFile : public testing::Test {
 protected:
  ~EventFile() override { ::unlink(path_.c_str()); }
  std::string content() const {
    std::ostringstream text;
    text << std::ifstream(path_).rdbuf();
    return text.str();
  }
  std::string path_ = testing::TempDir() + "/neoloom-events-" + std::to_string(::getpid()) + ".jsonl";
};

TEST_F(EventFile, KeepsTheOrderOfKeysAndAppendsAcrossStarts) {
  EventLog(path_).write({{"event", "run_start"}, {"world_size", 2}, {"a", 0.1}});
  EventLog(path_).write({{"event", "resume"}, {"step", 7}});
  EXPECT_EQ(content(), "{\"event\":\"run_start\",\"world_size\":2,\"a\":0.1}\n{\"event\":\"resume\",\"step\":7}\n");
}

TEST_F(EventFile, AHalfLineOfAKilledRunDoesNotSwallowTheNextEvent) {
  std::ofstream(path_) << "{\"event\":\"tra";
  EventLog(path_).write({{"event", "resume"}});
  EXPECT_EQ(content(), "{\"event\":\"tra\n{\"event\":\"resume\"}\n");
}

TEST_F(EventFile, BrokenUtf8InANameDoesNotEndTheRun) {
  EventLog(path_).write({{"event", "warning"}, {"text", "bad \xff byte"}});
  EXPECT_TRUE(ordered_json::accept(content()));
}

// Returns what `act` writes to stderr while no file may grow, as on a full disk. stderr is a pipe, which may grow.
std::string stderr_on_a_full_disk(const std::function<void()>& act, rlim_t limit_bytes = 0) {
  int ends[2];
  if (::pipe(ends) != 0) throw std::runtime_error("pipe failed");
  const int saved = ::dup(STDERR_FILENO);
  ::dup2(ends[1], STDERR_FILENO);
  ::close(ends[1]);
  ::signal(SIGXFSZ, SIG_IGN);
  rlimit before{};
  ::getrlimit(RLIMIT_FSIZE, &before);
  rlimit none = before;
  none.rlim_cur = limit_bytes;
  ::setrlimit(RLIMIT_FSIZE, &none);
  act();
  ::setrlimit(RLIMIT_FSIZE, &before);
  ::signal(SIGXFSZ, SIG_DFL);
  ::dup2(saved, STDERR_FILENO);
  ::close(saved);
  std::array<char, 4096> text{};
  const ssize_t got = ::read(ends[0], text.data(), text.size());
  ::close(ends[0]);
  return {text.data(), static_cast<size_t>(std::max<ssize_t>(got, 0))};
}

TEST_F(EventFile, AFullDiskWarnsOnceAndTheRunGoesOn) {
  EventLog log(path_);
  const std::string warned = stderr_on_a_full_disk([&] {
    log.write({{"event", "train"}, {"step", 1}});
    log.write({{"event", "train"}, {"step", 2}});
  });
  EXPECT_THAT(warned, testing::StartsWith("warning: cannot write to metrics.jsonl: File too large"));
  EXPECT_EQ(std::count(warned.begin(), warned.end(), '\n'), 1);
  EXPECT_EQ(content(), "");
  log.write({{"event", "train"}, {"step", 3}});
  EXPECT_EQ(content(),
            "{\"event\":\"train\",\"step\":1}\n{\"event\":\"train\",\"step\":2}\n"
            "{\"event\":\"train\",\"step\":3}\n");
}

TEST_F(EventFile, ALineThatFitsInPartIsCompletedWhenThereIsRoom) {
  EventLog log(path_);
  stderr_on_a_full_disk([&] { log.write({{"event", "train"}, {"step", 1}}); }, 10);
  EXPECT_EQ(content(), "{\"event\":\"");
  log.write({{"event", "train"}, {"step", 2}});
  EXPECT_EQ(content(), "{\"event\":\"train\",\"step\":1}\n{\"event\":\"train\",\"step\":2}\n");
}

TEST_F(EventFile, LinesThatWaitAreBoundedAndTheLostOnesCounted) {
  EventLog log(path_);
  const ordered_json long_line = {{"event", "warning"}, {"message", std::string(EventLog::kMostWaitingBytes / 3, 'x')}};
  stderr_on_a_full_disk([&] {
    for (int i = 0; i < 5; ++i) log.write(long_line);
  });
  log.write({{"event", "train"}, {"step", 2}});
  const std::string text = content();
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 3);
  EXPECT_TRUE(text.ends_with("{\"event\":\"train\",\"step\":2}\n"));
}

TEST_F(EventFile, AFolderInItsPlaceWarnsAndTheLinesFollowWhenItIsGone) {
  ASSERT_EQ(::mkdir(path_.c_str(), 0755), 0);
  EventLog log(path_);
  log.write({{"event", "train"}, {"step", 1}});
  ASSERT_EQ(::rmdir(path_.c_str()), 0);
  log.write({{"event", "train"}, {"step", 2}});
  EXPECT_EQ(content(), "{\"event\":\"train\",\"step\":1}\n{\"event\":\"train\",\"step\":2}\n");
}

TEST_F(EventFile, APathThatCannotBeWrittenIsAUsageError) {
  try {
    EventLog log("/proc/nowhere/metrics.jsonl");
    FAIL() << "nobody can write there";
  } catch (const core::Error& error) {
    EXPECT_EQ(error.kind(), core::ErrorKind::kUsage);
    EXPECT_THAT(error.what(), HasSubstr("/proc/nowhere"));
  }
}

DeviceMeasure measure(int32_t rank) {
  return {rank, "node-a", "cpu", 40, 320, 9000, 10000, 0, 5e12, 8.0, 6.0, 1.0, 0.5, int64_t{3} << 29};
}

TEST(DeviceMeasure, RatesAndSharesAreOfItsOwnTime) {
  const ordered_json json = device_json(measure(3));
  EXPECT_EQ(json.at("rank"), 3);
  EXPECT_EQ(json.at("batches_per_s"), 5.0);
  EXPECT_EQ(json.at("samples_per_s"), 40.0);
  EXPECT_EQ(json.at("tokens_per_s"), 1125.0);
  EXPECT_DOUBLE_EQ(json.at("tflops").get<double>(), 0.625);
  EXPECT_EQ(json.at("compute_share"), 0.75);
  EXPECT_EQ(json.at("comm_share"), 0.125);
  EXPECT_EQ(json.at("data_share"), 0.0625);
  EXPECT_EQ(json.at("padding_share"), 0.1);
  EXPECT_EQ(json.begin().key(), "rank");
}

TEST(DeviceMeasure, ARankThatDidNothingHasRatesOfZero) {
  const ordered_json json = device_json(DeviceMeasure{});
  EXPECT_EQ(json.at("tokens_per_s"), 0.0);
  EXPECT_EQ(json.at("compute_share"), 0.0);
  EXPECT_EQ(json.at("padding_share"), 0.0);
}

TEST(DeviceMeasure, TravelsBetweenRanksUnchanged) {
  DeviceMeasure sent = measure(1);
  sent.seconds = 1.0 / 3.0;
  sent.limit_seconds_per_token = 1.0 / 7.0;
  sent.host = "host \"quoted\" \u00fc";
  const DeviceMeasure got = unpack(pack(sent));
  EXPECT_EQ(device_json(got), device_json(sent));
  EXPECT_EQ(got.seconds, sent.seconds);
  EXPECT_EQ(got.limit_seconds_per_token, sent.limit_seconds_per_token);
  EXPECT_EQ(got.host, sent.host);
  EXPECT_EQ(got.padded_tokens, sent.padded_tokens);
  EXPECT_THROW(unpack("[1,2"), core::Error);
  EXPECT_THROW(unpack("[1,2]"), core::Error);
}

TEST(ShareOfLimit, IsTheGemmsOfAllDevicesOverTheirTime) {
  DeviceMeasure fast = measure(0);  // 9000 tokens in 8 s, of 10000 with padding
  DeviceMeasure slow = measure(1);
  fast.limit_seconds_per_token = 0.0004;
  slow.limit_seconds_per_token = 0.0008;
  EXPECT_DOUBLE_EQ(share_of_limit({fast}).value(), 3.6 / 8.0);
  EXPECT_DOUBLE_EQ(share_of_limit({fast, slow}).value(), (3.6 + 7.2) / 16.0);
  EXPECT_FALSE(share_of_limit({fast, measure(1)})) << "one device without rates";
  EXPECT_FALSE(share_of_limit({}));
}

TEST(DeviceTable, HasOneAlignedRowPerDeviceAndTheirSum) {
  DeviceMeasure slow = measure(1);
  slow.host = "a-node-with-a-long-name";
  slow.flops = 0.0;
  std::istringstream lines(device_table({measure(0), slow}));
  std::vector<std::string> table;
  for (std::string line; std::getline(lines, line);) table.push_back(line);
  ASSERT_EQ(table.size(), 6U) << "header, rule, two devices, rule, sum";
  for (const std::string& line : table) EXPECT_EQ(line.size(), table[0].size()) << line;
  for (const char* unit : {"batches/s", "samples/s", "tokens/s", "padding", "peak mem", "TFLOP/s"}) {
    EXPECT_THAT(table[0], HasSubstr(unit));
  }
  EXPECT_THAT(table[2], testing::AllOf(HasSubstr("1,125"), HasSubstr("10.0%"), HasSubstr("1.61 GB")));
  EXPECT_THAT(table[5], testing::AllOf(HasSubstr("2 hosts"), HasSubstr("2,250"), Not(HasSubstr("GB"))));
}

TEST(DeviceTable, OneDeviceNeedsNoSum) {
  const std::string table = device_table({measure(0)});
  EXPECT_EQ(std::count(table.begin(), table.end(), '\n'), 3);
  EXPECT_EQ(device_table({}), "");
}

TEST(Memory, PeakAndPrivatePartGrowWithWhatIsTouched) {
  const int64_t before = private_resident_bytes();
  std::vector<char> block(size_t{64} << 20, 1);
  EXPECT_GE(private_resident_bytes(), before + (int64_t{60} << 20));
  EXPECT_GE(peak_resident_bytes(), int64_t{64} << 20);
  EXPECT_EQ(block.back(), 1);
}

TEST(TextWidth, CountsColumnsAndNotBytes) {
  EXPECT_EQ(display_width("abc"), 3U);
  EXPECT_EQ(display_width("\u00fcber"), 4U);
  EXPECT_EQ(display_width("\u4e2d\u6587"), 4U);
  EXPECT_EQ(display_width("\U0001F600"), 2U);
  EXPECT_EQ(display_width("e\u0301"), 1U);
  EXPECT_EQ(cut_to_width("\u4e2d\u6587\u4e2d", 5), "\u4e2d\u6587~");
  EXPECT_EQ(cut_to_width("\u4e2d\u6587\u4e2d", 4), "\u4e2d~");
  EXPECT_EQ(cut_front_to_width("runs/mine", 9), "runs/mine");
  EXPECT_EQ(cut_front_to_width("runs/mine", 5), "~mine");
  EXPECT_EQ(cut_front_to_width("\u4e2d\u6587\u4e2d", 4), "~\u4e2d");
  EXPECT_EQ(cut_front_to_width("runs", 0), "");
}

TEST(TextWidth, DurationsAndCountsReadWell) {
  EXPECT_EQ(duration_text(0.2), "00:00");
  EXPECT_EQ(duration_text(754.4), "12:34");
  EXPECT_EQ(duration_text(3600.0 * 5 + 61), "5:01:01");
  EXPECT_EQ(duration_text(3600.0 * 76), "3d 04h");
  EXPECT_EQ(duration_text(-1.0), "--:--");
  EXPECT_EQ(duration_text(1e300), "--:--");
  EXPECT_EQ(with_thousands(999), "999");
  EXPECT_EQ(with_thousands(-1234567), "-1,234,567");
}

}  // namespace
}  // namespace neoloom::metrics
