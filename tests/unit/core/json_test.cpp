// SPDX-License-Identifier: Apache-2.0
#include "runtime/core/json.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace neoloom::core {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

std::string repeated(const std::string& text, size_t count) {
  std::string result;
  for (size_t i = 0; i < count; ++i) result += text;
  return result;
}

std::string refusal(const std::string& text) {
  try {
    parse_json(text, "the file", ErrorKind::kWeights);
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kWeights);
    return error.what();
  }
  return "";
}

TEST(Json, WhatIsNestedNoDeeperThanTheLimitIsParsed) {
  EXPECT_EQ(refusal(fmt::format("{}{}", repeated("[", kMaxJsonDepth), repeated("]", kMaxJsonDepth))), "");
  EXPECT_EQ(refusal(fmt::format("{}1{}", repeated("{\"a\":", kMaxJsonDepth), repeated("}", kMaxJsonDepth))), "");
  EXPECT_EQ(refusal(fmt::format("[{}1]", repeated("[[]],", 1000))), "") << "brackets that close do not nest";
}

TEST(Json, FiveMillionLevelsAreRefusedWithoutBuildingThem) {
  for (const char* opening : {"[", "{\"a\":", "[{\"b\":"}) {
    EXPECT_EQ(refusal(repeated(opening, 5'000'000)), "the file: nested deeper than 100 levels");
  }
}

TEST(Json, BracketsInsideStringsDoNotCount) {
  EXPECT_EQ(refusal(fmt::format(R"(["{}", "\"{}"])", repeated("[{", 1000), repeated("[", 1000))), "");
  EXPECT_EQ(refusal("\"\\\\\""), "");
}

TEST(Json, MoreValuesThanMemoryIsMeantForAreRefused) {
  EXPECT_EQ(refusal(fmt::format("[{}0]", repeated("[],", kMaxJsonValues / 2 - 1))), "");
  EXPECT_EQ(refusal(fmt::format("[{}0]", repeated("0,", kMaxJsonValues))), "the file: more than 4000000 values");
}

TEST(Json, ASyntaxErrorIsOneShortLineOfPlainCharacters) {
  EXPECT_THAT(refusal("{\"a\": tru}"),
              AllOf(HasSubstr("the file: not valid JSON: parse error at line 1"), Not(HasSubstr("json.exception"))));
  const std::string complaint = refusal(fmt::format("[\"{}\n", repeated("\xC3\xA9", 1'000'000)));
  EXPECT_LT(complaint.size(), 250U);
  for (const char letter : complaint) EXPECT_TRUE(letter >= ' ' && letter <= '~') << complaint;
}

TEST(Json, IntegersBeyondSixtyFourBitsAreNotTakenForNegativeOnes) {
  const auto within = [](const char* text, int64_t least, int64_t most) {
    return json_integer_within(nlohmann::json::parse(text), least, most);
  };
  EXPECT_TRUE(within("-1", -1, 10));
  EXPECT_TRUE(within("10", -1, 10));
  EXPECT_TRUE(within("9223372036854775807", 0, INT64_MAX));
  for (const char* text : {"-2", "11", "18446744073709551615", "9223372036854775808", "1.0", "\"1\"", "null", "1e3"}) {
    EXPECT_FALSE(within(text, -1, 10)) << text;
  }
  EXPECT_FALSE(within("18446744073709551615", INT64_MIN, INT64_MAX));
}

}  // namespace
}  // namespace neoloom::core
