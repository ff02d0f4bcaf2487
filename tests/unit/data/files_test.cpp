// SPDX-License-Identifier: Apache-2.0
#include "data/files.h"

#include "data/readers/first_values.h"
#include "tests/unit/data/support.h"

namespace neoloom::data {
namespace {

using core::ErrorKind;
using testing::ElementsAre;

class SeveralFiles : public StoreTest {
 protected:
  SeveralFiles() {
    folder_.write("b.csv", "text,label\nthree,x\n");
    folder_.write("a.jsonl", "{\"text\": \"one\", \"label\": \"y\"}\n{\"text\": \"two\", \"label\": \"x\"}\n");
    folder_.write("c.tsv", "label\ttext\nz\tfour\n");
    std::filesystem::create_directory(folder_.file("d.csv"));
  }
  Files named(const std::vector<std::string>& names) const {
    std::vector<std::string> paths;
    paths.reserve(names.size());
    for (const std::string& name : names) paths.push_back(folder_.file(name));
    return paths;
  }
  std::shared_ptr<const TokenStore> build_files(const std::vector<std::string>& names) {
    request_.files = named(names);
    const std::string path = TokenStore::path_for(request_, *tokenizer_, folder_.file("cache"));
    TokenStore::build(request_, *tokenizer_, path);
    EXPECT_EQ(std::filesystem::path(path).filename().string().substr(7, 32),
              TokenStore::open(path)->content_hash().substr(0, 32));
    return TokenStore::open(path);
  }
  std::string hash_of(const std::vector<std::string>& names) {
    request_.files = named(names);
    return TokenStore::path_for(request_, *tokenizer_, folder_.path());
  }
};

TEST_F(SeveralFiles, AreOneSetInTheOrderOfTheirNames) {
  const auto store = build_files({"c.tsv", "b.csv", "a.jsonl"});
  EXPECT_THAT(texts_of(*store), ElementsAre("one", "two", "three", "four"));
  EXPECT_THAT(labels_of(*store), ElementsAre("y", "x", "x", "z"));
  EXPECT_THAT(store->label_names(), ElementsAre("x", "y", "z"));
}

TEST_F(SeveralFiles, OfAPatternAreFilesOnlyAndEachOnce) {
  EXPECT_THAT(named({"*.csv"}).expand(), ElementsAre(folder_.file("b.csv")));
  EXPECT_THAT(named({"[ab].*", "b.csv", "?.tsv"}).expand(),
              ElementsAre(folder_.file("a.jsonl"), folder_.file("b.csv"), folder_.file("c.tsv")));
  EXPECT_EQ(hash_of({"?.*s*"}), hash_of({"c.tsv", "a.jsonl", "b.csv"}));
}

TEST_F(SeveralFiles, AFileWhoseNameLooksLikeAPatternIsItself) {
  folder_.write("a[1].csv", "text,label\nitself,x\n");
  folder_.write("a1.csv", "text,label\nother,x\n");
  EXPECT_THAT(texts_of(*build_files({"a[1].csv"})), ElementsAre("itself"));
}

TEST_F(SeveralFiles, APatternWithoutAFileIsAnErrorThatSaysWhereItLooked) {
  expect_error(
      [&] {
        build_files({"a.jsonl", "*.parquet"});
      },
      ErrorKind::kData, {"no file matches the pattern", "/*.parquet\"", "looked in " + folder_.path()});
  expect_error([&] { build_files({"**/*.csv"}); }, ErrorKind::kData, {"** is not supported", "data/*/*.jsonl"});
  expect_error([&] { build_files({"a.jsonl", "absent.csv"}); }, ErrorKind::kData, {"cannot open", "absent.csv"});
}

TEST_F(SeveralFiles, HaveAHashOfTheirBytesAndOrderNotOfTheirNames) {
  const std::string both = hash_of({"a.jsonl", "b.csv"});
  EXPECT_NE(both, hash_of({"a.jsonl"}));
  EXPECT_NE(both, hash_of({"a.jsonl", "b.csv", "c.tsv"}));
  std::filesystem::rename(folder_.file("b.csv"), folder_.file("bb.csv"));
  EXPECT_EQ(both, hash_of({"a.jsonl", "bb.csv"}));
  std::filesystem::rename(folder_.file("bb.csv"), folder_.file("A.csv"));
  EXPECT_NE(both, hash_of({"a.jsonl", "A.csv"}));  // A.csv comes first now
}

TEST_F(SeveralFiles, ARowThatCannotBeReadIsNamedWithItsFile) {
  folder_.write("e.jsonl", "{\"text\": \"x\", \"label\": \"y\"}\nbroken\n");
  expect_error(
      [&] {
        build_files({"a.jsonl", "e.jsonl"});
      },
      ErrorKind::kData, {"1 of 4 rows", "line 2: " + folder_.file("e.jsonl") + ": not valid JSON"});
  request_.options.invalid_data_tolerance_percent = 25;
  EXPECT_EQ(build_files({"a.jsonl", "e.jsonl"})->size(), 3);
  request_.label_names = {{"x", "y"}};
  expect_error(
      [&] {
        build_files({"a.jsonl", "c.tsv"});
      },
      ErrorKind::kData, {folder_.file("c.tsv") + ": line 2: label \"z\""});
}

TEST_F(SeveralFiles, EachMustHaveItsColumnsAndRows) {
  folder_.write("e.csv", "body,label\nx,y\n");
  expect_error([&] { build_files({"a.jsonl", "e.csv"}); }, ErrorKind::kData, {"e.csv: no column \"text\""});
  folder_.write("e.csv", "");
  expect_error([&] { build_files({"a.jsonl", "e.csv"}); }, ErrorKind::kData, {"e.csv is empty"});
}

TEST_F(SeveralFiles, OfTextAreOneStreamEach) {
  request_.task = Task::kCausalLm;
  request_.max_length_tokens = 4;
  folder_.write("1.txt", "abcde");
  folder_.write("2.txt", "fg");
  EXPECT_THAT(texts_of(*build_files({"?.txt"})), ElementsAre("abcd", "e<eos>", "fg<eos>"));
}

TEST_F(SeveralFiles, ShowTheColumnsOfTheFirst) {
  EXPECT_EQ(first_values(named({"b.csv", "a.jsonl"}), {}, {"label"})[0].text, "y");
}

TEST(FileNames, AreShortenedInMessages) {
  EXPECT_EQ(Files({"a", "b", "c", "d"}).text(), "a, b, c, d");
  EXPECT_EQ(Files({"a", "b", "c", "d", "e"}).text(), "a, b, c and 2 more");
  EXPECT_TRUE(Files("").empty());
}

}  // namespace
}  // namespace neoloom::data
