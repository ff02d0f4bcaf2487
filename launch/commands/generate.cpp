// SPDX-License-Identifier: Apache-2.0
#include "launch/commands/generate.h"

#include <fmt/ranges.h>

#include <nlohmann/json.hpp>

#include "data/readers/lines.h"
#include "data/readers/rows.h"
#include "launch/job/inference.h"
#include "model/generation/generation_config.h"
#include "runtime/core/error.h"
#include "runtime/core/files.h"
#include "runtime/core/output.h"
#include "runtime/core/text.h"
#include "runtime/core/utf8.h"

namespace neoloom::launch {
namespace {

using core::ErrorKind;

struct Prompt {
  std::string text;
  std::string where;  // opens messages: "prompts.txt: line 3: "; empty for --prompt
  std::vector<int64_t> ids;
};

void require_utf8(const Prompt& prompt) {
  const std::string complaint = core::utf8_complaint(prompt.text);
  if (complaint.empty()) return;
  const bool typed = prompt.where.empty();
  core::fail(typed ? ErrorKind::kUsage : ErrorKind::kData, "{}{}", typed ? "--prompt: " : prompt.where, complaint);
}

std::vector<Prompt> read_prompts(const GenerateArguments& arguments) {
  std::vector<Prompt> prompts;
  if (arguments.prompt_file.empty()) {
    prompts.push_back({arguments.prompt, "", {}});
  } else {
    const core::MappedFile file(arguments.prompt_file);
    data::require_text(arguments.prompt_file, file.text());
    data::Lines lines(data::without_byte_order_mark(file.text()));
    for (std::string_view line; lines.next(line);) {
      prompts.push_back({std::string(line), fmt::format("{}: line {}: ", arguments.prompt_file, lines.number()), {}});
    }
    core::require(!prompts.empty(), ErrorKind::kData, "{} is empty; expected one prompt a line", arguments.prompt_file);
  }
  for (const Prompt& prompt : prompts) require_utf8(prompt);
  return prompts;
}

/// Takes settings from the model folder where the command line does not give the option. Returns in words what it took.
std::string adopt(const model::GenerationConfig& theirs, const std::set<std::string>& given,
                  model::GenerationOptions& options) {
  std::vector<std::string> taken;
  const auto take = [&](const char* name, const auto& value, auto& option) {
    if (!value || given.contains(std::string("--") + name)) return;
    option = static_cast<std::remove_reference_t<decltype(option)>>(*value);
    taken.push_back(fmt::format("{} {}", name, *value));
  };
  take("temperature", theirs.temperature, options.temperature);
  take("top_k", theirs.top_k, options.top_k);
  take("top_p", theirs.top_p, options.top_p);
  take("repetition_penalty", theirs.repetition_penalty, options.repetition_penalty);
  take("max_tokens", theirs.max_new_tokens, options.max_tokens);
  // transformers penalises the whole context, and samples only when it is told to.
  if (theirs.repetition_penalty && !given.contains("--repetition_penalty") &&
      !given.contains("--repetition_penalty_range")) {
    options.repetition_penalty_range = -1;
  }
  if (theirs.do_sample && !*theirs.do_sample && !given.contains("--temperature")) {
    options.temperature = 0.0;
    taken.emplace_back("greedy (do_sample false)");
  }
  options.eos_token_ids = theirs.eos_token_ids;
  return fmt::format("{}", fmt::join(taken, ", "));
}

/// Returns the options as they hold for this model. Logs what comes from its folder.
model::GenerationOptions settle_options(const GenerateArguments& arguments, const Base& base, core::Logger& log) {
  const auto theirs = model::GenerationConfig::from_folder(base.folder, base.config);
  model::GenerationOptions options = arguments.options;
  if (const std::string taken = adopt(theirs, arguments.given, options); !taken.empty()) {
    log.info(fmt::format("{} sets {} (options of the command line take precedence)", theirs.file, taken));
  }
  if (theirs.eos_token_ids.empty()) {
    log.info(fmt::format("{} names no eos_token_id: as in transformers, no token ends a text", theirs.file));
  }
  if (!theirs.unknown.empty()) {
    log.warning(fmt::format("{} sets {}, which neoloom does not support: transformers generates other texts",
                            theirs.file, fmt::join(theirs.unknown, ", ")));
  }
  model::check_options(options);
  return options;
}

/// Prints tokens as they come, as valid UTF-8. Bytes that may still become a character wait, others print as U+FFFD.
class Stream {
 public:
  Stream(const data::Tokenizer& tokenizer, core::Output& output) : tokenizer_(tokenizer), output_(output) {}
  void token(int64_t id) {
    pending_ += tokenizer_.token_bytes(static_cast<int32_t>(id));
    const size_t held = core::utf8_incomplete_tail(pending_);
    output_.write(core::utf8_lossy(std::string_view(pending_).substr(0, pending_.size() - held)));
    output_.flush();
    pending_.erase(0, pending_.size() - held);
  }
  void end() {
    output_.write(core::utf8_lossy(pending_) + "\n");
    output_.flush();
  }

