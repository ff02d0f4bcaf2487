// SPDX-License-Identifier: Apache-2.0
#include "model/checkpoints/safetensors.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <fmt/format.h>

#include <random>

#include "tests/support/scratch.h"

namespace neoloom::model {
namespace {

using core::ErrorKind;
using ::testing::AnyOf;
using ::testing::HasSubstr;

std::string file_with_length(uint64_t length, const std::string& header, size_t data_bytes) {
  std::string file(8, '\0');
  for (int i = 0; i < 8; ++i) file[static_cast<size_t>(i)] = static_cast<char>(length >> (8 * i));
  return file + header + std::string(data_bytes, '\1');
}

std::string file_of(const std::string& header, size_t data_bytes) {
  return file_with_length(header.size(), header, data_bytes);
}

std::string open_error(const std::string& bytes) {
  const ScratchFolder scratch;
  const std::string path = scratch.write("model.safetensors", bytes);
  std::string text = error_of(ErrorKind::kWeights, [&] { const SafetensorsFile file(path); });
  EXPECT_THAT(text, HasSubstr(path));
  return text;
}

TEST(Safetensors, ReadsWhatTheHeaderSays) {
  const ScratchFolder scratch;
  const std::string header = R"({"__metadata__":{"format":"pt"},"b":{"dtype":"I32","shape":[],"data_offsets":[16,20]},)"
                             R"("a":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]}}   )";
  const SafetensorsFile file(scratch.write("x.safetensors", file_of(header, 20)));
  EXPECT_EQ(file.metadata().at("format"), "pt");
  ASSERT_EQ(file.tensors().size(), 2U);
  EXPECT_EQ(file.tensor("b").item<int>(), 0x01010101);
  EXPECT_EQ(file.tensor("a").sizes(), (std::vector<int64_t>{2, 2}));
}

TEST(Safetensors, AnUnalignedHeaderIsNoMisalignedRead) {
  const ScratchFolder scratch;
  for (int padding = 0; padding < 8; ++padding) {
    const std::string header =
        R"({"a":{"dtype":"I64","shape":[2],"data_offsets":[0,16]}})" + std::string(static_cast<size_t>(padding), ' ');
    const SafetensorsFile file(scratch.write("x.safetensors", file_of(header, 16)));
    const at::Tensor values = file.tensor("a");
    EXPECT_EQ(reinterpret_cast<uintptr_t>(values.data_ptr()) % 8, 0U);
    EXPECT_EQ(values[1].item<int64_t>(), 0x0101010101010101);
  }
}

TEST(Safetensors, ATensorOutlivesItsFile) {
  const ScratchFolder scratch;
  at::Tensor values;
  {
    const std::string header = R"({"a":{"dtype":"U8","shape":[3],"data_offsets":[0,3]}} )";
    const SafetensorsFile file(scratch.write("x.safetensors", file_of(header, 3)));
    values = file.tensor("a");
  }
  EXPECT_EQ(values.sum().item<int64_t>(), 3);
}

TEST(Safetensors, EveryBrokenRuleIsNamed) {
  const auto one = [](const std::string& dtype, const std::string& shape, const std::string& offsets) {
    return fmt::format(R"({{"a":{{"dtype":"{}","shape":{},"data_offsets":{}}}}})", dtype, shape, offsets);
  };
  const std::string good = one("F32", "[2]", "[0,8]");
  const auto two = [](const std::string& second) {
    return R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[4],"data_offsets":)" +
           second + "}}";
  };
  EXPECT_THAT(open_error(""), HasSubstr("too few"));
  EXPECT_THAT(open_error("1234567"), HasSubstr("too few"));
  EXPECT_THAT(open_error(file_with_length(uint64_t{1} << 40, good, 8)), HasSubstr("at most 100000000"));
  EXPECT_THAT(open_error(file_with_length(UINT64_MAX, good, 8)), HasSubstr("at most 100000000"));
  EXPECT_THAT(open_error(file_with_length(100'000'000, good, 8)), HasSubstr("truncated"));
  EXPECT_THAT(open_error(file_of(fmt::format(" {}", good), 8)), HasSubstr("does not begin with"));
  EXPECT_THAT(open_error(file_of("[]", 0)), HasSubstr("does not begin with"));
  EXPECT_THAT(open_error(file_of(good + "x", 8)), HasSubstr("not valid UTF-8 JSON"));
  EXPECT_THAT(open_error(file_of("{\"\xff\":1}", 0)), HasSubstr("not valid UTF-8 JSON"));
  EXPECT_THAT(open_error(file_of(good, 7)), HasSubstr("truncated"));
  EXPECT_THAT(open_error(file_of(good, 9)), HasSubstr("longer"));
  EXPECT_THAT(open_error(file_of(two("[2,6]"), 8)), HasSubstr("overlap"));
  EXPECT_THAT(open_error(file_of(two("[5,9]"), 9)), HasSubstr("gap"));
  EXPECT_THAT(open_error(file_of(one("F32", "[2]", "[4,12]"), 12)), HasSubstr("gap"));
  EXPECT_THAT(open_error(file_of(one("F32", "[2]", "[8,0]"), 8)), HasSubstr("backwards"));
  EXPECT_THAT(open_error(file_of(one("F32", "[3]", "[0,8]"), 8)), HasSubstr("ask for 12 bytes"));
  EXPECT_THAT(open_error(file_of(one("F31", "[2]", "[0,8]"), 8)), HasSubstr("unknown dtype 'F31'"));
  EXPECT_THAT(open_error(file_of(one("F32", "[4294967296,4294967296,2]", "[0,0]"), 0)), HasSubstr("64 bits"));
  EXPECT_THAT(open_error(file_of(one("F32", "[4611686018427387904]", "[0,0]"), 0)), HasSubstr("64 bits"));
  EXPECT_THAT(open_error(file_of(one("F32", "[18446744073709551615]", "[0,8]"), 8)), HasSubstr("dimension"));
  EXPECT_THAT(open_error(file_of(one("F32", "[18446744073709551616]", "[0,8]"), 8)), HasSubstr("64-bit"));
  EXPECT_THAT(open_error(file_of(one("F32", "[-2]", "[0,8]"), 8)), HasSubstr("negative"));
  EXPECT_THAT(open_error(file_of(one("F32", "[2.0]", "[0,8]"), 8)), HasSubstr("64-bit"));
  EXPECT_THAT(open_error(file_of(one("F32", "[[2]]", "[0,8]"), 8)), HasSubstr("unexpected an array"));
  EXPECT_THAT(open_error(file_of(one("F32", "\"2\"", "[0,8]"), 8)), HasSubstr("unexpected a string"));
  EXPECT_THAT(open_error(file_of(one("F32", "[2]", "[0,8,9]"), 8)), HasSubstr("more than 2"));
  EXPECT_THAT(open_error(file_of(one("F32", "[2]", "[0]"), 8)), HasSubstr("not two numbers"));
  EXPECT_THAT(open_error(file_of(R"({"a":{"dtype":"U8","shape":[0]}})", 0)), HasSubstr("lacks"));
  EXPECT_THAT(open_error(file_of(R"({"a":{"dtype":"U8","dtype":"U8"}})", 0)), HasSubstr("appears twice"));
  EXPECT_THAT(open_error(file_of(R"({"a":{"dtype":"U8","extra":1}})", 0)), HasSubstr("unknown key 'extra'"));
  EXPECT_THAT(open_error(file_of(R"({"a":7})", 0)), HasSubstr("unexpected a number"));
  EXPECT_THAT(open_error(file_of(R"({"__metadata__":{"a":{}}})", 0)), HasSubstr("unexpected an object"));
  const std::string empty = R"("a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]})";
  EXPECT_THAT(open_error(file_of(fmt::format("{{{},{}}}", empty, empty), 0)), HasSubstr("'a' appears twice"));
  EXPECT_THAT(open_error(file_of(fmt::format("{{{}", std::string(50'000, '[')), 0)), HasSubstr("not valid UTF-8 JSON"));
}

TEST(Safetensors, RefusesToReadDtypesThatNoModelUses) {
  const ScratchFolder scratch;
  const std::string header = R"({"a":{"dtype":"C64","shape":[1],"data_offsets":[0,8]}})";
  const SafetensorsFile file(scratch.write("x.safetensors", file_of(header, 8)));
  EXPECT_THAT(error_of(ErrorKind::kWeights, [&] { file.tensor("a"); }), HasSubstr("C64"));
  EXPECT_THAT(error_of(ErrorKind::kWeights, [&] { file.tensor("b"); }), HasSubstr("no tensor 'b'"));
}

class WrittenFile : public ::testing::Test {
 protected:
  void SetUp() override {
    write_safetensors(scratch_.path("x.safetensors"), {{"half", at::arange(100, at::kHalf).view({10, 10})},
                                                       {"odd", at::arange(7, at::kFloat)},
                                                       {"empty", at::empty({0, 3}, at::kFloat)},
                                                       {"last", at::arange(300, at::kBFloat16)}});
    bytes_ = scratch_.read("x.safetensors");
  }
  ScratchFolder scratch_;
  std::string bytes_;
};

TEST_F(WrittenFile, ReadsBack) {
  const SafetensorsFile file(scratch_.path("x.safetensors"));
  EXPECT_EQ(file.metadata().at("format"), "pt");
  EXPECT_TRUE(at::equal(file.tensor("half"), at::arange(100, at::kHalf).view({10, 10})));
  EXPECT_TRUE(at::equal(file.tensor("odd"), at::arange(7, at::kFloat)));
  EXPECT_EQ(file.tensor("empty").sizes(), (std::vector<int64_t>{0, 3}));
  EXPECT_TRUE(at::equal(file.tensor("last"), at::arange(300, at::kBFloat16)));
  EXPECT_EQ(reinterpret_cast<uintptr_t>(file.tensor("half").data_ptr()) % 64, 0U);
}

TEST_F(WrittenFile, EveryTruncationIsRefused) {
  for (size_t size = 0; size < bytes_.size(); size += size < 64 ? 1 : 64) {
    const std::string text = open_error(bytes_.substr(0, size));
    EXPECT_THAT(text, AnyOf(HasSubstr("truncated"), HasSubstr("too few"))) << size;
  }
}

TEST_F(WrittenFile, RandomDamageOfTheHeaderNeverReadsOutsideTheFile) {
  std::mt19937_64 random(7);
  const size_t header_end = bytes_.size() - 200 - 28 - 600;
  int refused = 0;
  for (int trial = 0; trial < 400; ++trial) {
    std::string damaged = bytes_;
    for (int flips = 0; flips < 3; ++flips) damaged[random() % header_end] ^= static_cast<char>(1U << (random() % 8));
    const std::string path = scratch_.write("damaged.safetensors", damaged);
    try {
      const SafetensorsFile file(path);
      for (const auto& [name, info] : file.tensors()) (void)file.tensor(name).to(at::kFloat).sum().item<float>();
    } catch (const core::Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kWeights);
      ++refused;
    }
  }
  EXPECT_GT(refused, 200);
}

TEST_F(WrittenFile, ValuesThatDoNotFitAreRefusedAndNothingIsPublished) {
  const std::string path = scratch_.path("y.safetensors");
  const auto write = [&](const at::Tensor& value, at::ScalarType dtype) {
    write_safetensors(path, {{"w", dtype, value.sizes().vec(), [value] { return value; }, {}}}, {});
  };
  EXPECT_THAT(error_of(ErrorKind::kWeights, [&] { write(at::full({3}, 1e5F), at::kHalf); }),
              HasSubstr("'w' holds values beyond the range of F16"));
  EXPECT_THAT(error_of(ErrorKind::kWeights, [&] { write(at::full({3}, std::nanf("")), at::kFloat); }),
              HasSubstr("NaN or infinity"));
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(scratch_.path()), {}), 1);
  write(at::full({3}, 1e5F), at::kBFloat16);
  EXPECT_EQ(SafetensorsFile(path).tensor("w").scalar_type(), at::kBFloat16);
}

}  // namespace
}  // namespace neoloom::model
