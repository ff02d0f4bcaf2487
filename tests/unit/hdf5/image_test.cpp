// SPDX-License-Identifier: Apache-2.0
#include "runtime/hdf5/image.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <hdf5.h>

#include <numeric>
#include <thread>
#include <vector>

#include "runtime/hdf5/objects.h"

namespace neoloom::hdf5 {
namespace {

constexpr auto kKind = core::ErrorKind::kCheckpoint;

std::vector<std::byte> build(size_t elements, size_t expected_bytes = 0) {
  std::vector<float> values(elements);
  std::iota(values.begin(), values.end(), 0.5F);
  ImageWriter writer(expected_bytes, kKind);
  write_array(writer.file(), "values", array_view<float>(values), kKind);
  write_text(writer.file(), "text", "two\nlines", kKind);
  write_attribute(writer.file(), "step", int64_t{7}, kKind);
  const ImageBytes image = writer.finish();
  return {image.bytes().begin(), image.bytes().end()};
}

TEST(Image, WhatWasWrittenIsReadBack) {
  const std::vector<std::byte> bytes = build(1000);
  const ImageReader reader(bytes, kKind);
  EXPECT_THAT(member_names(reader.file(), kKind), testing::ElementsAre("text", "values"));
  ASSERT_THAT(array_shape(reader.file(), "values", Element::kFloat32, bytes.size(), kKind), testing::ElementsAre(1000));
  std::vector<float> values(1000);
  read_array(reader.file(), "values", Element::kFloat32, values.data(), kKind);
  EXPECT_EQ(values[0], 0.5F);
  EXPECT_EQ(values[999], 999.5F);
  EXPECT_EQ(read_text(reader.file(), "text", bytes.size(), kKind), "two\nlines");
  EXPECT_EQ(read_int_attribute(reader.file(), "step", kKind), 7);
}

TEST(Image, EqualContentMakesEqualBytesEvenASecondLater) {
  const std::vector<std::byte> first = build(600000);
  std::this_thread::sleep_for(std::chrono::milliseconds(1100));
  EXPECT_EQ(first, build(600000));
  EXPECT_EQ(first, build(600000, size_t{4} << 20)) << "the size of the growing buffer must not show";
}

TEST(Image, NoObjectStaysOpenAfterFinish) {
  build(10);
  EXPECT_EQ(H5Fget_obj_count(H5F_OBJ_ALL, H5F_OBJ_ALL), 0);
}

TEST(Image, AnObjectLeftOpenIsAnErrorAndNotATornImage) {
  ImageWriter writer(0, kKind);
  Group group = create_group(writer.file(), "group", kKind);
  EXPECT_THROW(writer.finish(), core::Error);
  group.reset();
  EXPECT_FALSE(writer.finish().bytes().empty());
}

TEST(Image, BytesThatAreNoHdf5FileAreRefused) {
  const std::vector<std::byte> zeros(4096);
  EXPECT_THROW(ImageReader(zeros, kKind), core::Error);
  EXPECT_THROW(ImageReader(std::span<const std::byte>(), kKind), core::Error);
}

TEST(Image, AFailedCallNamesTheCallAndHdf5sReason) {
  prepare_library();
  try {
    NL_H5(kKind, H5Fopen("/nonexistent/file.h5", H5F_ACC_RDONLY, H5P_DEFAULT));
    FAIL() << "opening a missing file must fail";
  } catch (const core::Error& error) {
    EXPECT_EQ(error.kind(), kKind);
    EXPECT_THAT(error.what(), testing::HasSubstr("H5Fopen("));
    EXPECT_THAT(error.what(), testing::HasSubstr("No such file or directory"));
  }
}

TEST(Image, InMemoryOfTheCallerItHasTheSameBytes) {
  std::vector<float> values(600000);
  std::iota(values.begin(), values.end(), 0.5F);
  std::vector<std::byte> memory(size_t{4} << 20);
  ImageWriter writer(memory, kKind);
  write_array(writer.file(), "values", array_view<float>(values), kKind);
  write_text(writer.file(), "text", "two\nlines", kKind);
  write_attribute(writer.file(), "step", int64_t{7}, kKind);
  memory.resize(writer.finish_in_place());
  EXPECT_EQ(memory, build(600000));
}

TEST(Image, WhatDoesNotFitIntoTheMemoryFailsAndTheLibraryLivesOn) {
  const std::vector<float> values(600000);
  std::vector<std::byte> memory(size_t{1} << 20);
  EXPECT_THROW(
      {
        ImageWriter writer(memory, kKind);
        write_array(writer.file(), "values", array_view<float>(values), kKind);
        writer.finish_in_place();
      },
      core::Error);
  EXPECT_FALSE(build(10).empty());
}

}  // namespace
}  // namespace neoloom::hdf5
