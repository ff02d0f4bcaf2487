// SPDX-License-Identifier: Apache-2.0
#include "runtime/core/text.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "runtime/core/utf8.h"

namespace neoloom::core {
namespace {

using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::Lt;

TEST(Quoted, BlanksThatCannotBeSeenAreEscaped) {
  EXPECT_EQ(core::quoted("text "), "\"text \"");
  EXPECT_EQ(core::quoted("text\u00a0"), "\"text\\u00a0\"");
  EXPECT_EQ(core::quoted("\uFEFFtext\u200b"), "\"\\ufefftext\\u200b\"");
  EXPECT_EQ(core::quoted("a\tb\r\n\x01"), "\"a\\tb\\r\\n\\x01\"");
  EXPECT_EQ(core::quoted("say \"hi\" \\"), "\"say \\\"hi\\\" \\\\\"");
}

TEST(Quoted, OtherTextStays) { EXPECT_EQ(core::quoted("café 😀 漢字"), "\"café 😀 漢字\""); }

TEST(Quoted, BytesThatAreNotUtf8AreEscaped) { EXPECT_EQ(core::quoted("caf\xe9!"), "\"caf\\xe9!\""); }

TEST(Quoted, LongTextIsCutBetweenCodePoints) {
  EXPECT_EQ(core::quoted("ééé", 5), "\"éé\"...");
  const std::string cut = core::quoted(std::string(2'000'000, 'x'));
  EXPECT_THAT(cut.size(), Lt(220U));
  EXPECT_THAT(cut, EndsWith("x\"..."));
}

TEST(QuotedList, ManyNamesAreCounted) {
  EXPECT_EQ(quoted_list({"a", "b "}), "\"a\", \"b \"");
  EXPECT_EQ(quoted_list({"a", "b", "c"}, 2), "\"a\", \"b\" and 1 more");
}

TEST(Printable, LinesStayAndControlCharactersDoNot) {
  EXPECT_EQ(printable("a\nb\x1b[31m\r\xff", 100), "a\nb\\x1b[31m\\r\\xff");
  EXPECT_EQ(printable("12345", 3), "123...");
}

TEST(Nearest, IsWithinAThirdOfTheWord) {
  EXPECT_EQ(nearest("trian", {"predict", "train", "plan"}), "train");
  EXPECT_EQ(nearest("text", {"text\u00a0", "label"}), "text\u00a0");
  EXPECT_EQ(nearest("xyzzy", {"predict", "train"}), "");
}

TEST(Utf8Complaint, NamesTheByteTheEncodingAndTheCommand) {
  EXPECT_EQ(utf8_complaint("café"), "");
  EXPECT_THAT(utf8_complaint("caf\xe9"), HasSubstr("0xE9 at byte 4; likely LATIN1: iconv -f LATIN1 -t UTF-8"));
  EXPECT_THAT(utf8_complaint("\x93quoted\x94"), HasSubstr("iconv -f CP1252 -t UTF-8"));
}

TEST(Utf8IncompleteTail, IsWhatFurtherBytesMayComplete) {
  EXPECT_EQ(utf8_incomplete_tail("a\xF0\x9F\x98"), 3U);
  EXPECT_EQ(utf8_incomplete_tail("a\xF0"), 1U);
  EXPECT_EQ(utf8_incomplete_tail("\xE2\x82"), 2U);
  EXPECT_EQ(utf8_incomplete_tail("a\xF0\x9F\x98\x80"), 0U);
  EXPECT_EQ(utf8_incomplete_tail("a\xFF"), 0U);
  EXPECT_EQ(utf8_incomplete_tail("a\x80"), 0U);
  EXPECT_EQ(utf8_incomplete_tail("\xE0\x80"), 0U);  // no code point begins like this
  EXPECT_EQ(utf8_incomplete_tail(""), 0U);
}

}  // namespace
}  // namespace neoloom::core
