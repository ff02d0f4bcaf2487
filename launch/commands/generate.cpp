// SPDX-License-Identifier: Apache-2.0
#include "launch/commands/generate.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "data/prompt_template.h"
#include "data/readers/line_reader.h"
#include "launch/commands/input_lines.h"
#include "launch/commands/prompts.h"
#include "launch/job/inference.h"
#include "model/generation/generate.h"
#include "model/generation/generation_config.h"
#include "model/generation/stop_strings.h"
#include "runtime/core/error.h"
#include "runtime/core/json.h"
#include "runtime/core/output.h"
#include "runtime/core/text.h"
#include "runtime/core/utf8.h"

namespace neoloom::launch {
namespace {

using core::ErrorKind;

constexpr size_t kLongestReasonBytes = 400;

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
  take("min_p", theirs.min_p, options.min_p);
  take("repetition_penalty", theirs.repetition_penalty, options.repetition_penalty);
  take("no_repeat_ngram_size", theirs.no_repeat_ngram_size, options.no_repeat_ngram_size);
  take("min_new_tokens", theirs.min_new_tokens, options.min_new_tokens);
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

/// What holds for a model: options of the command line before those of its folder.
struct Settings {
  model::GenerationOptions options;
  std::vector<std::string> stop_strings;
  int64_t sequences = 1;  // texts a prompt
};

void log_settings(const model::GenerationConfig& theirs, const std::string& taken, core::Logger& log) {
  if (!taken.empty()) {
    log.info(fmt::format("{} sets {} (options of the command line take precedence)", theirs.file, taken));
  }
  if (theirs.eos_token_ids.empty()) {
    log.info(fmt::format("{} names no eos_token_id: as in transformers, no token ends a text", theirs.file));
  }
  if (!theirs.unknown.empty()) {
    log.warning(fmt::format("{} sets {}, which neoloom does not support: transformers generates other texts",
                            theirs.file, fmt::join(theirs.unknown, ", ")));
  }
}

Settings settle(const GenerateArguments& arguments, const Base& base, core::Logger* log) {
  const auto theirs = model::GenerationConfig::from_folder(base.folder, base.config);
  Settings settings{arguments.options, arguments.stop_strings, arguments.num_return_sequences};
  std::string taken = adopt(theirs, arguments.given, settings.options);
  const auto also = [&](const std::string& text) { taken += (taken.empty() ? "" : ", ") + text; };
  if (!theirs.stop_strings.empty() && settings.stop_strings.empty()) {
    settings.stop_strings = theirs.stop_strings;
    also(fmt::format("{} stop_strings", theirs.stop_strings.size()));
  }
  if (theirs.num_return_sequences && !arguments.given.contains("--num_return_sequences")) {
    settings.sequences = *theirs.num_return_sequences;
    also(fmt::format("num_return_sequences {}", settings.sequences));
  }
  if (log != nullptr) log_settings(theirs, taken, *log);
  model::check_options(settings.options);
  core::require(settings.sequences == 1 || settings.options.temperature > 0.0, ErrorKind::kUsage,
                "num_return_sequences is {}: greedy texts (temperature 0) of a prompt are all equal; expected 1",
                settings.sequences);
  return settings;
}

/// The template that prompts fill in; none: they are whole texts.
std::optional<data::PromptTemplate> template_of(const GenerateArguments& arguments, const Inference& inference) {
  const data::Options& data = inference.config.data;
  if (arguments.no_template || data.prompt_template.empty()) return std::nullopt;
  return data::PromptTemplate(data);
}

/// One text to generate and what is known of it.
struct Text {
  const Prompt* prompt;
  int64_t sequence;
  model::StopStrings so_far;
  size_t printed_bytes = 0;
  std::string line;  // complete, with its line break
  bool ended = false;
};

std::string json_line(const Text& text, const model::Generated& generated, bool several) {
  nlohmann::ordered_json line = {{"prompt", text.prompt->text}};
  if (several) line["sequence"] = text.sequence;
  line["text"] = core::utf8_lossy(text.so_far.text());
  line["ids"] = generated.ids;
  line["finish_reason"] = model::finish_name(generated.finish);
  return line.dump() + "\n";
}

/// What stands before the text. A template is not repeated.
std::string_view shown(const Prompt& prompt) { return prompt.from_template ? "" : std::string_view(prompt.text); }

/// Generates some texts beside each other and gives their lines in order, each as soon as those before it are there.
class Answers {
 public:
  using Print = std::function<void(std::string_view)>;

