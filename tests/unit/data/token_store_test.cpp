// SPDX-License-Identifier: Apache-2.0
#include "data/token_store.h"

#include <sys/stat.h>

#include <algorithm>

#include "data/readers/first_values.h"
#include "runtime/core/files.h"
#include "tests/unit/data/support.h"

namespace neoloom::data {
namespace {

using core::ErrorKind;
using testing::ElementsAre;
using testing::ElementsAreArray;

class Stores : public StoreTest {};

TEST_F(Stores, TextsOfAColumnForCausalTrainingEndWithEos) {
  request_.task = Task::kCausalLm;
  const auto store = build("a.jsonl", "{\"text\": \"abc\"}\n{\"text\": \"\"}\n");
  EXPECT_THAT(texts_of(*store), ElementsAre("abc<eos>", "<eos>"));
  EXPECT_THAT(store->target_counts(), ElementsAre(3, 0));
  EXPECT_EQ(store->packs_without_target(), 1);
  EXPECT_EQ(store->prompt_tokens(0), 0);
  request_.tokenizer_options.add_eos_token = false;
  EXPECT_THAT(texts_of(*build("a.jsonl", "{\"text\": \"abc\"}\n")), ElementsAre("abc"));
}

TEST_F(Stores, ForAPredictionEveryRowIsASampleInItsPlace) {
  request_.every_row = true;
  request_.require_labels = false;
  request_.options.label_column.clear();
  request_.label_names = {{"x", "y"}};
  const auto store = build("a.jsonl",
                           "{\"text\": \"one\", \"label\": -1}\n{\"text\": null}\nnot json\n{\"text\": \"\"}\n"
                           "{\"text\": 7}\n{\"text\": \"six\", \"label\": [1, {}]}\n{\"text\": \"caf\xe9\"}\n");
  ASSERT_EQ(store->size(), 7);
  EXPECT_EQ(text_of(*store, 0), "one");
  EXPECT_EQ(text_of(*store, 5), "six");
  std::vector<int64_t> samples;
  for (const InvalidRow& row : store->invalid_rows()) {
    samples.push_back(row.sample);
    EXPECT_EQ(row.line, row.sample + 1);
  }
  EXPECT_THAT(samples, ElementsAre(1, 2, 3, 4, 6));
  EXPECT_THAT(store->invalid_rows()[0].reason, testing::HasSubstr("no value for \"text\""));
  EXPECT_THAT(store->invalid_rows()[2].reason, testing::HasSubstr("the text is empty"));
  expect_data_error("b.jsonl", "{\"body\": \"x\"}\n", {"no column \"text\""});
}

TEST_F(Stores, NoNumberOfUnusableRowsIsTooManyForAPrediction) {
  request_.every_row = true;
  request_.options.label_column.clear();
  request_.require_labels = false;
  request_.label_names = {{"x", "y"}};
  std::string rows = "{\"text\": \"good\"}\n";
  for (int i = 0; i < 10'500; ++i) rows += "bad\n";
  const auto store = build("a.jsonl", rows);
  EXPECT_EQ(store->size(), 10'501);
  EXPECT_EQ(store->invalid_rows().size(), 10'500U);
}

TEST_F(Stores, ATokenInFrontOfEachTextStaysThereWhenTheTextIsCut) {
  folder_.write("tokenizer_config.json", R"({"add_bos_token": true})");
  *tokenizer_ = Tokenizer::from_folder(folder_.path());
  request_.task = Task::kCausalLm;
  request_.max_length_tokens = 4;
  EXPECT_THAT(texts_of(*build("a.jsonl", "{\"text\": \"abcdef\"}\n")), ElementsAre("<eos>abc"));
  EXPECT_THAT(texts_of(*build("a.txt", "ab")), ElementsAre("<eos>ab<eos>"));
  request_.options.prompt_column = "p";
  request_.options.response_column = "r";
  const auto store = build("b.jsonl", "{\"p\": \"abcdef\", \"r\": \"x\"}\n{\"p\": \"ab\", \"r\": \"0123456789\"}\n");
  EXPECT_THAT(texts_of(*store), ElementsAre("<eos>fx<eos>", "<eos>012"));
  EXPECT_EQ(store->prompt_tokens(1), 1);
}

TEST_F(Stores, LongTextsLoseTheirEnd) {
  request_.max_length_tokens = 4;
  const auto store = build("a.csv", "text,label\nabcdef,x\nabcd,x\n");
  EXPECT_THAT(texts_of(*store), ElementsAre("abcd", "abcd"));
  EXPECT_EQ(store->truncated_samples(), 1);
}

TEST_F(Stores, PromptsAndResponsesMeetAtAnExactBorder) {
  request_.task = Task::kCausalLm;
  request_.options.prompt_column = "p";
  request_.options.response_column = "r";
  const auto store = build("a.jsonl", "{\"p\": \"ask \", \"r\": \"yes\"}\n{\"p\": \"\", \"r\": \"no\"}\n");
  EXPECT_THAT(texts_of(*store), ElementsAre("ask yes<eos>", "no<eos>"));
  EXPECT_EQ(store->prompt_tokens(0), 4);
  EXPECT_EQ(store->prompt_tokens(1), 0);
  EXPECT_THAT(store->target_counts(), ElementsAre(4, 2));
}

TEST_F(Stores, TemplateMakesPromptsAndResponses) {
  request_.task = Task::kCausalLm;
  request_.options.prompt_template = "{q}{?c} ({c}){/c}: {r}";
  const std::string rows = "{\"r\": \"yes\", \"q\": \"a\", \"c\": \"b\"}\n{\"q\": \"a\", \"r\": \"no\"}\n";
  const auto store = build("a.jsonl", rows);
  EXPECT_THAT(texts_of(*store), ElementsAre("a (b): yes<eos>", "a: no<eos>"));
  EXPECT_EQ(store->prompt_tokens(0), 7);
  EXPECT_THAT(store->target_counts(), ElementsAre(4, 3));
  EXPECT_THAT(texts_of(*build("a.csv", "c,q,r\n,a,no\n")), ElementsAre("a: no<eos>"));
  expect_error([&] { build("b.csv", "c,r\nb,no\n"); }, ErrorKind::kData, {"no column \"q\"", "data.template"});

  request_.loss_on_prompt = true;
  const auto whole = build("a.jsonl", rows);
  EXPECT_THAT(whole->target_counts(), ElementsAre(10, 5));
  EXPECT_NE(whole->content_hash(), store->content_hash());
  request_.options.prompt_template = "{q}{?c} ({c}){/c}- {r}";
  EXPECT_NE(build("a.jsonl", rows)->content_hash(), whole->content_hash());
}

TEST_F(Stores, TooLongPromptsLoseTheirFrontAndKeepTheResponse) {
  request_.task = Task::kCausalLm;
  request_.options.prompt_column = "p";
  request_.options.response_column = "r";
  request_.max_length_tokens = 6;
  const auto store = build("a.jsonl", "{\"p\": \"abcdef\", \"r\": \"xyz\"}\n{\"p\": \"ab\", \"r\": \"0123456789\"}\n");
  EXPECT_THAT(texts_of(*store), ElementsAre("efxyz<eos>", "012345"));
  EXPECT_EQ(store->prompt_tokens(0), 2);
  EXPECT_EQ(store->prompt_tokens(1), 0);
  EXPECT_THAT(store->target_counts(), ElementsAre(4, 5));
  EXPECT_EQ(store->truncated_samples(), 2);
}

TEST_F(Stores, PromptWithoutResponseColumnIsAUsageError) {
  request_.task = Task::kCausalLm;
  request_.options.prompt_column = "p";
  expect_error([&] { build("a.jsonl", "{\"p\": \"x\"}\n"); }, ErrorKind::kUsage, {"data.response_column"});
}

TEST_F(Stores, TextFileForCausalTrainingIsOneStreamInWindows) {
  request_.task = Task::kCausalLm;
  request_.max_length_tokens = 4;
  const auto store = build("a.txt",
                           "\xEF\xBB\xBF"
                           "abc\ndefgh");
  EXPECT_THAT(texts_of(*store), ElementsAre("abc\n", "defg", "h<eos>"));
  EXPECT_THAT(store->target_counts(), ElementsAre(3, 3, 1));
  EXPECT_TRUE(store->labelled());
  expect_data_error("b.txt", "fine\nbad \xE9", {"line 2", "0xE9", "iconv"});
}

TEST_F(Stores, SpecialTokensInTheDataAreTextOnRequest) {
  auto store = build("a.csv", "text,label\na<|endoftext|>b,x\n");
  EXPECT_THAT(store->ids(0), ElementsAre('a', kEos, 'b'));
  request_.tokenizer_options.split_special_tokens = true;
  store = build("a.csv", "text,label\na<|endoftext|>b,x\n");
  EXPECT_THAT(store->ids(0), ElementsAreArray(bytes_of("a<|endoftext|>b")));
}

TEST_F(Stores, EqualRequestsMakeEqualBytes) {
  request_.files = folder_.write("a.csv", "text,label\nabc,x\nde,y\nbroken\n");
  request_.options.invalid_data_tolerance_percent = 50;
  TokenStore::build(request_, *tokenizer_, folder_.file("one.h5"));
  TokenStore::build(request_, *tokenizer_, folder_.file("deep/er/two.h5"));
  EXPECT_EQ(core::read_file(folder_.file("one.h5")), core::read_file(folder_.file("deep/er/two.h5")));
}

TEST_F(Stores, NothingButTheStoreIsLeftBehind) {
  build("a.csv", "text,label\nabc,x\n");
  expect_data_error("b.csv", "text,label\nabc\n", {"1 of 1"});
  int files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder_.file("cache"))) {
    ++files;
    EXPECT_TRUE(entry.path().filename().string().starts_with("tokens-")) << entry.path();
  }
  EXPECT_EQ(files, 1);
}

TEST_F(Stores, PathDependsOnContentTokenizerAndSettings) {
  request_.files = folder_.write("a.csv", "text,label\nabc,x\n");
  const auto path = [&] { return TokenStore::path_for(request_, *tokenizer_, core::Cache("cache")); };
  const std::string first = path();
  EXPECT_EQ(first, path());
  request_.files = folder_.write("renamed.csv", "text,label\nabc,x\n");
  EXPECT_EQ(first, path()) << "the name of the file does not matter";
  std::vector<std::string> paths = {first};
  const auto expect_new = [&](const char* what) {
    paths.push_back(path());
    EXPECT_EQ(std::count(paths.begin(), paths.end(), paths.back()), 1) << what;
  };
  request_.max_length_tokens = 7;
  expect_new("max_length");
  request_.label_names = std::vector<std::string>{"x"};
  expect_new("label names");
  request_.label_names = std::vector<std::string>{"x", "y"};
  expect_new("more label names");
  request_.options.text_column = "label";
  expect_new("text column");
  request_.task = Task::kCausalLm;
  expect_new("task");
  request_.tokenizer_options.add_eos_token = false;
  expect_new("eos");
  folder_.write("renamed.csv", "text,label\nabd,x\n");
  expect_new("file content");
  folder_.write("merges.txt", "#version: 0.2\n");
  folder_.write("tokenizer_config.json", "{\"add_prefix_space\": true}");
  *tokenizer_ = Tokenizer::from_folder(folder_.path());
  expect_new("tokenizer");
}

TEST_F(Stores, ArraysLieAlignedInTheFile) {
  const auto store = build("a.csv", "text,label\nabc,x\nde,y\n");
  EXPECT_EQ(reinterpret_cast<uintptr_t>(store->ids(0).data()) % 64, 0U);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(store->lengths().data()) % 64, 0U);
  EXPECT_THAT(store->lengths(), ElementsAre(3, 2));
  EXPECT_EQ(store->content_hash().size(), 64U);
}

TEST_F(Stores, DamagedFilesAreRefusedWithAWayOut) {
  request_.files = folder_.write("a.csv", "text,label\nabc,x\nde,y\n");
  const std::string path = folder_.file("s.h5");
  TokenStore::build(request_, *tokenizer_, path);
  const std::string whole = core::read_file(path);
  const auto expect_refused = [&](std::string_view content) {
    folder_.write("s.h5", content);
    expect_error([&] { TokenStore::open(path); }, ErrorKind::kData,
                 {"s.h5", "not a complete token store", "delete it"});
  };
  expect_refused("");
  expect_refused("not HDF5 at all");
  expect_refused(whole.substr(0, whole.size() / 2));
  std::string other = whole;
  const size_t name = other.find("neoloom token store");
  ASSERT_NE(name, std::string::npos);
  other[name] = 'N';
  expect_refused(other);
  expect_error([&] { TokenStore::open(folder_.file("absent.h5")); }, ErrorKind::kData, {"absent.h5"});
}

TEST_F(Stores, ManyRowsComeBackAsTheyWentIn) {
  std::string content = "text,label\n";
  std::vector<std::string> expected;
  for (int i = 0; i < 30'000; ++i) {
    expected.emplace_back(static_cast<size_t>(i % 90), static_cast<char>('a' + i % 26));
    content += expected.back() + "," + std::to_string(i % 7) + "\n";
  }
  const auto store = build("a.csv", content);  // more ids than one piece of the spool
  EXPECT_EQ(texts_of(*store), expected);
  EXPECT_EQ(store->label(12'345), 12'345 % 7);
}

TEST_F(StoreTest, ATextWithATokenThatTheModelHasNoRowForIsRefusedWithItsLine) {
  request_.options.text_column = "text";
  const std::string rows = "{\"text\": \"a\", \"label\": 1}\n{\"text\": \"b<|endoftext|>\", \"label\": 0}\n";
  request_.embedding_rows = kEos + 1;
  EXPECT_EQ(build("a.jsonl", rows)->size(), 2);
  request_.embedding_rows = kEos;
  expect_data_error("a.jsonl", rows, {"line 2", "<|endoftext|> (id 256)", "256 rows"});
  request_.task = Task::kCausalLm;
  request_.tokenizer_options.add_eos_token = false;
  expect_data_error("a.txt", "a <|endoftext|> b", {"a.txt", "<|endoftext|> (id 256)"});
}

TEST_F(StoreTest, FirstValuesTellWhatAColumnHolds) {
  const auto kinds = [&](const std::string& name, const std::string& content) {
    Options options;
    std::vector<Cell::Kind> found;
    for (const Cell& cell : first_values(folder_.write(name, content), options, {"label", "labels"})) {
      found.push_back(cell.kind);
    }
    return found;
  };
  using Kind = Cell::Kind;
  EXPECT_THAT(kinds("a.jsonl", "{\"text\": \"a\"}\n{\"labels\": [1], \"label\": 2}\n"),
              testing::ElementsAre(Kind::kInteger, Kind::kList));
  EXPECT_THAT(kinds("a.csv", "text,label\na,\n"), testing::ElementsAre(Kind::kText, Kind::kMissing));
  EXPECT_THAT(kinds("a.txt", "label\n"), testing::ElementsAre(Kind::kMissing, Kind::kMissing));
}

}  // namespace
}  // namespace neoloom::data
