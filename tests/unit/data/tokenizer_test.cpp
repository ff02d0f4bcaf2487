// SPDX-License-Identifier: Apache-2.0
#include "data/tokenizer/tokenizer.h"

#include "runtime/core/files.h"
#include "runtime/core/utf8.h"
#include "tests/unit/data/support.h"

namespace neoloom::data {
namespace {

using core::ErrorKind;
using testing::ElementsAre;

class TokenizerFolders : public testing::Test {
 protected:
  TokenizerFolders() { write_byte_tokenizer(folder_); }
  Tokenizer load() const { return Tokenizer::from_folder(folder_.path()); }
  TemporaryFolder folder_;
};

/// Writes tokenizer.json of the byte tokenizer with this post_processor.
void write_with_post_processor(const TemporaryFolder& folder, const std::string& processor) {
  const std::string vocab = core::read_file(folder.file("vocab.json"));
  folder.write(
      "tokenizer.json",
      R"({"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false}, "model": {"type": "BPE", "merges": [],
                   "vocab": )" +
          vocab + R"(}, "post_processor": )" + processor + "}");
}

std::string template_of(const std::string& single) {
  return R"({"type": "TemplateProcessing", "single": )" + single +
         R"(, "pair": [], "special_tokens": {"<|endoftext|>": {"id": "<|endoftext|>", "ids": [256], "tokens": ["x"]}}})";
}

constexpr const char* kBosThenText =
    R"([{"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}])";
constexpr const char* kByteLevel = R"({"type": "ByteLevel", "trim_offsets": true})";

TEST_F(TokenizerFolders, ATemplatePutsItsTokensInFrontOfEachInput) {
  write_with_post_processor(folder_, kByteLevel);
  const std::string plain = load().content_hash();
  EXPECT_EQ(load().encode_input("ab"), bytes_of("ab"));
  for (const std::string& processor :
       {template_of(kBosThenText), R"({"type": "Sequence", "processors": [)" + std::string(kByteLevel) + ", " +
                                       template_of(kBosThenText) + "]}"}) {
    write_with_post_processor(folder_, processor);
    const Tokenizer tokenizer = load();
    EXPECT_THAT(tokenizer.encode_input("ab"), ElementsAre(kEos, 'a', 'b'));
    EXPECT_THAT(tokenizer.encode_input(""), ElementsAre(kEos));
    EXPECT_EQ(tokenizer.encode("ab"), bytes_of("ab"));
    EXPECT_NE(tokenizer.content_hash(), plain) << "token stores of before must not be taken";
  }
  write_with_post_processor(folder_, "null");
  EXPECT_EQ(load().content_hash(), plain);
}

TEST_F(TokenizerFolders, AddBosTokenCountsWithoutATokenizerJson) {
  folder_.write("tokenizer_config.json", R"({"add_bos_token": true})");
  EXPECT_THAT(load().encode_input("ab"), ElementsAre(kEos, 'a', 'b'));
  folder_.write("tokenizer_config.json", R"({"add_bos_token": true, "bos_token": null})");
  EXPECT_EQ(load().encode_input("ab"), bytes_of("ab"));
  folder_.write("tokenizer_config.json", R"({"add_eos_token": true})");
  expect_error([&] { load(); }, ErrorKind::kWeights, {"tokenizer_config.json", "add_eos_token"});
  write_with_post_processor(folder_, "null");
  EXPECT_EQ(load().encode_input("ab"), bytes_of("ab"));
}

TEST_F(TokenizerFolders, PostProcessorsThatCannotBeExpressedAreRefusedByName) {
  const auto refused = [&](const std::string& processor, const std::vector<std::string>& parts) {
    write_with_post_processor(folder_, processor);
    expect_error([&] { load(); }, ErrorKind::kWeights, parts);
  };
  const std::string token = R"({"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}})";
  const std::string text = R"({"Sequence": {"id": "A", "type_id": 0}})";
  refused(template_of("[" + text + ", " + token + "]"), {"tokenizer.json", "after the text"});
  refused(template_of("[" + text + ", " + text + "]"), {"more than one text"});
  refused(template_of("[" + token + "]"), {"no text"});
  refused(template_of(R"([{"SpecialToken": {"id": "[CLS]"}}, )" + text + "]"), {"ids of \"[CLS]\""});
  refused(R"({"type": "RobertaProcessing", "sep": ["</s>", 2], "cls": ["<s>", 0]})", {"\"RobertaProcessing\""});
  refused(
      R"({"type": "Sequence", "processors": [)" + template_of(kBosThenText) + ", " + template_of(kBosThenText) + "]}",
      {"twice"});
}

TEST_F(TokenizerFolders, EveryByteStringHasAnEncoding) {
  const Tokenizer tokenizer = load();
  std::string all;
  for (int byte = 0; byte < 256; ++byte) all.push_back(static_cast<char>(byte));
  EXPECT_EQ(tokenizer.encode(all), bytes_of(all));
  EXPECT_TRUE(tokenizer.encode("").empty());
}

