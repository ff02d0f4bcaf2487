// SPDX-License-Identifier: Apache-2.0
#include "data/chat_template.h"

#include "data/batching/ragged_batch.h"
#include "tests/unit/data/support.h"

namespace neoloom::data {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

// tests/parity/test_chats.py compares chats with transformers' apply_chat_template.

constexpr const char* kShort = "{?user}U:{user}|{/user}{?assistant}A:{assistant}|{/assistant}";

TEST(ChatTemplate, HasABlockForEachRole) {
  const ChatTemplate form("{?tool}<{tool}>{/tool}{?assistant}{{{assistant}}}{/assistant}{?user}{user}{/user}");
  ASSERT_EQ(form.roles().size(), 3U);
  EXPECT_EQ(form.role("tool")->before, "<");
  EXPECT_EQ(form.role("tool")->after, ">");
  EXPECT_EQ(form.role("assistant")->before, "{");
  EXPECT_EQ(form.role("user")->before, "");
  EXPECT_EQ(form.role("system"), nullptr);
  EXPECT_EQ(ChatTemplate("").role("user")->before, "### User:\n");
}

TEST(ChatTemplate, MistakesAreNamed) {
  const auto complaint = [](const char* text) { return error_of([&] { ChatTemplate form(text); }); };
  EXPECT_THAT(complaint("alpaca").what(), HasSubstr("expected \"chat\", or a block for each role"));
  EXPECT_THAT(complaint("{?user}{user}{/user} {?assistant}{assistant}{/assistant}").what(), HasSubstr("nothing else"));
  EXPECT_THAT(complaint("{?user}{other}{/user}").what(), HasSubstr("a block for each role"));
  EXPECT_THAT(complaint("{?user}{user}{/user}").what(), HasSubstr("\"assistant\" has no block"));
  EXPECT_THAT(complaint("{?assistant}{assistant}{/assistant}{?assistant}{assistant}{/assistant}").what(),
              HasSubstr("\"assistant\" has two blocks"));
}

TEST(ChatTemplate, MessagesThatCannotBeUsedAreNamed) {
  const ChatTemplate form("");
  std::vector<ChatMessage> messages;
  const auto complaint = [&](const char* json) { return read_messages(json, form, messages); };
  EXPECT_EQ(complaint(R"([{"role": "user", "content": "a", "name": "x"}])"), "");
  ASSERT_EQ(messages.size(), 1U);
  EXPECT_EQ(messages[0].content, "a");
  EXPECT_THAT(complaint("[]"), HasSubstr("empty"));
  EXPECT_THAT(complaint("7"), HasSubstr("expected a list of messages, found number"));
  EXPECT_THAT(complaint(R"([{"role": "user", "content": "a"}, "b"])"), HasSubstr("message 2: expected {\"role\""));
  EXPECT_THAT(complaint(R"([{"from": "human", "value": "a"}])"), HasSubstr("found the keys \"from\", \"value\""));
  EXPECT_THAT(
      complaint(R"([{"role": "bot", "content": "a"}])"),
      HasSubstr("message 1: the template has no role \"bot\"; its roles are \"system\", \"user\", \"assistant\""));
  EXPECT_THAT(complaint(R"([{"role": "user", "content": [{"type": "text"}]}])"),
              HasSubstr("its content is no text: found array"));
  EXPECT_THAT(complaint(R"([{"role": "user", "content": null}])"), HasSubstr("its content is no text: found null"));
}

class Chats : public StoreTest {
 protected:
  Chats() {
    request_.task = Task::kCausalLm;
    request_.options.messages_column = "messages";
    request_.options.prompt_template = kShort;
  }
  static std::string row(const std::vector<std::pair<std::string, std::string>>& messages) {
    std::string text;
    for (const auto& [role, content] : messages) {
      text += fmt::format(R"({}{{"role": "{}", "content": "{}"}})", text.empty() ? "" : ", ", role, content);
    }
    return fmt::format("{{\"messages\": [{}]}}\n", text);
  }
  /// The targets of a sample, as text.
  static std::string targets_of(const TokenStore& store, int64_t sample) {
    std::string text;
    for (const int64_t id : collate(store, {sample}, Task::kCausalLm, 0).targets) {
      text += id == kEos ? std::string("<eos>") : std::string(1, static_cast<char>(id));
    }
    return text;
  }
  const std::string two_turns_ = row({{"user", "a"}, {"assistant", "bc"}, {"user", "d"}, {"assistant", "e"}});
};

TEST_F(Chats, AreLearnedInTheAnswersOnlyEachWithItsEnd) {
  const auto store = build("a.jsonl", two_turns_);
  EXPECT_EQ(text_of(*store, 0), "U:a|A:bc<eos>|U:d|A:e<eos>");
  EXPECT_EQ(targets_of(*store, 0), "bc<eos>e<eos>");
  EXPECT_EQ(store->target_counts()[0], 5);
  EXPECT_EQ(store->prompt_tokens(0), 6);
  EXPECT_THAT(store->target_spans(0), ElementsAre(6, 9, 16, 18));
}

TEST_F(Chats, AreLearnedWholeWithoutCompletionOnlyLoss) {
  request_.loss_on_prompt = true;
  const auto store = build("a.jsonl", two_turns_);
  EXPECT_EQ(targets_of(*store, 0), ":a|A:bc<eos>|U:d|A:e<eos>");
  EXPECT_EQ(store->target_counts()[0], 17);
  EXPECT_THAT(store->target_spans(0), IsEmpty());
}

TEST_F(Chats, WithoutEndOfTextAndWithAQuestionLast) {
  request_.tokenizer_options.add_eos_token = false;
  const auto store = build("a.jsonl", row({{"assistant", "a"}, {"user", "b"}}));
  EXPECT_EQ(text_of(*store, 0), "A:a|U:b|");
  EXPECT_EQ(targets_of(*store, 0), "a");
}

TEST_F(Chats, AreCutAtTheirEndOrTheirStart) {
  request_.max_length_tokens = 8;
  auto store = build("a.jsonl", two_turns_);
  EXPECT_EQ(text_of(*store, 0), "U:a|A:bc");
  EXPECT_EQ(targets_of(*store, 0), "bc");
  EXPECT_EQ(store->truncated_samples(), 1);
  request_.tokenizer_options.truncation_side = "left";
  request_.max_length_tokens = 10;
  store = build("a.jsonl", two_turns_);
  EXPECT_EQ(text_of(*store, 0), "<eos>|U:d|A:e<eos>");
  EXPECT_EQ(targets_of(*store, 0), "e<eos>");
  request_.tokenizer_options.truncation_side = "right";
  request_.max_length_tokens = 4;
  store = build("a.jsonl", two_turns_);
  EXPECT_EQ(store->target_counts()[0], 0);
  EXPECT_EQ(targets_of(*store, 0), "");
  EXPECT_EQ(store->packs_without_target(), 1);
}

TEST_F(Chats, ThatCannotBeUsedAreNamedByLine) {
  expect_data_error("a.jsonl", two_turns_ + row({{"user", "a"}}),
                    {"line 2: \"messages\": no message has the role \"assistant\""});
  expect_data_error("a.jsonl", two_turns_ + "{\"text\": \"x\"}\n", {"line 2: no value for \"messages\""});
  expect_data_error("a.jsonl", two_turns_ + row({{"user", "a"}, {"bot", "b"}}), {"line 2", "message 2", "\"bot\""});
  expect_data_error("a.jsonl", two_turns_ + "{\"messages\": \"a\"}\n", {"line 2", "expected a list of messages"});
  expect_data_error("a.csv", "messages\nhello\n", {"line 2", "expected a list of messages"});
}

TEST_F(Chats, ToBeAnsweredEndWhereAnAnswerBegins) {
  const ChatTemplate form(kShort);
  const std::vector<ChatMessage> messages = {{"user", "a"}, {"assistant", "bc"}, {"user", "d"}};
  const ChatTokens prompt = encode_chat(form, messages, *tokenizer_, {.eos_id = kEos, .begins_answer = true});
  const auto store = build("a.jsonl", two_turns_);
  const auto trained = store->ids(0).first(16);
  EXPECT_EQ(prompt.ids, std::vector<int32_t>(trained.begin(), trained.end()));
}

}  // namespace
}  // namespace neoloom::data
