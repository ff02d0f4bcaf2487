// SPDX-License-Identifier: Apache-2.0
#include "data/chat_template.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "data/template_parts.h"
#include "runtime/core/error.h"
#include "runtime/core/json.h"
#include "runtime/core/text.h"

namespace neoloom::data {
namespace {

using core::ErrorKind;
using Kind = TemplatePart::Kind;
using nlohmann::json;

constexpr std::string_view kChat =
    "{?system}### System:\n{system}\n\n{/system}{?user}### User:\n{user}\n\n{/user}"
    "{?assistant}### Assistant:\n{assistant}\n\n{/assistant}";

std::vector<std::string> names_of(const std::vector<ChatTemplate::Role>& roles) {
  std::vector<std::string> names;
  names.reserve(roles.size());
  for (const ChatTemplate::Role& role : roles) names.push_back(role.name);
  return names;
}

/// Reads one message. Returns what is wrong with it.
std::string read_message(const json& value, const ChatTemplate& form, ChatMessage& message) {
  constexpr std::string_view kExpected = R"(expected {"role": ..., "content": ...})";
  if (!value.is_object()) return fmt::format("{}, found {}", kExpected, value.type_name());
  for (const auto& [key, place] : {std::pair{"role", &message.role}, {"content", &message.content}}) {
    const auto found = value.find(key);
    if (found == value.end()) {
      std::vector<std::string> keys;
      for (const auto& [name, ignored] : value.items()) keys.push_back(name);
      return fmt::format("{}, found {}", kExpected, keys.empty() ? "no keys" : "the keys " + core::quoted_list(keys));
    }
    if (!found->is_string()) return fmt::format("its {} is no text: found {}", key, found->type_name());
    *place = found->get<std::string>();
  }
  if (form.role(message.role) != nullptr) return "";
  return fmt::format("the template has no role {}; its roles are {}", core::quoted(message.role),
                     core::quoted_list(names_of(form.roles())));
}

/// Joins the text between answers, and encodes it when an answer comes.
class Encoder {
 public:
  Encoder(const Tokenizer& tokenizer, const ChatOptions& options) : tokenizer_(tokenizer), options_(options) {}

  void text(std::string_view text) { text_ += text; }
  void answer(std::string_view content) {
    encode_text();
    const auto begin = static_cast<int32_t>(chat_.ids.size());
    add(tokenizer_.encode(content, options_.split_special_tokens));
    if (options_.eos_id >= 0) chat_.ids.push_back(options_.eos_id);
    chat_.answers.insert(chat_.answers.end(), {begin, static_cast<int32_t>(chat_.ids.size())});
  }
  ChatTokens finish() {
    encode_text();
    return std::move(chat_);
  }

 private:
  void encode_text() {
    const bool first = std::exchange(first_, false);
    add(first ? tokenizer_.encode_input(text_, options_.split_special_tokens)
              : tokenizer_.encode(text_, options_.split_special_tokens));
    text_.clear();
  }
  void add(const std::vector<int32_t>& ids) { chat_.ids.insert(chat_.ids.end(), ids.begin(), ids.end()); }

  const Tokenizer& tokenizer_;
  const ChatOptions& options_;
  std::string text_;
  bool first_ = true;
  ChatTokens chat_;
};

}  // namespace

ChatTemplate::ChatTemplate(std::string_view text) {
  const auto [parts, columns] = parse_template(text.empty() || text == "chat" ? kChat : text);
  const auto is = [&, &parts = parts](size_t at, Kind kind) { return at < parts.size() && parts[at].kind == kind; };
  for (size_t at = 0; at < parts.size(); ++at) {
    const size_t column = parts[at].column;
    Role role{is(at, Kind::kBegin) ? columns[column].name : "", "", ""};
    if (is(at + 1, Kind::kText)) role.before = parts[++at].text;
    const bool has_content = is(++at, Kind::kColumn) && parts[at].column == column;
    if (is(at + 1, Kind::kText)) role.after = parts[++at].text;
    core::require(!role.name.empty() && has_content && is(++at, Kind::kEnd), ErrorKind::kUsage,
                  "expected \"chat\", or a block for each role and nothing else, such as "
                  "\"{{?user}}User: {{user}}\\n{{/user}}{{?assistant}}Assistant: {{assistant}}\\n{{/assistant}}\"");
    core::require(this->role(role.name) == nullptr, ErrorKind::kUsage, "the role {} has two blocks",
                  core::quoted(role.name));
    roles_.push_back(std::move(role));
  }
  core::require(role(kAssistant) != nullptr, ErrorKind::kUsage,
                "the role \"assistant\" has no block; expected {{?assistant}}...{{assistant}}...{{/assistant}}");
}

const ChatTemplate::Role* ChatTemplate::role(std::string_view name) const {
  const auto found = std::find_if(roles_.begin(), roles_.end(), [&](const Role& role) { return role.name == name; });
  return found == roles_.end() ? nullptr : &*found;
}

std::string read_messages(std::string_view text, const ChatTemplate& form, std::vector<ChatMessage>& messages) {
  messages.clear();
  if (std::string excess = core::json_excess(text); !excess.empty()) return excess;
  const json list = json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!list.is_array()) {
    return fmt::format("expected a list of messages, found {}", list.is_discarded() ? "no JSON" : list.type_name());
  }
  for (const json& value : list) {
    const std::string complaint = read_message(value, form, messages.emplace_back());
    if (!complaint.empty()) return fmt::format("message {}: {}", messages.size(), complaint);
  }
  return messages.empty() ? "the list of messages is empty" : "";
}

ChatTokens encode_chat(const ChatTemplate& form, const std::vector<ChatMessage>& messages, const Tokenizer& tokenizer,
                       const ChatOptions& options) {
  Encoder encoder(tokenizer, options);
  for (size_t i = 0; i < messages.size(); ++i) {
    const ChatTemplate::Role& role = *form.role(messages[i].role);
    const bool answer = role.name == kAssistant;
    const bool last = i + 1 == messages.size() && !options.begins_answer;
    encoder.text(role.before);
    answer ? encoder.answer(messages[i].content) : encoder.text(messages[i].content);
    if (!answer || !last) encoder.text(role.after);
  }
  if (options.begins_answer) encoder.text(form.role(kAssistant)->before);
  return encoder.finish();
}

}  // namespace neoloom::data
