// SPDX-License-Identifier: Apache-2.0
#include "launch/commands/generate.h"

#include <algorithm>
#include <iostream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "launch/inference.h"
#include "runtime/core/error.h"
#include "runtime/core/files.h"

namespace neoloom::launch {
namespace {

std::vector<std::string> prompts(const GenerateArguments& arguments) {
  if (arguments.prompt_file.empty()) return {arguments.prompt};
  std::istringstream lines(core::read_file(arguments.prompt_file));
  std::vector<std::string> result;
  for (std::string line; std::getline(lines, line);) result.push_back(line);
  return result;
}

// Bytes at the end of `text` that may be the start of a longer UTF-8 sequence.
size_t incomplete_tail(const std::string& text) {
  for (size_t back = 1; back <= std::min<size_t>(3, text.size()); ++back) {
    const auto byte = static_cast<unsigned char>(text[text.size() - back]);
    if ((byte & 0xC0U) == 0x80U) continue;
    const size_t needed = byte >= 0xF0 ? 4 : byte >= 0xE0 ? 3 : byte >= 0xC0 ? 2 : 1;
    return needed > back ? back : 0;
  }
  return 0;
}

// Prints tokens as they come, holding back incomplete UTF-8 sequences.
class Stream {
 public:
  explicit Stream(const data::Tokenizer& tokenizer) : tokenizer_(tokenizer) {}
  void token(int64_t id) {
    pending_ += tokenizer_.token_bytes(static_cast<int32_t>(id));
    const size_t held = incomplete_tail(pending_);
    std::cout << pending_.substr(0, pending_.size() - held) << std::flush;
    pending_.erase(0, pending_.size() - held);
  }
  void end() { std::cout << pending_ << "\n" << std::flush; }

 private:
  const data::Tokenizer& tokenizer_;
  std::string pending_;
};

}  // namespace

int run_generate(comm::MpiSession& session, const GenerateArguments& arguments) {
  Inference inference = load_inference(session, arguments.model);
  session.all_or_none([&] {
    core::require(!inference.task.classifies(), core::ErrorKind::kUsage,
                  "generate continues texts, but this is a classifier: use neoloom predict");
  });
  session.on_root([&]() -> std::string {
    model::GenerationOptions options = arguments.options;
    options.eos_token_id = inference.base.config.eos_token_id;
    for (const std::string& prompt : prompts(arguments)) {
      const std::vector<int32_t> encoded = inference.tokenizer->encode(prompt);
      Stream stream(*inference.tokenizer);
      if (!arguments.json) std::cout << prompt;
      const auto on_token = [&](int64_t id) {
        if (!arguments.json) stream.token(id);
      };
      const std::vector<int64_t> ids =
          model::generate(*inference.model, inference.params, {encoded.begin(), encoded.end()}, options, on_token);
      if (!arguments.json) {
        stream.end();
        continue;
      }
      const std::string text = inference.tokenizer->decode(std::vector<int32_t>(ids.begin(), ids.end()));
      const nlohmann::ordered_json line = {{"prompt", prompt}, {"text", text}, {"ids", ids}};
      std::cout << line.dump() << "\n" << std::flush;
    }
    return "";
  });
  return 0;
}

}  // namespace neoloom::launch