TEST_F(TokenizerFolders, MergesFollowTheirRankFromTheLeft) {
  std::string vocab = "{\"a\": 0, \"b\": 1, \"aa\": 2, \"ab\": 3, \"aab\": 4}";
  folder_.write("vocab.json", vocab);
  folder_.write("merges.txt", "#version: 0.2\na a\na b\naa b\n");
  const Tokenizer tokenizer = load();
  EXPECT_THAT(tokenizer.encode("aaab"), ElementsAre(2, 3));
  EXPECT_THAT(tokenizer.encode("aab"), ElementsAre(4));
  EXPECT_EQ(tokenizer.vocab_size(), 5);
  EXPECT_EQ(tokenizer.eos_token_id(), -1);
}

TEST_F(TokenizerFolders, MergesThatNeedAnAbsentTokenAreRefused) {
  folder_.write("merges.txt", "#version: 0.2\na b\n");
  expect_error([&] { load(); }, ErrorKind::kWeights, {"merge 1", "\"ab\"", "not in the vocabulary"});
  folder_.write("merges.txt", "#version: 0.2\na b c\n");
  expect_error([&] { load(); }, ErrorKind::kWeights, {"merges.txt", "merge 1", "a b c"});
}

TEST_F(TokenizerFolders, BrokenFilesAreNamed) {
  folder_.write("vocab.json", "{\"a\": ");
  expect_error([&] { load(); }, ErrorKind::kWeights, {"vocab.json", "not valid JSON"});
  folder_.write("vocab.json", "{\"a\": -1}");
  expect_error([&] { load(); }, ErrorKind::kWeights, {"vocab.json", "\"a\"", "-1"});
  folder_.write("vocab.json", "{\"a\": 2147483647}");
  expect_error([&] { load(); }, ErrorKind::kWeights, {"vocab.json", "2147483647"});
  expect_error([&] { Tokenizer::from_folder(folder_.file("absent")); }, ErrorKind::kWeights,
               {"absent", "does not exist"});
}

TEST_F(TokenizerFolders, IdsBeyondAnyVocabularyOrOfTwoTokensAreRefused) {
  const auto expect_refused = [&](const char* name, const std::string& content, const std::string& found) {
    folder_.write(name, content);
    expect_error([&] { load(); }, ErrorKind::kWeights, {name, found});
    folder_.write(name, "{}");
  };
  for (const char* id : {"999999999", "16777216"}) {
    expect_refused("tokenizer_config.json",
                   fmt::format("{{\"added_tokens_decoder\": {{\"{}\": {{\"content\": \"<x>\"}}}}}}", id), id);
    expect_refused("added_tokens.json", fmt::format("{{\"<x>\": {}}}", id), id);
  }
  expect_refused("added_tokens.json", "{\"<x>\": -1}", "-1");
  expect_refused("added_tokens.json", "{\"<x>\": 1.5}", "1.5");
  folder_.write("vocab.json", "{\"a\": 0, \"b\": 0}");
  expect_error([&] { load(); }, ErrorKind::kWeights, {"vocab.json", "two tokens", "the id 0"});
}

TEST_F(TokenizerFolders, AnIdFarAboveTheOthersTakesNoMemory) {
  folder_.write("added_tokens.json", "{\"<x>\": 16777215}");
  const Tokenizer tokenizer = load();
  EXPECT_EQ(tokenizer.vocab_size(), 16777216);
  EXPECT_EQ(tokenizer.token_bytes(16777215), "<x>");
  EXPECT_EQ(tokenizer.token_bytes(16777214), "");
  EXPECT_THAT(tokenizer.encode("<x>"), ElementsAre(16777215));
}

TEST_F(TokenizerFolders, FilesNestedFiveMillionDeepAreRefused) {
  const std::string deep(5'000'000, '[');
  for (const char* name :
       {"tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json", "tokenizer.json"}) {
    folder_.write(name, "{\"a\": " + deep);
    expect_error([&] { load(); }, ErrorKind::kWeights, {name, "nested deeper than 100 levels"});
    std::filesystem::remove(folder_.file(name));
    write_byte_tokenizer(folder_);
  }
}

TEST_F(TokenizerFolders, ManyAddedTokensAreReadAndFoundInLinearTime) {
  constexpr int kTokens = 200'000;  // quadratic time would be minutes
  std::string added = "{";
  for (int i = 0; i < kTokens; ++i) added += fmt::format("{}\"<{}>\": {}", i == 0 ? "" : ", ", i, 1000 + i);
  folder_.write("added_tokens.json", added + "}");
  const Tokenizer tokenizer = load();
  std::string text;
  std::vector<int32_t> expected;
  for (int i = 0; i < kTokens; ++i) {
    text += fmt::format("<{}>", i);
    expected.push_back(1000 + i);
  }
  EXPECT_TRUE(tokenizer.encode(text) == expected);
}

