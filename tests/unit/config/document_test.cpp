// SPDX-License-Identifier: Apache-2.0
#include "launch/config/document.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/config/support.h"

namespace neoloom::launch {
namespace {

using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

std::string document_refusal(const std::string& text) {
  try {
    parse_document(text, "f");
  } catch (const core::Error& error) {
    return error.what();
  }
  return "accepted";
}

const Node& at(const Node& map, const std::string& key) {
  for (const Node::Entry& entry : map.entries) {
    if (entry.key == key) return entry.value;
  }
  throw std::out_of_range(key);
}

TEST(YamlDocument, PlainScalarsGetYaml12Types) {
  const Node root = parse_document(
      "a: 1\nb: -2.5\nc: 1e-4\nd: true\ne: no\nf: '7'\ng:\nh: ~\ni: +3\nj: 1_000\nk: 0x10\nl: 1.0.0\nm: e\nn: .5\n",
      "f");
  EXPECT_EQ(at(root, "a").kind, Node::Kind::kInteger);
  EXPECT_EQ(at(root, "a").integer, 1);
  EXPECT_EQ(at(root, "b").real, -2.5);
  EXPECT_EQ(at(root, "c").kind, Node::Kind::kReal);
  EXPECT_EQ(at(root, "c").real, 1e-4);
  EXPECT_TRUE(at(root, "d").boolean);
  EXPECT_EQ(at(root, "e").kind, Node::Kind::kString);
  EXPECT_EQ(at(root, "f").kind, Node::Kind::kString);
  EXPECT_TRUE(at(root, "g").is_null());
  EXPECT_TRUE(at(root, "h").is_null());
  EXPECT_EQ(at(root, "i").integer, 3);
  for (const char* text : {"j", "k", "l", "m"}) EXPECT_EQ(at(root, text).kind, Node::Kind::kString) << text;
  EXPECT_EQ(at(root, "n").real, 0.5);
}

TEST(YamlDocument, EveryValueKnowsItsLine) {
  const Node root = parse_document("# comment\na:\n  b: 1\n\n  c: [x,\n      y]\n", "run.yaml");
  EXPECT_EQ(at(at(root, "a"), "b").position.text(), "run.yaml:3");
  EXPECT_EQ(at(at(root, "a"), "c").items.at(1).position.text(), "run.yaml:6");
}

TEST(YamlDocument, DuplicateKeysAreRefusedWithBothPlaces) {
  EXPECT_THAT(document_refusal("a: 1\nb: 2\na: 3\n"), testing::AllOf(StartsWith("f:3: "), HasSubstr("first at f:1")));
  EXPECT_THAT(document_refusal("x: {a: 1, a: 3}\n"), StartsWith("f:1: "));
}

TEST(YamlDocument, AnchorsAliasesTagsAndSecondDocumentsAreRefused) {
  EXPECT_THAT(document_refusal("a: &x 1\n"), HasSubstr("f:1: an anchor"));
  EXPECT_THAT(document_refusal("b: 1\na: &x [1]\nc: *x\n"), HasSubstr("f:2: an anchor"));
  EXPECT_THAT(document_refusal("a: *x\n"), StartsWith("f:1: "));
  EXPECT_THAT(document_refusal("a: !!python/object:os.system x\n"), HasSubstr("f:1: a tag"));
  EXPECT_THAT(document_refusal("a: !!int \"3\"\n"), HasSubstr("f:1: a tag"));
  EXPECT_THAT(document_refusal("a: 1\n---\nb: 2\n"), HasSubstr("second YAML document"));
}

TEST(YamlDocument, BrokenSyntaxNamesTheLine) {
  EXPECT_THAT(document_refusal("a: 1\nb: [1, 2\nc: 3\n"),
              testing::AllOf(StartsWith("f:"), HasSubstr("not valid YAML")));
  EXPECT_THAT(document_refusal("a: 'x\n"), HasSubstr("not valid YAML"));
  EXPECT_THAT(document_refusal("a: \"x\nb: 1\n\n"), HasSubstr("not valid YAML"));
  EXPECT_EQ(at(parse_document("a: |\n  x\n", "f"), "a").text, "x\n");
  EXPECT_THAT(document_refusal("? [a]\n: 1\n"), HasSubstr("cannot be a key"));
}

TEST(YamlDocument, ATabInTheIndentationIsNamedWithItsLine) {
  EXPECT_THAT(refusal("a:\n  b: 1\n\tc: 2\n"), HasSubstr("run.yaml:3: the line is indented with a tab"));
  EXPECT_THAT(refusal("a:\n \tb: 1\n"), HasSubstr("run.yaml:2: the line is indented with a tab"));
  EXPECT_THAT(refusal("a: [1\n\u00a0\u00a0b: 1\n"),
              HasSubstr("run.yaml:2: the line is indented with a no-break space"));
  EXPECT_THAT(refusal("a: [\n"), Not(HasSubstr("indented")));
}

TEST(JsonDocument, SurrogateEscapesBecomeOneCharacter) {
  const Node root = parse_document(R"({"label": "\ud83d\ude00 ok"})", "f");
  EXPECT_EQ(at(root, "label").text, "\xF0\x9F\x98\x80 ok");
}

TEST(JsonDocument, EveryValueKnowsItsLine) {
  const Node root = parse_document("{\n \"a\": 1,\n \"b\": [2\n, {\"c\": true\n}],\n\"d\":\n12\n}\n", "f");
  EXPECT_EQ(at(root, "a").position.line, 2U);
  EXPECT_EQ(at(root, "b").position.line, 3U);
  EXPECT_EQ(at(root, "b").items.at(0).position.line, 3U);
  EXPECT_EQ(at(at(root, "b").items.at(1), "c").position.line, 4U);
  EXPECT_EQ(at(root, "d").position.line, 7U);
}

TEST(JsonDocument, DuplicateKeysAndBrokenSyntaxAreRefused) {
  EXPECT_THAT(document_refusal("{\"a\": 1,\n\"a\": 2}"), StartsWith("f:2: key \"a\" is given twice"));
  EXPECT_THAT(document_refusal("{\"a\": 1,\n}"), testing::AllOf(StartsWith("f:2: "), HasSubstr("not valid JSON")));
  EXPECT_THAT(document_refusal("{a: 1}"), HasSubstr("read as JSON"));
  EXPECT_THAT(document_refusal("{\"a\": \"\\ud83d\"}"), HasSubstr("not valid JSON"));
  EXPECT_THAT(document_refusal("{\"a\": 1} {}"), HasSubstr("not valid JSON"));
  EXPECT_THAT(document_refusal("{\"a\": \"x\\u0000y\"}"), HasSubstr("NUL"));
}

TEST(AnyDocument, DepthIsBoundedInBothFormats) {
  const auto nested = [](size_t depth, const std::string& open, const std::string& close) {
    std::string text;
    for (size_t i = 0; i < depth; ++i) text += open;
    for (size_t i = 0; i < depth; ++i) text += close;
    return text;
  };
  EXPECT_EQ(document_refusal(nested(kMaxDocumentDepth, "[", "]")), "accepted");
  EXPECT_THAT(document_refusal(nested(kMaxDocumentDepth + 1, "[", "]")), HasSubstr("deeper than 32"));
  EXPECT_THAT(document_refusal(nested(500'000, "[", "]")), HasSubstr("deeper than 32"));
  EXPECT_EQ(document_refusal("a: " + nested(kMaxDocumentDepth - 1, "[", "]")), "accepted");
  EXPECT_THAT(document_refusal("a: " + nested(kMaxDocumentDepth, "[", "]")), HasSubstr("deeper than 32"));
}

TEST(AnyDocument, SizeIsBounded) {
  EXPECT_EQ(document_refusal("a: " + std::string(kMaxDocumentBytes - 3, 'x')), "accepted");
  EXPECT_THAT(document_refusal("a: " + std::string(kMaxDocumentBytes - 2, 'x')), HasSubstr("at most"));
}

TEST(AnyDocument, BytesThatAreNotUtf8AreNamedByLine) {
  EXPECT_THAT(document_refusal("a: 1\nb: caf\xE9\n"), testing::AllOf(StartsWith("f:2: not UTF-8"), HasSubstr("0xe9")));
  for (const char* bad : {"a: \xC0\xAF", "a: \xED\xA0\x80", "a: \xF5\x80\x80\x80", "a: \xE0\x80\x80", "a: \xC3"}) {
    EXPECT_THAT(document_refusal(bad), HasSubstr("not UTF-8"));
  }
  EXPECT_EQ(document_refusal("\xEF\xBB\xBF"
                             "a: caf\xC3\xA9 \xF0\x9F\x98\x80\n"),
            "accepted");
  EXPECT_EQ(document_refusal("\xEF\xBB\xBF{\"a\": 1}"), "accepted");
}

TEST(Documents, NestedFiveMillionDeepOrOfManyKeysAreRefusedAtOnce) {
  std::string deep(1'000'000, '[');
  EXPECT_THAT(refusal(deep), HasSubstr("nested deeper than"));
  deep.insert(0, "model_config: ");
  EXPECT_THAT(refusal(deep), HasSubstr("run.yaml:1"));
  std::string wide = "{";
  for (int i = 0; i < 50'000; ++i) wide += fmt::format("\"k{}\":1,", i);
  EXPECT_THAT(refusal(wide), HasSubstr("a map of more than 1000 keys"));
}

}  // namespace
}  // namespace neoloom::launch