  Answers(Inference& inference, const GenerateArguments& arguments, const Settings& settings, core::Logger& log,
          Print print)
      : inference_(inference), arguments_(arguments), settings_(settings), log_(log), print_(std::move(print)) {}

  /// `streams`: prints the tokens of a single text as they come.
  void run(std::vector<Text> texts, bool streams) {
    texts_ = std::move(texts);
    given_ = 0;
    streams_ = streams;
    std::vector<model::TextRequest> requests;
    for (const Text& text : texts_) requests.push_back({text.prompt->ids, text.sequence});
    if (streams_) print_(shown(*texts_.front().prompt));
    model::generate(*inference_.model, inference_.params, requests, settings_.options, arguments_.batch_size,
                    {[&](size_t i, int64_t id) { return add(texts_[i], id); },
                     [&](size_t i, const model::Generated& generated) { end(texts_[i], generated); }});
  }

 private:
  bool add(Text& text, int64_t id) {
    const bool ended = text.so_far.append(inference_.tokenizer->token_bytes(static_cast<int32_t>(id)));
    if (streams_) print_more(text, text.so_far.settled_bytes());
    return ended;
  }

  /// Prints valid UTF-8. Bytes that may still become a character wait, others print as U+FFFD.
  void print_more(Text& text, size_t settled_bytes) {
    const std::string_view fresh =
        std::string_view(text.so_far.text()).substr(text.printed_bytes, settled_bytes - text.printed_bytes);
    const size_t whole = fresh.size() - core::utf8_incomplete_tail(fresh);
    print_(core::utf8_lossy(fresh.substr(0, whole)));
    text.printed_bytes += whole;
  }

  void end(Text& text, const model::Generated& generated) {
    note_last_position(text, generated);
    text.ended = true;
    if (arguments_.json) {
      text.line = json_line(text, generated, settings_.sequences > 1);
    } else {
      text.line = streams_ ? "" : shown(*text.prompt);
      text.line += core::utf8_lossy(std::string_view(text.so_far.text()).substr(text.printed_bytes)) + "\n";
    }
    for (; given_ < texts_.size() && texts_[given_].ended; ++given_) print_(texts_[given_].line);
  }

  void note_last_position(const Text& text, const model::Generated& generated) const {
    if (generated.finish != model::Finish::kPositions) return;
    log_.info(fmt::format("{}the text ends after {} of {} tokens: the model has {} positions", text.prompt->where,
                          generated.ids.size(), settings_.options.max_tokens,
                          inference_.base.config.max_position_embeddings));
  }

