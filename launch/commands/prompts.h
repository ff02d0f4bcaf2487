// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "data/chat_template.h"
#include "data/prompt_template.h"

namespace neoloom::launch {

struct Prompt {
  std::string text;
  std::string where;                           // opens messages: "prompts.txt: line 3: "; empty for --prompt
  std::map<std::string, std::string> columns;  // of a JSONL line: those that are texts
  std::map<std::string, std::string> lists;    // of a JSONL line: those that are lists, as JSON
  bool is_object = false;                      // from JSONL: `text` is not known yet
  bool from_template = false;
  std::vector<data::ChatMessage> messages;  // of a chat
  std::vector<int64_t> ids;                 // tokens of `text`, once they are made
};

/// Reads `path`, compressed or not: by its name JSON lines, a JSON array of objects, or else one prompt a line. Without
/// a path, `text` is the only prompt. Throws: Error(kData) naming file and line; Error(kUsage) when `text` is not
/// UTF-8.
std::vector<Prompt> read_prompts(const std::string& path, const std::string& text);

/// Makes the texts of prompts: of an object its column "prompt" or, with a template (nullptr: none), what that makes of
/// its columns. A plain prompt stands for the only column that the template cannot do without.
/// Throws: Error(kData), or Error(kUsage) for a plain prompt, naming the columns that are missing.
void make_texts(std::vector<Prompt>& prompts, const data::PromptTemplate* form);

/// Makes the messages of prompts for a run of chats: those of an object's column `column`, else one of the user with
/// its column "prompt", or with a plain prompt. Their texts follow once they are encoded. Throws: Error(kData), or
/// Error(kUsage) for a plain prompt, for messages that cannot be used.
void make_chats(std::vector<Prompt>& prompts, const data::ChatTemplate& form, const std::string& column);

}  // namespace neoloom::launch