 private:
  const data::Tokenizer& tokenizer_;
  core::Output& output_;
  std::string pending_;
};

std::string json_line(const data::Tokenizer& tokenizer, const Prompt& prompt, const model::Generated& generated) {
  const std::string text = tokenizer.decode(std::vector<int32_t>(generated.ids.begin(), generated.ids.end()));
  const nlohmann::ordered_json line = {{"prompt", prompt.text},
                                       {"text", text},
                                       {"ids", generated.ids},
                                       {"finish_reason", model::finish_name(generated.finish)}};
  return line.dump() + "\n";
}

void answer(Inference& inference, const Prompt& prompt, const model::GenerationOptions& options, bool json,
            core::Output& output, core::Logger& log) {
  Stream stream(*inference.tokenizer, output);
  if (!json) output.write(prompt.text);
  const auto on_token = [&](int64_t id) {
    if (!json) stream.token(id);
  };
  const model::Generated generated = model::generate(*inference.model, inference.params, prompt.ids, options, on_token);
  if (json) {
    output.write(json_line(*inference.tokenizer, prompt, generated));
    output.flush();
  } else {
    stream.end();
  }
  if (generated.finish != model::Finish::kPositions) return;
  log.info(fmt::format("{}the text ends after {} of {} tokens: the model has {} positions", prompt.where,
                       generated.ids.size(), options.max_tokens, inference.base.config.max_position_embeddings));
}

}  // namespace

int run_generate(comm::MpiSession& session, const GenerateArguments& arguments) {
  std::vector<Prompt> prompts;
  session.run_on_root([&]() -> std::string {
    prompts = read_prompts(arguments);
    return "";
  });
  Inference inference = load_inference(session, arguments.model);
  session.run_on_all_or_fail([&] {
    core::require(!inference.task.classifies(), ErrorKind::kUsage,
                  "generate continues texts, but this is a classifier: use neoloom predict");
  });
  const auto phase = session.phase("generating", comm::MpiSession::kBuilding);
  session.run_on_root([&]() -> std::string {
    const model::GenerationOptions options = settle_options(arguments, inference.base, session.log());
    // Checks all prompts before the first answer.
    for (Prompt& prompt : prompts) {
      const std::vector<int32_t> ids =
          inference.tokenizer->encode_input(prompt.text, inference.config.tokenizer_config.split_special_tokens);
      prompt.ids.assign(ids.begin(), ids.end());
      model::check_prompt(prompt.ids, inference.base.config, prompt.where);
    }
    core::Output output;
    for (const Prompt& prompt : prompts) answer(inference, prompt, options, arguments.json, output, session.log());
    output.finish();
    return "";
  });
  return 0;
}

}  // namespace neoloom::launch
