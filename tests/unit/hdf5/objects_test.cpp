// SPDX-License-Identifier: Apache-2.0
#include "runtime/hdf5/objects.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <hdf5.h>

#include <functional>
#include <vector>

#include "runtime/hdf5/image.h"

namespace neoloom::hdf5 {
namespace {

using testing::HasSubstr;
constexpr auto kKind = core::ErrorKind::kCheckpoint;
constexpr uint64_t kLimit = 1 << 20;

// Builds an image with `write` and looks at it with `read`.
void round_trip(const std::function<void(Id)>& write, const std::function<void(Id)>& read) {
  ImageWriter writer(0, kKind);
  write(writer.file());
  const ImageBytes image = writer.finish();
  const ImageReader reader(image.bytes(), kKind);
  read(reader.file());
}

std::string reason_of(const std::function<void()>& act) {
  try {
    act();
  } catch (const core::Error& error) {
    return error.what();
  }
  return "nothing was thrown";
}

TEST(Objects, EmptyArraysAndTextsSurvive) {
  const std::vector<float> none;
  round_trip(
      [&](Id file) {
        write_array(file, "none", array_view<float>(none), kKind);
        write_text(file, "empty", "", kKind);
        write_texts(file, "no rows", {}, kKind);
      },
      [&](Id file) {
        EXPECT_THAT(array_shape(file, "none", Element::kFloat32, kLimit, kKind), testing::ElementsAre(0));
        EXPECT_EQ(read_text(file, "empty", kLimit, kKind), "");
        EXPECT_TRUE(read_texts(file, "no rows", kLimit, kKind).empty());
      });
}

TEST(Objects, TextsKeepUnicodeAndUnequalLengths) {
  const std::vector<std::string> texts = {"short", "Klasse \U0001F600", ""};
  round_trip([&](Id file) { write_texts(file, "texts", texts, kKind); },
             [&](Id file) { EXPECT_EQ(read_texts(file, "texts", kLimit, kKind), texts); });
}

TEST(Objects, ATextWithANulIsRefusedRatherThanCut) {
  ImageWriter writer(0, kKind);
  EXPECT_THAT(reason_of([&] { write_text(writer.file(), "text", std::string("a\0b\0", 4), kKind); }), HasSubstr("NUL"));
}

TEST(Objects, AttributesKeepEveryBitOfADouble) {
  round_trip([](Id file) { write_attribute(file, "value", 0x1.fffffffffffffp-1022, kKind); },
             [](Id file) { EXPECT_EQ(read_double_attribute(file, "value", kKind), 0x1.fffffffffffffp-1022); });
}

TEST(Objects, AnotherElementTypeIsRefused) {
  const std::vector<double> values = {1.0};
  round_trip([&](Id file) { write_array(file, "values", array_view<double>(values), kKind); },
             [](Id file) {
               EXPECT_THAT(reason_of([&] { array_shape(file, "values", Element::kFloat32, kLimit, kKind); }),
                           HasSubstr("another element type"));
             });
}

TEST(Objects, AShapeBeyondTheFilesSizeIsRefusedBeforeAnythingIsAllocated) {
  round_trip(
      [](Id file) {
        const hsize_t huge[2] = {hsize_t{1} << 40, hsize_t{1} << 40};
        const Dataspace space(H5Screate_simple(2, huge, nullptr));
        const PropertyList list(H5Pcreate(H5P_DATASET_CREATE));
        const hsize_t chunk[2] = {1, 16};
        H5Pset_chunk(list.get(), 2, chunk);
        const Dataset bomb(H5Dcreate2(file, "bomb", H5T_IEEE_F32LE, space.get(), H5P_DEFAULT, list.get(), H5P_DEFAULT));
        ASSERT_TRUE(bomb.valid());
      },
      [](Id file) {
        EXPECT_THAT(reason_of([&] { array_shape(file, "bomb", Element::kFloat32, kLimit, kKind); }),
                    HasSubstr("declares more data"));
      });
}

TEST(Objects, DataInOtherFilesIsRefused) {
  round_trip(
      [](Id file) {
        const hsize_t size = 4;
        const Dataspace space(H5Screate_simple(1, &size, nullptr));
        const PropertyList list(H5Pcreate(H5P_DATASET_CREATE));
        H5Pset_external(list.get(), "/etc/passwd", 0, 16);
        const Dataset outside(
            H5Dcreate2(file, "outside", H5T_IEEE_F32LE, space.get(), H5P_DEFAULT, list.get(), H5P_DEFAULT));
        ASSERT_TRUE(outside.valid());
      },
      [](Id file) {
        EXPECT_THAT(reason_of([&] { array_shape(file, "outside", Element::kFloat32, kLimit, kKind); }),
                    HasSubstr("in other files"));
      });
}

TEST(Objects, VirtualStorageIsRefused) {
  round_trip(
      [](Id file) {
        const hsize_t size = 4;
        const Dataspace space(H5Screate_simple(1, &size, nullptr));
        const PropertyList list(H5Pcreate(H5P_DATASET_CREATE));
        H5Pset_virtual(list.get(), space.get(), "other.h5", "data", space.get());
        const Dataset view(H5Dcreate2(file, "view", H5T_IEEE_F32LE, space.get(), H5P_DEFAULT, list.get(), H5P_DEFAULT));
        ASSERT_TRUE(view.valid());
      },
      [](Id file) {
        EXPECT_THAT(reason_of([&] { array_shape(file, "view", Element::kFloat32, kLimit, kKind); }),
                    HasSubstr("virtual"));
      });
}

TEST(Objects, FiltersBeyondFletcher32AreRefused) {
  round_trip(
      [](Id file) {
        const hsize_t size = 4;
        const Dataspace space(H5Screate_simple(1, &size, nullptr));
        const PropertyList list(H5Pcreate(H5P_DATASET_CREATE));
        H5Pset_chunk(list.get(), 1, &size);
        H5Pset_deflate(list.get(), 6);
        const Dataset packed(
            H5Dcreate2(file, "packed", H5T_IEEE_F32LE, space.get(), H5P_DEFAULT, list.get(), H5P_DEFAULT));
        ASSERT_TRUE(packed.valid());
      },
      [](Id file) {
        EXPECT_THAT(reason_of([&] { array_shape(file, "packed", Element::kFloat32, kLimit, kKind); }),
                    HasSubstr("only Fletcher32"));
      });
}

TEST(Objects, SoftAndExternalLinksAreRefused) {
  for (const bool external : {false, true}) {
    round_trip(
        [&](Id file) {
          const herr_t made = external
                                  ? H5Lcreate_external("other.h5", "/data", file, "params", H5P_DEFAULT, H5P_DEFAULT)
                                  : H5Lcreate_soft("/elsewhere", file, "params", H5P_DEFAULT, H5P_DEFAULT);
          ASSERT_GE(made, 0);
        },
        [](Id file) {
          EXPECT_THAT(reason_of([&] { member_names(file, kKind); }), HasSubstr("soft or external link"));
        });
  }
}

TEST(Objects, AVariableLengthStringIsRefused) {
  round_trip(
      [](Id file) {
        const Datatype type(H5Tcopy(H5T_C_S1));
        H5Tset_size(type.get(), H5T_VARIABLE);
        const Dataspace space(H5Screate(H5S_SCALAR));
        const Attribute attribute(H5Acreate2(file, "format", type.get(), space.get(), H5P_DEFAULT, H5P_DEFAULT));
        const char* text = "text";
        ASSERT_GE(H5Awrite(attribute.get(), type.get(), &text), 0);
      },
      [](Id file) {
        EXPECT_THAT(reason_of([&] { read_text_attribute(file, "format", kKind); }), HasSubstr("fixed-length"));
      });
}

}  // namespace
}  // namespace neoloom::hdf5
