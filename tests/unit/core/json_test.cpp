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

}  // namespace
}  // namespace neoloom::core