TEST_F(TokenizerFolders, OfAddedTokensThatBeginAlikeTheLongestIsTaken) {
  folder_.write("added_tokens.json", "{\"<x\": 1000, \"<x>\": 1001, \"<x>y\": 1002}");
  EXPECT_THAT(load().encode("<x>y<x><xz"), ElementsAre(1002, 1001, 1000, 'z'));
}

TEST_F(TokenizerFolders, ValuesOfUnexpectedTypesAreErrorsOfTheFolder) {
  for (
      const char* content :
      {R"([])", R"({"model": 5})", R"({"model": {"type": 5}, "pre_tokenizer": {"type": "ByteLevel"}})",
       R"({"model": {"vocab": [], "merges": {}}, "pre_tokenizer": {"type": "ByteLevel"}})",
       R"({"model": {"vocab": {"a": 0}, "merges": [[1, 2]]}, "pre_tokenizer": {"type": "ByteLevel"}})",
       R"({"model": {"vocab": {"a": 0}, "merges": []}, "added_tokens": [7], "pre_tokenizer": {"type": "ByteLevel"}})"}) {
    folder_.write("tokenizer.json", content);
    expect_error([&] { load(); }, ErrorKind::kWeights, {folder_.path()});
  }
}

TEST_F(TokenizerFolders, PadTokenComesFromTheConfiguration) {
  EXPECT_EQ(load().pad_token_id(), -1);
  EXPECT_EQ(load().eos_token_id(), kEos);
  folder_.write("special_tokens_map.json", "{\"pad_token\": {\"content\": \"<|endoftext|>\"}, \"eos_token\": \"q\"}");
  EXPECT_EQ(load().pad_token_id(), kEos);
  EXPECT_EQ(load().eos_token_id(), 'q');
  folder_.write("tokenizer_config.json", "{\"pad_token\": \"<pad>\"}");
  expect_error([&] { load(); }, ErrorKind::kWeights, {"<pad>"});
  folder_.write("added_tokens.json", "{\"<pad>\": 300}");
  EXPECT_EQ(load().pad_token_id(), 300);
  EXPECT_EQ(load().vocab_size(), 301);
  EXPECT_THAT(load().encode("a<pad>b"), ElementsAre('a', 300, 'b'));
}

TEST_F(TokenizerFolders, IdsBeyondTheVocabularyPrintNothing) {
  const Tokenizer tokenizer = load();
  const std::vector<int32_t> ids = {'a', 9999, -5, kEos, 'b'};
  EXPECT_EQ(tokenizer.decode(ids), "a<|endoftext|>b");
  EXPECT_EQ(tokenizer.decode(ids, true), "ab");
  EXPECT_EQ(tokenizer.token_bytes(0xC3), "\xC3");
}

TEST_F(TokenizerFolders, CloneOutlivesTheOriginal) {
  std::optional<Tokenizer> original(load());
  Tokenizer copy = original->clone();
  original.reset();
  EXPECT_THAT(copy.encode("hi"), ElementsAre('h', 'i'));
  copy = load();
  EXPECT_THAT(copy.encode("hi"), ElementsAre('h', 'i'));
}

TEST_F(TokenizerFolders, MoreWordsThanTheCacheHolds) {
  const Tokenizer tokenizer = load();
  std::string text;
  for (int i = 0; i < 150'000; ++i) text += fmt::format("w{:x} ", i);
  EXPECT_EQ(tokenizer.encode(text), bytes_of(text));
  EXPECT_EQ(tokenizer.encode(text), bytes_of(text));
}

TEST_F(TokenizerFolders, FilesAreListedForCopying) {
  EXPECT_THAT(load().files(), ElementsAre(folder_.file("vocab.json"), folder_.file("merges.txt")));
}

TEST(Utf8, FindsTheFirstInvalidByte) {
  EXPECT_EQ(core::utf8_prefix_bytes("plain ascii text"), 16U);
  EXPECT_EQ(core::utf8_prefix_bytes("caf\u00e9 \U0001F600"), 10U);
  for (const char* invalid : {"\x80", "\xC0\x80", "\xC1\xBF", "\xE0\x80\x80", "\xED\xA0\x80", "\xF0\x80\x80\x80",
                              "\xF4\x90\x80\x80", "\xF5\x80\x80\x80", "\xE2\x82", "\xFF"}) {
    EXPECT_EQ(core::utf8_prefix_bytes("abcdefghij" + std::string(invalid)), 10U) << invalid;
  }
}

TEST(Utf8, InvalidPartsAreReplacedAsPythonReplacesThem) {
  // The expected texts are those of bytes.decode("utf-8", errors="replace") in Python 3.
  const std::string r = "\uFFFD";
  EXPECT_EQ(core::utf8_lossy("a\xFFz"), "a" + r + "z");
  EXPECT_EQ(core::utf8_lossy("\xE2\x82z"), r + "z");
  EXPECT_EQ(core::utf8_lossy("\xF0\x9F\x98"), r);
  EXPECT_EQ(core::utf8_lossy("\xED\xA0\x80"), r + r + r);
  EXPECT_EQ(core::utf8_lossy("\xC0\xAF"), r + r);
}

}  // namespace
}  // namespace neoloom::data
