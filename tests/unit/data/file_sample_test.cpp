// SPDX-License-Identifier: Apache-2.0
#include "data/readers/file_sample.h"

#include <fmt/format.h>

#include "tests/unit/data/support.h"

namespace neoloom::data {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

class SampledFile : public testing::Test {
 protected:
  FileSample sample(const std::string& name, std::string_view content, int64_t most_rows = 100) {
    return sample_file(folder_.write(name, content), most_rows);
  }
  TemporaryFolder folder_;
};

TEST_F(SampledFile, FindsTheDelimiterThatReadsMostRows) {
  const FileSample found = sample("a.csv", "id;text;label\n1;well, so;x\n2;a, b, c;y\n");
  EXPECT_EQ(found.options.delimiter, ";");
  EXPECT_THAT(found.columns, ElementsAre("id", "text", "label"));
  EXPECT_EQ(found.rows.size(), 2u);
  EXPECT_TRUE(found.whole);
  EXPECT_EQ(found.rows[1].cells[1].json, "\"a, b, c\"");
  EXPECT_THAT(found.reasons.at("delimiter"), HasSubstr("3 columns, with a comma 1"));
  EXPECT_EQ(sample("b.csv", "text,label\na;b,x\nc;d,y\n").options.delimiter, "");
  EXPECT_EQ(sample("c.tsv", "text|label\na|x\nc|y\n").options.delimiter, "|");
  EXPECT_EQ(sample("d.csv", "text\na\nb\n").options.delimiter, "");  // one column
}

TEST_F(SampledFile, TakesQuotesThatAreNotInPairsForText) {
  const FileSample found = sample("a.tsv", "text\tlabel\n\"open\tx\nsaid \"so\"\ty\n");
  EXPECT_FALSE(found.options.quoting);
  EXPECT_EQ(found.rows[0].cells[0].text, "\"open");
  EXPECT_TRUE(sample("b.csv", "text,label\n\"a, b\",x\n").options.quoting);
  std::string rows = "ham\tone\n";  // one row of many with a quote at its start
  for (int i = 0; i < 300; ++i) rows += fmt::format("ham\ttext {}\n", i);
  EXPECT_FALSE(sample("c.tsv", rows + "ham\t\"So\" he said\n", 1000).options.quoting);
}

TEST_F(SampledFile, SeesThatTheFirstRowIsNoHeader) {
  const FileSample found = sample("a.tsv", "ham\tone\nspam\ttwo\nham\tthree\nham\tfour\n");
  EXPECT_FALSE(found.options.header);
  EXPECT_THAT(found.columns, ElementsAre("0", "1"));
  EXPECT_EQ(found.rows.size(), 4u);
  EXPECT_FALSE(sample("b.csv", "1,a text\n2,another\n").options.header);
  EXPECT_FALSE(sample("c.csv", std::string(80, 'x') + ",a\ny,b\n").options.header);
  EXPECT_TRUE(sample("d.csv", "text,label\na,x\nb,x\n").options.header);
  EXPECT_TRUE(sample("e.csv", ",text,label\n0,a,x\n1,b,x\n").options.header);  // pandas writes its index so
  EXPECT_TRUE(sample("f.csv", "0,1\na,x\nb,x\n").options.header);              // and columns without names so
}

TEST_F(SampledFile, GuessesTheEncoding) {
  EXPECT_EQ(sample("a.csv", "text\nd\xC3\xA9j\xC3\xA0\n").options.encoding, "utf-8");
  EXPECT_EQ(sample("b.csv", "text\nd\xE9j\xE0\n").options.encoding, "latin-1");
  EXPECT_EQ(sample("c.csv", "text\n\x93so\x94\n").options.encoding, "cp1252");
  EXPECT_EQ(sample("d.csv", "text\n\x81 \xE9\n").options.encoding, "latin-1");  // no letter of cp1252
  std::string mixed = "text\n";
  for (int i = 0; i < 30; ++i) mixed += "\xC3\xA9\n";
  EXPECT_EQ(sample("e.csv", mixed + "\xFF\n").options.encoding, "utf-8-replace");
  EXPECT_EQ(sample("f.csv", "text\nd\xE9j\xE0\n").rows.at(0).cells.at(0).text, "d\xC3\xA9j\xC3\xA0");
}

TEST_F(SampledFile, GuessesTheFormatOfANameThatDoesNotSay) {
  EXPECT_EQ(sample("a", "{\"text\": \"a\"}\n").options.format, "jsonl");
  EXPECT_EQ(sample("b", "[{\"text\": \"a\"}]").options.format, "json");
  EXPECT_EQ(sample("c", "text\tlabel\na\tx\n").options.format, "csv");
  EXPECT_EQ(sample("c", "text\tlabel\na\tx\n").options.delimiter, "\t");
  EXPECT_EQ(sample("d", "once\nupon\n").options.format, "text");
  EXPECT_EQ(sample("e.json", "{\"text\": \"a\"}\n").format, Format::kJsonLines);
}

TEST_F(SampledFile, ReadsNoMoreRowsThanAsked) {
  std::string rows = "{\"text\": \"a\"}\n{broken\n";
  for (int i = 0; i < 50; ++i) rows += fmt::format("{{\"text\": \"{}\"}}\n", i);
  const FileSample found = sample("a.jsonl", rows, 10);
  EXPECT_EQ(found.rows.size(), 9u);
  EXPECT_EQ(found.unreadable, 1);
  EXPECT_THAT(found.first_problem, HasSubstr("line 2: not valid JSON"));
  EXPECT_FALSE(found.whole);
}

TEST_F(SampledFile, ALargeConvertedFileIsCutBetweenRows) {
  std::string rows = "text,label\n\xE9,x\n";
  while (rows.size() < (size_t{6} << 20)) rows += "\"" + std::string(1000, 'a') + "\",x\n";
  const FileSample found = sample("a.csv", rows, 1'000'000);
  EXPECT_EQ(found.options.encoding, "latin-1");
  EXPECT_FALSE(found.whole);
  EXPECT_EQ(found.unreadable, 0);
  EXPECT_GT(found.rows.size(), 4000u);
}

}  // namespace
}  // namespace neoloom::data
