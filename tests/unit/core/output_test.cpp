// SPDX-License-Identifier: Apache-2.0
#include "runtime/core/output.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <iterator>

#include "runtime/core/error.h"
#include "runtime/core/files.h"
#include "runtime/core/unique_handle.h"

namespace neoloom::core {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

class Outputs : public ::testing::Test {
 protected:
  Outputs() {
    std::string pattern = (fs::temp_directory_path() / "neoloom-output-XXXXXX").string();
    EXPECT_NE(::mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
  }
  ~Outputs() override { fs::remove_all(folder_); }
  std::string path(const std::string& name) const { return folder_ + "/" + name; }
  std::string folder_;
};

void expect_output_error(const std::function<void()>& act, const std::string& part) {
  try {
    act();
    FAIL() << "no error was thrown";
  } catch (const Error& error) {
    EXPECT_EQ(error.exit_code(), 74) << error.what();
    EXPECT_THAT(error.what(), HasSubstr(part));
  }
}

TEST_F(Outputs, AFullDeviceIsAnErrorOfTheLastFlush) {
  const UniqueFd full(::open("/dev/full", O_WRONLY));
  Output output(full.get(), "the result");
  output.write("one line\n");
  expect_output_error([&] { output.finish(); }, "cannot write to the result: No space left on device");
}

TEST_F(Outputs, AClosedDescriptorIsAnError) {
  Output output(999, "standard output");
  output.write("one line\n");
  expect_output_error([&] { output.finish(); }, "standard output: it is closed");
}

TEST_F(Outputs, AResultInPiecesReplacesAFileOnlyAtTheEnd) {
  publish_file(path("result"), "old");
  {
    ResultFile given_up(path("result"));
    given_up.write("never seen");
  }
  ResultFile file(path("result"));
  file.write("one ");
  file.write("two");
  EXPECT_EQ(read_file(path("result")), "old");
  file.finish();
  EXPECT_EQ(read_file(path("result")), "one two");
  EXPECT_EQ(std::distance(fs::directory_iterator(folder_), fs::directory_iterator()), 1) << "no temporary file stays";
}

TEST_F(Outputs, PiecesForADeviceAreWrittenAtOnce) {
  ResultFile full("/dev/full");
  expect_output_error([&] { full.write("one line\n"); }, "cannot write to /dev/full: No space left on device");
}

TEST_F(Outputs, WhatIsLargerThanTheBufferArrivesInOrder) {
  const UniqueFd file(::open(path("out").c_str(), O_WRONLY | O_CREAT, 0644));
  Output output(file.get(), "out");
  std::string expected;
  for (int i = 0; i < 40'000; ++i) {
    output.print("{}\n", i);
    expected += std::to_string(i) + "\n";
  }
  output.finish();
  EXPECT_EQ(read_file(path("out")), expected);
}

TEST_F(Outputs, AReaderThatWentAwayEndsTheProcessBySigpipeWithoutAMessage) {
  const auto write_to_nobody = [] {
    std::signal(SIGPIPE, SIG_IGN);  // as some parents leave it
    std::array<int, 2> ends{};
    if (::pipe(ends.data()) != 0) std::_Exit(1);
    ::close(ends[0]);
    Output output(ends[1], "pipe");
    output.write("nobody reads this\n");
    output.finish();
  };
  EXPECT_EXIT(write_to_nobody(), ::testing::KilledBySignal(SIGPIPE), "^$");
}

TEST_F(Outputs, AResultFileIsThereAsAWholeAndALinkStaysALink) {
  fs::create_symlink("real.json", path("link.json"));
  publish_file(path("real.json"), "old");
  write_output_file(path("link.json"), "new");
  EXPECT_TRUE(fs::is_symlink(path("link.json")));
  EXPECT_EQ(read_file(path("real.json")), "new");
}

TEST_F(Outputs, ADeviceOrAPipeIsWrittenToAndNotReplaced) {
  ASSERT_EQ(::mkfifo(path("pipe").c_str(), 0600), 0);
  const UniqueFd reader(::open(path("pipe").c_str(), O_RDONLY | O_NONBLOCK));
  prepare_output_file(path("pipe"));
  write_output_file(path("pipe"), "hello");
  std::array<char, 16> read{};
  EXPECT_EQ(::read(reader.get(), read.data(), read.size()), 5);
  EXPECT_TRUE(fs::is_fifo(path("pipe")));
  expect_output_error([&] { write_output_file("/dev/full", "hello"); }, "/dev/full");
  struct stat status {};
  EXPECT_EQ(::stat("/dev/full", &status), 0);
  EXPECT_TRUE(S_ISCHR(status.st_mode));
}

TEST_F(Outputs, APathThatCannotBeWrittenIsKnownBeforeTheWork) {
  publish_file(path("file"), "x");
  expect_output_error([&] { prepare_output_file(path("file/below/out.json")); }, "file/below");
  expect_output_error([&] { prepare_output_file(folder_); }, "is a folder");
  prepare_output_file(path("new/deep/out.json"));
  EXPECT_TRUE(fs::is_directory(path("new/deep")));
}

}  // namespace
}  // namespace neoloom::core
