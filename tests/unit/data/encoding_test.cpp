// SPDX-License-Identifier: Apache-2.0
#include "data/readers/encoding.h"

#include "tests/unit/data/support.h"

namespace neoloom::data {
namespace {

using testing::ElementsAre;

/// Converts pieces of `size` bytes.
std::string converted(const std::string& encoding, std::string_view bytes, size_t size) {
  std::string text;
  Recoder recoder("a.csv", encoding, [&](std::string_view piece) {
    text += piece;
    return true;
  });
  for (; !bytes.empty(); bytes.remove_prefix(std::min(size, bytes.size()))) recoder.add(bytes.substr(0, size));
  recoder.finish();
  return text;
}

class Encodings : public StoreTest {
 protected:
  std::vector<std::string> texts(const std::string& encoding, const std::string& name, std::string_view bytes) {
    request_.options.encoding = encoding;
    return texts_of(*build(name, bytes));
  }
};

TEST_F(Encodings, OfOneByteAreReadAsTheirNamesSay) {
  EXPECT_THAT(texts("latin-1", "a.csv", "text,label\ncaf\xe9 \x93,x\n"), ElementsAre("caf\u00e9 \u0093"));
  EXPECT_THAT(texts("cp1252", "a.csv", "text,label\ncaf\xe9 \x93\x80,x\n"), ElementsAre("caf\u00e9 \u201c\u20ac"));
  EXPECT_THAT(texts("cp1252", "a.jsonl", "{\"text\": \"\x93\", \"label\": 1}\n"), ElementsAre("\u201c"));
}

TEST_F(Encodings, InvalidPartsAreReplacedAsPythonDoes) {
  EXPECT_THAT(texts("utf-8-replace", "a.csv", "\xEF\xBB\xBFtext,label\ncaf\xc3\xa9 \xe9! \xe2\x82,x\n"),
              ElementsAre("caf\u00e9 \uFFFD! \uFFFD"));
}

TEST_F(Encodings, TheCutBetweenPiecesDoesNotShow) {
  const std::string bytes = "a\xc3\xa9\xf0\x9f\x98\x80\xe2\x82 \xff\xe2\x82";
  const std::string expected = "a\u00e9\U0001F600\uFFFD \uFFFD\uFFFD";
  for (size_t size = 1; size <= bytes.size(); ++size) EXPECT_EQ(converted("utf-8-replace", bytes, size), expected);
}

TEST_F(Encodings, AByteThatWindowsDoesNotHaveIsNamedWithItsLine) {
  request_.options.encoding = "cp1252";
  expect_data_error("a.csv", "text,label\nx,y\n\x81,x\n", {"a.csv: line 3: the byte 0x81", "cp1252", "latin-1"});
}

TEST_F(Encodings, AreNamedWhereATextIsNotUtf8) {
  expect_data_error("a.csv", "text,label\n\x93hi\x94,x\n",
                    {"not UTF-8: 0x93", "data.encoding: cp1252", "utf-8-replace"});
  expect_data_error("a.jsonl", "{\"text\": \"caf\xe9\", \"label\": 1}\n", {"data.encoding: latin-1"});
  request_.task = Task::kCausalLm;
  expect_data_error("a.txt", "caf\xe9", {"a.txt: line 1: not UTF-8", "data.encoding: latin-1"});
}

TEST_F(Encodings, BelongToTheHash) {
  build("a.csv", "text,label\nx,y\n");
  const auto path = [&] { return TokenStore::path_for(request_, *tokenizer_, core::Cache(".")); };
  const std::string before = path();
  request_.options.encoding = "latin-1";
  EXPECT_NE(path(), before);
  request_.options.encoding = "utf-8";
  request_.options.delimiter = ";";
  EXPECT_NE(path(), before);
}

class Delimiters : public StoreTest {};

TEST_F(Delimiters, AnyCharacterSeparatesFields) {
  request_.options.delimiter = ";";
  EXPECT_THAT(texts_of(*build("a.csv", "text;label\n\"one; two\";x\na,b;y\n")), ElementsAre("one; two", "a,b"));
  EXPECT_THAT(texts_of(*build("a.tsv", "text;label\na\tb;y\n")), ElementsAre("a\tb"));
  request_.options.delimiter = "|";
  request_.options.quoting = false;
  EXPECT_THAT(texts_of(*build("a.csv", "text|label\n\"open|y\n")), ElementsAre("\"open"));
}

TEST_F(Delimiters, TheWrongOneIsSuspected) {
  request_.options.delimiter = ";";
  expect_data_error("a.csv", "text,label\nx,y\n",
                    {"separated by \",\", but data.delimiter is \";\", for all files", "correct data.delimiter"});
}

}  // namespace
}  // namespace neoloom::data
