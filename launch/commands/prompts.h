// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

namespace neoloom::launch {

struct Prompt {
  std::string text;
  std::string where;  // opens messages: "prompts.txt: line 3: "; empty for --prompt
};

/// Reads `path`: one prompt a line, or, where the name ends in .jsonl, one object with a key "prompt" a line (a prompt
/// with line breaks in it). Without a path, `text` is the only prompt.
/// Throws: Error(kData) naming file and line; Error(kUsage) when `text` is not UTF-8.
std::vector<Prompt> read_prompts(const std::string& path, const std::string& text);

}  // namespace neoloom::launch
