// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/data/support.h"

namespace neoloom::data {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

class Readers : public StoreTest {};

TEST_F(Readers, CsvWithQuotedDelimitersLineEndsAndDoubledQuotes) {
  const auto store = build(
      "a.csv", "label,text\r\nx,\"one, two\"\r\ny,\"line\nbreak \"\"quoted\"\"\"\r\n\r\nx,plain \"inner\" quote\r\n");
  EXPECT_THAT(texts_of(*store), ElementsAre("one, two", "line\nbreak \"quoted\"", "plain \"inner\" quote"));
  EXPECT_THAT(labels_of(*store), ElementsAre("x", "y", "x"));
}

TEST_F(Readers, RowsNestedFiveMillionDeepAreUnreadableRows) {
  std::string deep;
  for (int i = 0; i < 5'000'000; ++i) deep += '[';
  for (const char* name : {"a.jsonl", "a.json"}) {
    const std::string row = "{\"text\": \"x\", \"label\": " + deep + std::string(deep.size(), ']') + "}";
    expect_data_error(name, std::string(name) == "a.json" ? "[" + row + "]" : row, {"line 1: nested deeper than 100"});
  }
}

TEST_F(Readers, CsvWithByteOrderMarkAndWithoutLastLineEnd) {
  const auto store = build("a.csv", "\xEF\xBB\xBFtext,label\nhello,x");
  EXPECT_THAT(texts_of(*store), ElementsAre("hello"));
}

TEST_F(Readers, LinesThatEndInCrAloneAreLines) {
  const auto store = build("a.csv", "text,label\rone,x\r\"two\rlines\",y\r");
  EXPECT_THAT(texts_of(*store), ElementsAre("one", "two\rlines"));
  EXPECT_THAT(texts_of(*build("a.jsonl", "{\"text\": \"a\", \"label\": 1}\r{\"text\": \"b\", \"label\": 0}\r")),
              ElementsAre("a", "b"));
  expect_data_error("b.csv", "text,label\rone,x\r\"a\rb\",y\rthree\r", {"line 5: 1 fields, expected 2"});
}

TEST_F(Readers, ACrWithinALineOfAFileWithLfStaysACharacter) {
  EXPECT_THAT(texts_of(*build("a.csv", "text,label\none\rmore,x\n")), ElementsAre("one\rmore"));
}

TEST_F(Readers, AnotherSeparatorIsSuspectedByName) {
  expect_data_error("a.csv", "text;label\nx;y\n",
                    {"no column \"text\"", "\"text;label\"", "separated by \";\": set data.delimiter: \";\""});
  expect_data_error("a.csv", "text\tlabel\nx\ty\n", {"\"text\\tlabel\"", "separated by tabs: set data.format: tsv"});
  expect_data_error("a.csv", "text|label\nx|y\n", {"separated by \"|\""});
  expect_data_error("a.tsv", "text,label\nx,y\n", {"separated by \",\": set data.delimiter: \",\""});
  request_.options.header = false;
  request_.options.text_column = "0";
  request_.options.label_column = "1";
  expect_data_error("b.csv", "x;y\nz;w\n", {"no column \"1\"", "separated by \";\""});
}

TEST_F(Readers, FilesOfPromptsAndChatsAreToldTheirKeys) {
  for (const char* response : {"response", "completion"}) {
    expect_data_error(
        "a.csv", std::string("prompt,") + response + "\nx,y\n",
        {"no column \"text\"", std::string("data.prompt_column: prompt and data.response_column: ") + response,
         "data.text_column", "neoloom init"});
  }
  expect_data_error("a.jsonl", "{\"instruction\": \"x\", \"input\": \"\", \"output\": \"y\"}\n",
                    {"data.template: alpaca", "neoloom init"});
  expect_data_error("b.jsonl", "{\"conversations\": [{\"from\": \"human\", \"value\": \"x\"}]}\n",
                    {"data.messages_column: conversations", "neoloom init"});
}

TEST_F(Readers, ColumnNamesShowBlanksAndTheNearestIsNamed) {
  expect_data_error("a.csv", "text\u00a0,label\nx,y\n",
                    {"no column \"text\"", "\"text\\u00a0\", \"label\"", "did you mean \"text\\u00a0\"?"});
  expect_data_error("a.csv", "text ,label\nx,y\n", {"\"text \", \"label\""});
  expect_data_error("a.jsonl", "{\"Text\": \"x\", \"label\": \"y\"}\n", {"did you mean \"Text\"?"});
}

TEST_F(Readers, NoMessageHoldsAWholeFile) {
  request_.options.text_column = "missing";
  const std::string long_name(2'000'000, 'x');
  const core::Error error = error_of([&] { build("a.csv", long_name + "\n" + long_name + "\n"); });
  EXPECT_LT(std::string(error.what()).size(), 2000U);
}

TEST_F(Readers, Utf16WithoutAMarkIsNamed) {
  expect_data_error("a.csv", std::string_view("t\0e\0x\0t\0,\0l\0\n\0", 14), {"iconv -f UTF-16LE -t UTF-8"});
  expect_data_error("b.csv", std::string_view("\0t\0e\0x\0t", 8), {"iconv -f UTF-16BE -t UTF-8"});
}

TEST_F(Readers, AWindowsEncodingIsNamedWithItsLine) {
  expect_data_error("a.csv", "text,label\n\x93hi\x94,x\n", {"line 2: not UTF-8: 0x93 at byte 1", "iconv -f CP1252"});
  expect_data_error("b.csv", "text,label\ncaf\xe9,x\n", {"line 2: not UTF-8: 0xE9 at byte 4", "iconv -f LATIN1"});
}

TEST_F(Readers, TsvWithoutHeaderAndWithRawQuotes) {
  request_.options.header = false;
  request_.options.quoting = false;
  request_.options.text_column = "1";
  request_.options.label_column = "0";
  const auto store = build("sms.tsv", "ham\t\"never closed\nspam\tsay \"hi\", now\n");
  EXPECT_THAT(texts_of(*store), ElementsAre("\"never closed", "say \"hi\", now"));
  EXPECT_THAT(store->label_names(), ElementsAre("ham", "spam"));
}

TEST_F(Readers, CsvWithoutHeaderKeepsItsFirstRow) {
  request_.options.header = false;
  request_.options.text_column = "0";
  request_.options.label_column = "1";
  EXPECT_EQ(build("a.csv", "t1,x\nt2,y\n")->size(), 2);
}

TEST_F(Readers, EmptyFieldsAreEmptyTexts) {
  const auto store = build("a.csv", "text,label\n,x\n\"\",y\n");
  EXPECT_THAT(texts_of(*store), ElementsAre("", ""));
}

TEST_F(Readers, QuoteThatIsNeverClosedStopsWithItsLine) {
  expect_data_error("a.csv", "text,label\nfine,x\n\"open,y\nz,w\n",
                    {"a.csv", "line 3", "never closed", "data.quoting: false"});
}

TEST_F(Readers, WrongNumberOfFieldsNamesTheLineWhereTheRowStarts) {
  expect_data_error("a.csv", "text,label\n\"two\nlines\",x\na,b,c\n", {"line 4: 3 fields, expected 2", "1 of 2 rows"});
}

TEST_F(Readers, TextAfterAClosingQuoteIsOneUnreadableRow) {
  request_.options.invalid_data_tolerance_percent = 50;
  const auto store = build("a.csv", "text,label\n\"a\" b,x\nfine,y\n");
  EXPECT_THAT(texts_of(*store), ElementsAre("fine"));
  ASSERT_EQ(store->invalid_rows().size(), 1U);
  EXPECT_EQ(store->invalid_rows()[0].line, 2);
  EXPECT_THAT(store->invalid_rows()[0].reason, HasSubstr("closing quote"));
}

TEST_F(Readers, MissingCsvColumnNamesTheColumnsFound) {
  expect_data_error("a.csv", "message,label\nx,y\n",
                    {"no column \"text\"", "\"message\", \"label\"", "data.text_column"});
}

TEST_F(Readers, MissingJsonColumnNamesTheColumnsFound) {
  expect_data_error("a.jsonl", "{\"message\": \"x\", \"label\": \"y\"}\n",
                    {"no column \"text\"", "\"label\", \"message\"", "data.text_column"});
}

TEST_F(Readers, ColumnNameThatStandsTwiceIsRefused) {
  expect_data_error("a.csv", "text,label,text\nx,y,z\n", {"2 columns", "\"text\""});
}

TEST_F(Readers, JsonLinesWithBlankLinesCrLfAndEscapes) {
  const auto store = build(
      "a.jsonl", "{\"text\": \"caf\\u00e9 \\ud83d\\ude00\", \"label\": 1}\r\n\r\n  \n{\"label\": 0, \"text\": \"b\"}");
  EXPECT_THAT(texts_of(*store), ElementsAre("caf\u00e9 \U0001F600", "b"));
  EXPECT_THAT(labels_of(*store), ElementsAre("1", "0"));
}

TEST_F(Readers, JsonArrayOverSeveralLinesWithCommasAndBracketsInTexts) {
  const auto store = build(
      "a.json",
      "\xEF\xBB\xBF [\n  {\"text\": \"a,]}\\\"[\", \"label\": \"x\"},\n  {\"text\": \"b\",\n   \"label\": \"y\"}\n]\n");
  EXPECT_THAT(texts_of(*store), ElementsAre("a,]}\"[", "b"));
}

TEST_F(Readers, BrokenElementOfAJsonArrayIsOneUnreadableRow) {
  request_.options.invalid_data_tolerance_percent = 70;
  const auto store = build("a.json", "[{\"text\": \"a\", \"label\": \"x\"},\n{\"text\": oops},\n7]\n");
  EXPECT_EQ(store->size(), 1);
  ASSERT_EQ(store->invalid_rows().size(), 2U);
  EXPECT_EQ(store->invalid_rows()[0].line, 2);
  EXPECT_EQ(store->invalid_rows()[1].line, 3);
}

TEST_F(Readers, JsonArrayThatIsCutOffStops) {
  expect_data_error("a.json", "[{\"text\": \"a\", \"label\": \"x\"},\n{\"text\": \"b", {"line 2", "not closed"});
  expect_data_error("b.json", "[{\"text\": \"a\", \"label\": \"x\"}", {"ends within a row"});
  expect_data_error("c.json", "[{\"text\": \"a\", \"label\": \"x\"}] more", {"after the end"});
}

TEST_F(Readers, JsonFileOfLinesIsReadAsLines) {
  EXPECT_EQ(build("a.json", "{\"text\": \"a\", \"label\": \"x\"}\n{\"text\": \"b\", \"label\": \"y\"}\n")->size(), 2);
}

TEST_F(Readers, EveryKindOfUnreadableJsonRowIsListedWithItsLineAndReason) {
  expect_data_error("a.jsonl",
                    "{\"text\": \"ok\", \"label\": \"x\"}\n"
                    "{\"text\": \"cut\n"
                    "[1, 2]\n"
                    "{\"text\": 5, \"label\": \"x\"}\n"
                    "{\"text\": null, \"label\": \"x\"}\n"
                    "{\"label\": \"x\"}\n"
                    "{\"text\": \"a\", \"label\": 1.5}\n"
                    "{\"text\": \"a\", \"label\": {}}\n"
                    "{\"text\": \"a\"}\n"
                    "{\"text\": \"\xff\", \"label\": \"x\"}\n"
                    "{\"text\": \"\\ud800\", \"label\": \"x\"}\n",
                    {"10 of 11 rows", "line 2: not valid JSON", "line 3: expected a JSON object, found array",
                     "line 4: \"text\": expected a text, found the integer 5", "line 5: no value for \"text\"",
                     "line 6: no value for \"text\"", "line 7: \"label\"", "fractional number 1.5", "line 8: \"label\"",
                     "an object", "line 9: no value for \"label\"", "line 10: not UTF-8: 0xFF at byte 11",
                     "line 11: not valid JSON", "invalid_data_tolerance_percent"});
}

TEST_F(Readers, NoMoreThanTwentyUnreadableRowsAreListed) {
  std::string content = "{\"text\": \"ok\", \"label\": \"x\"}\n";
  for (int i = 0; i < 25; ++i) content += "broken\n";
  const core::Error error = error_of([&] { build("a.jsonl", content); });
  EXPECT_THAT(error.what(), HasSubstr("line 21: "));
  EXPECT_THAT(error.what(), testing::Not(HasSubstr("line 22: ")));
  EXPECT_THAT(error.what(), HasSubstr("and 5 more"));
}

TEST_F(Readers, NoMoreThanThreeRowsInAnotherEncodingAreListed) {
  const core::Error error =
      error_of([&] { build("a.csv", "text,label\n\xe9,x\n\xe9,x\n\xe9,x\n\xe9,x\nx\n\xe9,x\n"); });
  EXPECT_THAT(error.what(), HasSubstr("line 4: not UTF-8"));
  EXPECT_THAT(error.what(), testing::Not(HasSubstr("line 5: ")));
  EXPECT_THAT(error.what(), HasSubstr("line 6: 1 fields, expected 2\n  and 2 more"));
}

TEST_F(Readers, ToleranceIsExactAtItsBorder) {
  const std::string content =
      "{\"text\": \"a\", \"label\": \"x\"}\nbroken\n{\"text\": \"b\", \"label\": \"x\"}\n{\"text\": \"c\", \"label\": "
      "\"x\"}\n";
  request_.options.invalid_data_tolerance_percent = 25.0;
  const auto store = build("a.jsonl", content);
  EXPECT_THAT(texts_of(*store), ElementsAre("a", "b", "c"));
  EXPECT_EQ(store->invalid_row_count(), 1);
  request_.options.invalid_data_tolerance_percent = 24.9;
  expect_data_error("a.jsonl", content, {"1 of 4 rows", "line 2"});
}

TEST_F(Readers, FilesWithNothingToLearnFromAreNamed) {
  expect_data_error("a.jsonl", "", {"a.jsonl is empty"});
  expect_data_error("b.jsonl", "\n\n", {"b.jsonl has no rows"});
  expect_data_error("c.csv", "text,label\n", {"c.csv has no rows"});
  expect_data_error("d.json", "[]", {"d.json has no rows"});
  request_.options.invalid_data_tolerance_percent = 100;
  expect_data_error("e.jsonl", "x\ny\n", {"no row that can be used", "line 2"});
}

TEST_F(Readers, FilesThatAreNotTextAreNamed) {
  expect_data_error("a.csv", std::string_view("\xFF\xFEt\0", 4), {"UTF-16", "iconv"});
  expect_data_error("a.csv",
                    "text,gr\xF6\xDF"
                    "e\na,b\n",
                    {"header cannot be read", "not UTF-8: 0xF6"});
  expect_data_error("a.avro", "Obj", {"\"avro\"", "not supported", ".jsonl"});
  expect_data_error("a.parquet", "text,label\n", {"a.parquet is no Parquet file", "starts with PAR1", "\"text\""});
  request_.files = folder_.file("absent.csv");
  expect_error([&] { TokenStore::build(request_, *tokenizer_, folder_.file("s.h5")); }, core::ErrorKind::kData,
               {"absent.csv"});
}

TEST_F(Readers, FormatKeyOverridesTheFileName) {
  request_.options.format = "csv";
  EXPECT_EQ(build("rows.data", "text,label\na,b\n")->size(), 1);
  request_.options.format = "yaml";
  expect_data_error("rows.csv", "text,label\na,b\n", {"\"yaml\""});
}

TEST_F(Readers, TextFileForPredictionIsOneRowALine) {
  request_.options.label_column.clear();
  request_.require_labels = false;
  const auto store = build("a.txt", "first\r\n\nthird");
  EXPECT_THAT(texts_of(*store), ElementsAre("first", "", "third"));
  EXPECT_FALSE(store->labelled());
}

}  // namespace
}  // namespace neoloom::data
