// SPDX-License-Identifier: Apache-2.0
#include "runtime/checkpoint/state_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <hdf5.h>

#include <chrono>
#include <cstring>
#include <limits>
#include <thread>

#include "runtime/checkpoint/directory.h"
#include "runtime/hdf5/image.h"
#include "runtime/hdf5/objects.h"
#include "tests/unit/checkpoint/fixtures.h"

namespace neoloom::checkpoint {
namespace {

using testing::HasSubstr;
constexpr auto kKind = core::ErrorKind::kCheckpoint;

TEST(StateFile, EveryFieldComesBack) {
  const ScratchFolder folder;
  const State state = make_state(42);
  const Published published = Directory(folder.path()).publish(state);
  EXPECT_TRUE(equal(load(published.path), state));
}

TEST(StateFile, TheBestParametersOfAnEarlierStepComeBack) {
  const ScratchFolder folder;
  State state = make_state(42);
  for (const float value : state.params) state.best_params.push_back(value * 0.5F);
  const std::string path = Directory(folder.path()).publish(state).path;
  EXPECT_TRUE(equal(load(path), state));
  state.best_params.pop_back();
  EXPECT_THROW(Directory(folder.path()).publish(state), core::Error);
}

TEST(StateFile, TheInitialParametersComeBackWithAndWithoutTheBestOnes) {
  const ScratchFolder folder;
  State state = make_state(42);
  for (const float value : state.params) state.initial_params.push_back(value * 0.25F);
  EXPECT_TRUE(equal(load(Directory(folder.path()).publish(state).path), state));
  state.best_params = state.params;
  EXPECT_TRUE(equal(load(Directory(folder.path()).publish(state).path), state));
  state.initial_params.pop_back();
  EXPECT_THROW(Directory(folder.path()).publish(state), core::Error);
}

TEST(StateFile, TheVersionSaysWhichOptionalArraysThereAre) {
  const ScratchFolder folder;
  const auto version_of = [&](const State& state) {
    const hdf5::File file(H5Fopen(Directory(folder.path()).publish(state).path.c_str(), H5F_ACC_RDONLY, H5P_DEFAULT));
    return hdf5::read_int_attribute(file.get(), "format_version", kKind);
  };
  State state = make_state(4);
  EXPECT_EQ(version_of(state), 1) << "an older neoloom reads it";
  state.best_params = state.params;
  EXPECT_EQ(version_of(state), 2);
  state.initial_params = state.params;
  EXPECT_EQ(version_of(state), 4);
  state.best_params.clear();
  EXPECT_EQ(version_of(state), 3);
  state.optimizer = "lion";
  EXPECT_EQ(version_of(state), 7);
}

TEST(StateFile, MomentsOfOtherOptimizersComeBack) {
  const ScratchFolder folder;
  State state = make_state(42);
  state.optimizer = "adamw_8bit";
  state.exp_avg = {0.5F};
  state.exp_avg_sq = {0.25F};
  state.exp_avg_codes.assign(state.params.size(), 17);
  state.exp_avg_sq_codes.assign(state.params.size(), 255);
  EXPECT_TRUE(equal(load(Directory(folder.path()).publish(state).path), state));
  state.best_params = state.params;
  EXPECT_TRUE(equal(load(Directory(folder.path()).publish(state).path), state));
  state.optimizer = "sgd";
  state.exp_avg.clear();
  state.exp_avg_sq.clear();
  state.exp_avg_codes.clear();
  state.exp_avg_sq_codes.clear();
  EXPECT_TRUE(equal(load(Directory(folder.path()).publish(state).path), state));
  state.exp_avg_codes.assign(3, 0);
  EXPECT_THROW(Directory(folder.path()).publish(state), core::Error);
}

TEST(StateFile, EveryBitOfANumberComesBack) {
  const ScratchFolder folder;
  State state = make_state(1);
  const uint32_t odd_nan = 0x7fc12345;
  std::memcpy(&state.params[0], &odd_nan, sizeof odd_nan);
  state.params[1] = -0.0F;
  state.params[2] = std::numeric_limits<float>::denorm_min();
  state.best_metric = std::numeric_limits<double>::infinity();
  const State loaded = load(Directory(folder.path()).publish(state).path);
  EXPECT_EQ(std::memcmp(loaded.params.data(), state.params.data(), state.params.size() * sizeof(float)), 0);
  EXPECT_EQ(loaded.best_metric, state.best_metric);
}

TEST(StateFile, AStateWithoutTensorsAndTextsComesBack) {
  const ScratchFolder folder;
  const State empty;
  EXPECT_TRUE(equal(load(Directory(folder.path()).publish(empty).path), empty));
}

TEST(StateFile, EqualStatesMakeEqualBytesOnAnotherDay) {
  const ScratchFolder first, second;
  const State state = make_state(7, 400000);
  const std::string a = read_bytes(Directory(first.path()).publish(state).path);
  std::this_thread::sleep_for(std::chrono::milliseconds(1100));
  const std::string b = read_bytes(Directory(second.path()).publish(state).path);
  EXPECT_TRUE(a == b);
  EXPECT_GT(a.size(), 400000 * 12);
}

TEST(StateFile, AStateThatContradictsItselfIsNotWritten) {
  const ScratchFolder folder;
  State state = make_state(1);
  state.exp_avg.pop_back();
  EXPECT_THROW(Directory(folder.path()).publish(state), core::Error);
  state = make_state(1);
  state.index[1].offset_elements = 90;
  EXPECT_THROW(Directory(folder.path()).publish(state), core::Error);
  EXPECT_THAT(folder.names(), testing::IsEmpty());
}

// Publishes a good checkpoint, lets `change` alter a copy of its HDF5 content, signs that, and returns load()'s
// refusal.
std::string refusal_after(const std::function<void(hid_t)>& change) {
  const ScratchFolder folder;
  const std::string path = Directory(folder.path()).publish(make_state(5)).path;
  {
    const hdf5::File file(H5Fopen(path.c_str(), H5F_ACC_RDWR, H5P_DEFAULT));
    change(file.get());
  }
  sign(path);
  return refusal([&] { load(path); });
}

TEST(StateFile, ANewerFormatIsNamedAndNeverSkipped) {
  const ScratchFolder folder;
  const Directory directory(folder.path());
  directory.publish(make_state(5));
  const std::string newer = directory.publish(make_state(6)).path;
  {
    const hdf5::File file(H5Fopen(newer.c_str(), H5F_ACC_RDWR, H5P_DEFAULT));
    H5Adelete(file.get(), "format_version");
    hdf5::write_attribute(file.get(), "format_version", kFormatVersion + 1, kKind);
  }
  sign(newer);
  EXPECT_THAT(refusal([&] { load(newer); }), HasSubstr("format version is 9"));
  EXPECT_THAT(refusal([&] { directory.newest_valid([](const auto&, const auto&) { FAIL() << "not a bad file"; }); }),
              HasSubstr("format version is 9"));
}

TEST(StateFile, AnotherProgramsFileIsRefused) {
  EXPECT_THAT(refusal_after([](hid_t file) {
                H5Adelete(file, "format");
                hdf5::write_attribute(file, "format", std::string_view("something"), kKind);
              }),
              HasSubstr("something"));
}

TEST(StateFile, MissingAndUnknownMembersAreListed) {
  EXPECT_THAT(refusal_after([](hid_t file) { H5Ldelete(file, "exp_avg", H5P_DEFAULT); }), HasSubstr("expected ["));
  EXPECT_THAT(refusal_after([](hid_t file) { hdf5::write_text(file, "extra", "x", kKind); }), HasSubstr("extra"));
}

TEST(StateFile, LinksInsteadOfDataAreRefused) {
  EXPECT_THAT(refusal_after([](hid_t file) {
                H5Ldelete(file, "params", H5P_DEFAULT);
                H5Lcreate_external("other.h5", "/params", file, "params", H5P_DEFAULT, H5P_DEFAULT);
              }),
              HasSubstr("link"));
}

TEST(StateFile, AMomentOfAnotherLengthIsRefused) {
  EXPECT_THAT(refusal_after([](hid_t file) {
                H5Ldelete(file, "exp_avg", H5P_DEFAULT);
                const std::vector<float> few(3);
                hdf5::write_array(file, "exp_avg", hdf5::array_view<float>(few), kKind);
              }),
              HasSubstr("exp_avg has 3 elements"));
}

TEST(StateFile, AnIndexThatPointsOutsideIsRefused) {
  EXPECT_THAT(refusal_after([](hid_t file) {
                H5Ldelete(file, "index/offset", H5P_DEFAULT);
                const hdf5::Group index = hdf5::open_group(file, "index", kKind);
                const std::vector<int64_t> offsets = {0, std::numeric_limits<int64_t>::max()};
                hdf5::write_array(index.get(), "offset", hdf5::array_view<int64_t>(offsets), kKind);
              }),
              HasSubstr("does not fit"));
}

}  // namespace
}  // namespace neoloom::checkpoint
