// SPDX-License-Identifier: Apache-2.0
#include "runtime/checkpoint/directory.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>

#include "runtime/core/error.h"
#include "tests/unit/checkpoint/fixtures.h"

namespace neoloom::checkpoint {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

std::vector<int64_t> steps(const Directory& directory) {
  std::vector<int64_t> found;
  for (const Entry& entry : directory.list()) found.push_back(entry.step);
  return found;
}

void nothing_bad(const std::string& path, const std::string& reason) { ADD_FAILURE() << path << ": " << reason; }

TEST(Directory, AMissingOrEmptyFolderHasNoCheckpointAndIsNoError) {
  const ScratchFolder folder;
  EXPECT_THAT(Directory(folder.path("missing")).list(), IsEmpty());
  EXPECT_FALSE(Directory(folder.path("missing")).newest_valid(nothing_bad).has_value());
  EXPECT_FALSE(Directory(folder.path()).newest_valid(nothing_bad).has_value());
}

TEST(Directory, NamesSortAsNumbersAndStep100IsNewerThan99) {
  EXPECT_EQ(file_name(100), "step-000000000100.h5");
  const ScratchFolder folder;
  const Directory directory(folder.path());
  for (const int64_t step : {100, 9, 99}) directory.publish(make_state(step));
  EXPECT_THAT(steps(directory), ElementsAre(9, 99, 100));
  EXPECT_EQ(directory.newest_valid(nothing_bad)->entry.step, 100);
}

TEST(Directory, NamesThatOnlyLookAlikeAreNotCheckpoints) {
  const ScratchFolder folder;
  for (const char* name : {"step-100.h5", "step-00000000010x.h5", "step-000000000100.h5.bak", "step-+00000000100.h5",
                           "step-0000000000100.h5", ".tmp-x-1-step-000000000100.h5", "step--00000000001.h5"}) {
    write_bytes(folder.path(name), "x");
  }
  EXPECT_THAT(Directory(folder.path()).list(), IsEmpty());
}

TEST(Directory, TheHashFileIsWhatSha256sumReads) {
  const ScratchFolder folder;
  Directory(folder.path()).publish(make_state(3));
  EXPECT_THAT(folder.names(), ElementsAre("step-000000000003.h5", "step-000000000003.sha256"));
  const std::string command = "cd '" + folder.path() + "' && sha256sum --quiet -c step-000000000003.sha256";
  EXPECT_EQ(std::system(command.c_str()), 0);
}

TEST(Directory, ABadCheckpointIsNamedAndTheNextOlderOneIsUsed) {
  const ScratchFolder folder;
  const Directory directory(folder.path());
  directory.publish(make_state(1));
  directory.publish(make_state(2));
  const std::string bad = directory.publish(make_state(3)).path;
  std::string bytes = read_bytes(bad);
  bytes[bytes.size() / 2] ^= 1;
  write_bytes(bad, bytes);
  std::vector<std::string> reported;
  const auto loaded = directory.newest_valid([&](const std::string& path, const std::string& reason) {
    reported.push_back(path);
    EXPECT_THAT(reason, HasSubstr("SHA-256"));
  });
  EXPECT_THAT(reported, ElementsAre(bad));
  EXPECT_TRUE(equal(loaded->state, make_state(2)));
}

TEST(Directory, TheProblemWithAFileIsWhatLoadingWouldSay) {
  const ScratchFolder folder;
  const std::string path = Directory(folder.path()).publish(make_state(1)).path;
  EXPECT_EQ(problem_with(path), "");
  write_bytes(path, read_bytes(path) + "x");
  EXPECT_THAT(refusal([&] { load(path); }), HasSubstr(problem_with(path)));
  EXPECT_THAT(problem_with(path), HasSubstr("its hash file says"));
}

TEST(Directory, FilesWithoutAValidOneAreAnErrorAndNotAFreshStart) {
  const ScratchFolder folder;
  const Directory directory(folder.path());
  std::filesystem::remove(std::filesystem::path(directory.publish(make_state(1)).path).replace_extension(".sha256"));
  write_bytes(directory.publish(make_state(2)).path, "");
  const std::string reason = refusal([&] { directory.newest_valid([](const auto&, const auto&) {}); });
  EXPECT_THAT(reason, HasSubstr("none of the 2 checkpoints"));
  EXPECT_THAT(reason, HasSubstr("hash file"));
}

TEST(Directory, AFileUnderAnotherStepsNameIsRefused) {
  const ScratchFolder folder;
  const Directory directory(folder.path());
  std::filesystem::rename(directory.publish(make_state(1)).path, folder.path(file_name(9)));
  std::filesystem::remove(folder.path("step-000000000001.sha256"));
  sign(folder.path(file_name(9)));
  EXPECT_THAT(refusal([&] { directory.newest_valid([](const auto&, const auto&) {}); }), HasSubstr("its name says 9"));
}

TEST(Directory, PublishingTheSameStateAgainLeavesTheFileAlone) {
  const ScratchFolder folder;
  const Directory directory(folder.path());
  const std::string path = directory.publish(make_state(4)).path;
  const auto before = std::filesystem::last_write_time(path);
  ::usleep(20000);
  directory.publish(make_state(4));
  EXPECT_EQ(std::filesystem::last_write_time(path), before);
  EXPECT_EQ(folder.names().size(), 2U);
}

TEST(Directory, PublishingAStepAgainReplacesADamagedFile) {
  const ScratchFolder folder;
  const Directory directory(folder.path());
  const std::string path = directory.publish(make_state(4)).path;
  write_bytes(path, "damaged");
  directory.publish(make_state(4));
  EXPECT_TRUE(equal(load(path), make_state(4)));
  State other = make_state(4);
  other.history = "[]";
  directory.publish(other);
  EXPECT_TRUE(equal(load(path), other));
}

TEST(Directory, LargeStatesGoStraightToDiskAndAreTheSameState) {
  const ScratchFolder in_memory, straight;
  const State state = make_state(8, 300000);
  Directory(in_memory.path()).publish(state);
  const Published published = Directory(straight.path(), /*largest_image_bytes=*/0).publish(state);
  EXPECT_TRUE(equal(load(published.path), state));
  EXPECT_EQ(published.bytes, std::filesystem::file_size(published.path));
  EXPECT_TRUE(read_bytes(published.path) == read_bytes(in_memory.path(file_name(8))));
}

TEST(Retention, KeepsTheNewestAndTheBest) {
  const ScratchFolder folder;
  const Directory directory(folder.path());
  for (int64_t step = 1; step <= 6; ++step) directory.publish(make_state(step));
  EXPECT_THAT(directory.retain(0, -1), IsEmpty());
  EXPECT_EQ(directory.retain(3, 2).size(), 2U);
  EXPECT_THAT(steps(directory), ElementsAre(2, 4, 5, 6));
  EXPECT_EQ(folder.names().size(), 8U) << "data and hash go together";
}

TEST(Retention, NeverKeepsFewerThanTwo) {
  const ScratchFolder folder;
  const Directory directory(folder.path());
  for (int64_t step = 1; step <= 4; ++step) directory.publish(make_state(step));
  directory.retain(1, -1);
  EXPECT_THAT(steps(directory), ElementsAre(3, 4));
}

TEST(Retention, ADamagedFileDoesNotCountAsOneOfThoseKept) {
  const ScratchFolder folder;
  const Directory directory(folder.path());
  for (int64_t step = 1; step <= 4; ++step) directory.publish(make_state(step));
  write_bytes(folder.path(file_name(4)), "damaged");
  directory.retain(2, -1);
  EXPECT_THAT(steps(directory), ElementsAre(2, 3, 4));
}

TEST(Leftovers, OfEarlierStartsAreRemovedAndOthersStay) {
  const ScratchFolder folder;
  const Directory directory(folder.path());
  directory.publish(make_state(1));
  std::array<char, 256> host{};
  ::gethostname(host.data(), host.size() - 1);
  const std::string living = fmt::format(".tmp-{}-{}-step-000000000002.h5", host.data(), ::getppid());
  write_bytes(folder.path(living), "x");
  write_bytes(folder.path(fmt::format(".tmp-{}-{}-step-000000000002.h5", host.data(), ::getpid())), "x");
  write_bytes(folder.path(fmt::format(".tmp-{}-99999999-step-000000000002.h5", host.data())), "x");
  write_bytes(folder.path(".tmp-another.host-17-step-000000000002.h5"), "x");
  write_bytes(folder.path("step-000000000002.sha256"), "hash whose data was never renamed");
  write_bytes(folder.path("notes.txt"), "the user's");
  directory.remove_leftovers();
  EXPECT_THAT(folder.names(),
              testing::UnorderedElementsAre(living, "step-000000000001.h5", "step-000000000001.sha256", "notes.txt"));
  Directory(folder.path("missing")).remove_leftovers();
}

}  // namespace
}  // namespace neoloom::checkpoint
