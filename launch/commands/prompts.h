// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace neoloom::launch {

struct Prompt {
  std::string text;
  std::string where;                           // opens messages: "prompts.txt: line 3: "; empty for --prompt
  std::map<std::string, std::string> columns;  // of a JSONL line: those that are texts
  bool is_object = false;                      // from JSONL: `text` is not known yet
  bool from_template = false;
  std::vector<int64_t> ids;  // tokens of `text`, once they are made
};

/// Reads `path`: one prompt a line, or, where the name ends in .jsonl, one object a line. Without a path, `text` is the
/// only prompt. Throws: Error(kData) naming file and line; Error(kUsage) when `text` is not UTF-8.
std::vector<Prompt> read_prompts(const std::string& path, const std::string& text);

/// Makes the texts of prompts: of an object its column "prompt" or, with a template (data.template), what that makes of
/// its columns. A plain prompt stands for the only column that the template cannot do without.
/// Throws: Error(kData), or Error(kUsage) for a plain prompt, naming the columns that are missing.
void make_texts(std::vector<Prompt>& prompts, const std::string& prompt_template);

}  // namespace neoloom::launch