  Inference& inference_;
  const GenerateArguments& arguments_;
  const Settings& settings_;
  core::Logger& log_;
  Print print_;
  std::vector<Text> texts_;
  size_t given_ = 0;
  bool streams_ = false;
};

/// Returns texts [first, first + count) of all prompts' texts, in order.
std::vector<Text> texts_of(const std::vector<Prompt>& prompts, const Settings& settings, size_t first, size_t count) {
  std::vector<Text> texts;
  const auto sequences = static_cast<size_t>(settings.sequences);
  for (size_t i = first; i < std::min(first + count, prompts.size() * sequences); ++i) {
    texts.push_back({&prompts[i / sequences], static_cast<int64_t>(i % sequences),
                     model::StopStrings(settings.stop_strings), 0, "", false});
  }
  return texts;
}

/// Root's prompts on every rank. Collective: every rank.
std::vector<Prompt> prompts_of_root(comm::MpiSession& session, const GenerateArguments& arguments) {
  const std::string text = session.run_on_root([&]() -> std::string {
    nlohmann::json list = nlohmann::json::array();
    for (const Prompt& prompt : read_prompts(arguments.prompt_file, arguments.prompt)) {
      list.push_back({prompt.text, prompt.where, prompt.columns, prompt.lists, prompt.is_object});
    }
    return list.dump();
  });
  std::vector<Prompt> prompts;
  for (const auto& prompt : core::parse_json(text, "prompts", ErrorKind::kInternal)) {
    prompts.push_back({prompt[0], prompt[1], prompt[2], prompt[3], prompt[4], false, {}, {}});
  }
  return prompts;
}

/// Whether prompts are messages of a chat.
bool makes_chats(const GenerateArguments& arguments, const Inference& inference) {
  return !arguments.no_template && !inference.config.data.messages_column.empty();
}

/// Makes the texts of prompts and their tokens, and checks these.
void encode(const GenerateArguments& arguments, const Inference& inference, std::vector<Prompt>& prompts) {
  const data::TokenizerOptions& options = inference.config.tokenizer_config;
  const data::Tokenizer& tokenizer = *inference.tokenizer;
  const bool chats = makes_chats(arguments, inference);
  const data::ChatTemplate form(chats ? inference.config.data.prompt_template : "");
  if (chats) {
    make_chats(prompts, form, inference.config.data.messages_column);
  } else {
    const std::optional<data::PromptTemplate> own = template_of(arguments, inference);
    make_texts(prompts, own ? &*own : nullptr);
  }
  for (Prompt& prompt : prompts) {
    std::vector<int32_t> ids;
    if (prompt.messages.empty()) {
      ids = tokenizer.encode_input(prompt.text, options.split_special_tokens);
    } else {
      ids = data::encode_chat(form, prompt.messages, tokenizer,
                              {.split_special_tokens = options.split_special_tokens,
                               .eos_id = options.add_eos_token ? tokenizer.eos_token_id() : -1,
                               .begins_answer = true})
                .ids;
      prompt.text = tokenizer.decode(ids);
    }
    prompt.ids.assign(ids.begin(), ids.end());
    model::check_prompt(prompt.ids, inference.base.config, prompt.where);
  }
}

/// Makes the prompt of a row that LineReader read. Returns why there is none; empty: it is there.
std::string read_prompt(const GenerateArguments& arguments, const Inference& inference,
                        const std::vector<data::Column>& columns, const data::Row& row, std::vector<Prompt>& prompts) {
  if (!row.error.empty()) return row.error;
  Prompt prompt;
  for (size_t i = 0; i < columns.size(); ++i) {
    const data::Cell& cell = row.cells[i];
    if (cell.kind == data::Cell::Kind::kText) prompt.columns.emplace(columns[i].name, cell.text);
    if (cell.json.starts_with("[")) prompt.lists.emplace(columns[i].name, cell.json);
  }
  prompt.is_object = inference.config.data.format != "text";
  if (!prompt.is_object) prompt.text = row.cells.front().text;
  prompts = {prompt};
  try {
    encode(arguments, inference, prompts);
  } catch (const core::Error& error) {
    return error.what();
  }
  prompts.front().where = fmt::format("line {}: ", row.line);
  return "";
}

/// Columns that a prompt of a stream has: those of the template without its response, or one.
std::vector<data::Column> prompt_columns(const std::optional<data::PromptTemplate>& form, bool is_text) {
  if (is_text || !form) return {{"prompt", "--prompt_file"}};
  std::vector<data::Column> columns;
  for (const auto& [name, optional] : form->columns()) columns.push_back({name, "data.template", optional});
  columns.pop_back();
  return columns;
}

/// Columns of which a prompt of a stream has one.
std::vector<data::Column> chat_columns(const std::string& messages) {
  return {{messages, "data.messages_column", /*optional=*/true}, {"prompt", "--prompt_file", /*optional=*/true}};
}

/// Continues the lines of standard input, each when it comes.
void answer_lines(comm::MpiSession& session, Answers& answers, const Inference& inference, const Settings& settings,
                  const GenerateArguments& arguments, core::Output& output) {
  const bool is_text = inference.config.data.format == "text";
  const bool chats = !is_text && makes_chats(arguments, inference);
  const std::vector<data::Column> columns = chats ? chat_columns(inference.config.data.messages_column)
                                                  : prompt_columns(template_of(arguments, inference), is_text);
  data::LineReader reader(kStandardInput, inference.config.data, columns, /*as_json=*/chats);
  InputLines input;
  data::Row row;
  std::vector<Prompt> prompts;
  for (std::string line; input.next(line);) {
    if (!reader.read(line, row)) continue;
    const std::string problem = read_prompt(arguments, inference, columns, row, prompts);
    if (problem.empty()) {
      answers.run(texts_of(prompts, settings, 0, static_cast<size_t>(settings.sequences)), /*streams=*/false);
    } else {
      output.write(error_line(core::printable(problem, kLongestReasonBytes), row.line) + "\n");
      output.flush();
    }
  }
  input.tell_end(session.log());
}

/// A rank alone prints each text as soon as it can. Several take a piece each of so many texts that all are busy; root
/// prints these before the next.
void generate_all(comm::MpiSession& session, Answers& answers, const std::vector<Prompt>& prompts,
                  const Settings& settings, const GenerateArguments& arguments, std::string& mine,
                  core::Output& output) {
  const size_t total = prompts.size() * static_cast<size_t>(settings.sequences);
  if (session.size() == 1) return answers.run(texts_of(prompts, settings, 0, total), total == 1 && !arguments.json);
  constexpr size_t kBatchesAtOnce = 4;
  const size_t piece = kBatchesAtOnce * static_cast<size_t>(arguments.batch_size);
  const auto ranks = static_cast<size_t>(session.size());
  for (size_t first = 0; first < total; first += piece * ranks) {
    mine.clear();
    session.run_on_all_or_fail([&] {
      answers.run(texts_of(prompts, settings, first + piece * static_cast<size_t>(session.rank()), piece), false);
    });
    const std::vector<std::string> parts = session.all_gather(mine);
    session.run_on_root([&]() -> std::string {
      for (const std::string& part : parts) output.write(part);
      output.flush();
      return "";
    });
  }
}

}  // namespace

int run_generate(comm::MpiSession& session, const GenerateArguments& asked) {
  GenerateArguments arguments = asked;
  const bool filters = is_standard_stream(arguments.prompt_file);
  if (filters) require_one_rank(session, "--prompt_file");
  arguments.json = arguments.json || filters;  // a text may have line breaks
  std::vector<Prompt> prompts;
  if (!filters) prompts = prompts_of_root(session, arguments);
  Inference inference = load_inference(session, arguments.model);
  const auto phase = session.phase("generating", comm::MpiSession::kBuilding);
  if (session.is_root() && !arguments.given.contains("--prompt") && !arguments.given.contains("--prompt_file")) {
    session.log().info("generate: neither --prompt nor --prompt_file is given, so the prompt is the empty text");
  }
  Settings settings;
  core::Output output;
  std::string mine;
  std::optional<Answers> answers;
  session.run_on_all_or_fail([&] {
    core::require(!inference.task.classifies(), ErrorKind::kUsage,
                  "generate continues texts, but this is a classifier: use neoloom predict");
    settings = settle(arguments, inference.base, session.is_root() ? &session.log() : nullptr);
    answers.emplace(inference, arguments, settings, session.log(), [&](std::string_view text) {
      if (session.size() > 1) {
        mine += text;
      } else {
        output.write(text);
        output.flush();
      }
    });
    encode(arguments, inference, prompts);
    if (!filters) return;
    const std::string note = settle_format(inference.from, arguments.prompt_file, inference.config);
    if (!note.empty()) session.log().info(note);
  });
  if (filters) {
    answer_lines(session, *answers, inference, settings, arguments, output);
  } else {
    generate_all(session, *answers, prompts, settings, arguments, mine, output);
  }
  session.run_on_root([&]() -> std::string {
    output.finish();
    return "";
  });
  return 0;
}

}  // namespace neoloom::launch
