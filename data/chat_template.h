// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "data/tokenizer/tokenizer.h"

namespace neoloom::data {

/// The role whose messages are learned, and generated.
inline constexpr std::string_view kAssistant = "assistant";

struct ChatMessage {
  std::string role;
  std::string content;
};

/// Writes chats as text (data.template with data.messages_column). Each role has a block: `{?user}User:
/// {user}\n{/user}` writes each message of the user, with its content in place of `{user}`.
class ChatTemplate {
 public:
  /// What stands around the content of a role's messages.
  struct Role {
    std::string name;
    std::string before;
    std::string after;
  };
  /// `text`: empty or "chat" for system, user and assistant with plain headers, or the blocks of the roles, nothing
  /// else. Throws: Error(kUsage) saying what is wrong, or that there is no block for the assistant.
  explicit ChatTemplate(std::string_view text);

  const std::vector<Role>& roles() const { return roles_; }
  /// Null for an unknown role.
  const Role* role(std::string_view name) const;

 private:
  std::vector<Role> roles_;
};

/// Reads messages from JSON: a list of {"role", "content"}; other keys are not looked at. Returns why it cannot be
/// used; empty on success.
std::string read_messages(std::string_view json, const ChatTemplate& form, std::vector<ChatMessage>& messages);

struct ChatTokens {
  std::vector<int32_t> ids;
  std::vector<int32_t> answers;  // TokenStore::target_spans: what the assistant says, with its eos token
};

struct ChatOptions {
  bool split_special_tokens = false;
  int32_t eos_id = -1;         // behind each answer; negative: none
  bool begins_answer = false;  // for generation: ends in what stands before an answer
};

/// Encodes a chat whose roles the template has. Answers are encoded apart from what stands between them, so that
/// generation sees the ids of training. What the template writes after a last answer is left out.
ChatTokens encode_chat(const ChatTemplate& form, const std::vector<ChatMessage>& messages, const Tokenizer& tokenizer,
                       const ChatOptions& options);

}  // namespace neoloom::data
