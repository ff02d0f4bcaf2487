// SPDX-License-Identifier: Apache-2.0
#include "launch/job/model_use.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <map>
#include <vector>

#include "data/chat_template.h"
#include "data/prompt_template.h"
#include "launch/system/shell_word.h"
#include "runtime/core/text.h"

namespace neoloom::launch {
namespace {

constexpr std::string_view kPrompt = "Once";

/// Returns the --set options without which a command would not treat a new text as the run does.
std::string settings(const CardFacts& facts) {
  constexpr std::array<const char*, 4> kOfAll = {"model_config.revision", "model_config.frozen_dtype",
                                                 "runtime.compute_dtype", "tokenizer_config.split_special_tokens"};
  constexpr std::array<const char*, 9> kOfClassifiers = {"tokenizer_config.max_length",
                                                         "tokenizer_config.truncation_side",
                                                         "tokenizer_config.return_overflowing_tokens",
                                                         "tokenizer_config.stride",
                                                         "data.header",
                                                         "data.quoting",
                                                         "data.delimiter",
                                                         "data.text_column",
                                                         "data.text_pair_column"};
  constexpr std::array<const char*, 5> kOfLanguageModels = {"tokenizer_config.add_eos_token", "data.prompt_column",
                                                            "data.response_column", "data.messages_column",
                                                            "data.template"};
  RunConfig config = facts.config;
  if (config.data.prompt_template.empty()) config.data.prompt_column = config.data.response_column = "";
  model::Options& model = config.model_config;
  model.revision = facts.adapter && !facts.base.revision.empty() ? facts.base.revision : "main";
  if (!facts.adapter) {  // as `--run` computes with whole weights
    if (config.runtime.compute_dtype == "auto") config.runtime.compute_dtype = model::dtype_name(model.frozen_dtype);
    model.frozen_dtype = model::Dtype::kFloat32;
  }
  const std::map<std::string, std::string> ours = flatten(config);
  const std::map<std::string, std::string> defaults = flatten(RunConfig{});
  std::string words;
  const auto add = [&](const char* key) {
    if (ours.at(key) != defaults.at(key)) words += " --set " + shell_word(fmt::format("{}={}", key, ours.at(key)));
  };
  std::for_each(kOfAll.begin(), kOfAll.end(), add);
  if (facts.task.classifies()) {
    std::for_each(kOfClassifiers.begin(), kOfClassifiers.end(), add);
  } else {
    std::for_each(kOfLanguageModels.begin(), kOfLanguageModels.end(), add);
  }
  return words;
}

/// What a language model continues.
struct ExamplePrompt {
  std::string text = std::string(kPrompt);  // in the form of training
  bool fits_option = true;                  // `--prompt` can give it
};

ExamplePrompt example_prompt(const data::Options& data) {
  if (!data.messages_column.empty()) {
    const data::ChatTemplate form(data.prompt_template);
    const data::ChatTemplate::Role* const user = form.role("user");
    const std::string said = user == nullptr ? "" : fmt::format("{}{}{}", user->before, kPrompt, user->after);
    return {said + form.role(data::kAssistant)->before, user != nullptr};
  }
  if (data.prompt_template.empty()) return {};
  const data::PromptTemplate form(data);
  std::vector<std::string> values;
  values.reserve(form.columns().size());
  size_t needed = 0;
  for (const auto& [name, optional] : form.columns()) {
    values.emplace_back(optional ? "" : kPrompt);
    needed += optional ? 0 : 1;
  }
  return {form.prompt(values), needed == 2};  // one beside the response
}

std::string command(const CardFacts& facts) {
  const std::string model = facts.adapter ? shell_word(facts.base.name) + " --adapter ." : ".";
  if (facts.task.classifies()) {
    return fmt::format("neoloom predict --model {}{} --input new.csv", model, settings(facts));
  }
  const std::string prompt = example_prompt(facts.config.data).fits_option ? fmt::format("--prompt \"{}\"", kPrompt)
                                                                           : "--prompt_file new.jsonl";
  return fmt::format("neoloom generate --model {}{} {} --max_tokens 50", model, settings(facts), prompt);
}

/// The lines of Python between the tokenizer and `logits`.
std::string logits_in_python(const RunConfig& config) {
  const data::TokenizerOptions& options = config.tokenizer_config;
  const char* const pair = config.data.text_pair_column.empty() ? "" : ", \"another text\"";
  const std::string length =
      options.max_length > 0 ? fmt::format("{}", options.max_length) : "config.max_position_embeddings";
  const std::string call = fmt::format("tokenizer(\"a text\"{}, truncation=True, max_length={}", pair, length);
  if (!options.return_overflowing_tokens) {
    return fmt::format("logits = model(**{}, return_tensors=\"pt\")).logits[0]\n", call);
  }
  return fmt::format(
      "windows = {}, stride={}, return_overflowing_tokens=True)[\"input_ids\"]\n"
      "logits = torch.stack([model(torch.tensor([window])).logits[0] for window in windows]).mean(0)\n",
      call, options.stride);
}

std::string python(const CardFacts& facts) {
  const bool classifies = facts.task.classifies();
  const data::TokenizerOptions& options = facts.config.tokenizer_config;
  const std::string model = classifies ? "AutoModelForSequenceClassification" : "AutoModelForCausalLM";
  std::string text = classifies && options.return_overflowing_tokens ? "import torch\n" : "";
  text += facts.adapter ? "from peft import PeftModel\n" : "";
  text += fmt::format(
      "from transformers import AutoConfig, {}, AutoTokenizer\n\nfolder = \".\"  # where this file is\n", model);
  text += "config = AutoConfig.from_pretrained(folder)\n";
  if (facts.adapter) {
    text +=
        fmt::format("base = {}.from_pretrained({}, {}config=config)\n", model, card_literal(facts.base.name),
                    facts.base.revision.empty() ? "" : fmt::format("revision={}, ", card_literal(facts.base.revision)));
    text += "model = PeftModel.from_pretrained(base, folder).eval()\n";
  } else {
    text += fmt::format("model = {}.from_pretrained(folder, config=config).eval()\n", model);
  }
  const bool cuts_start = classifies && options.truncation_side == "left";
  text += fmt::format("tokenizer = AutoTokenizer.from_pretrained(folder{})\n",
                      cuts_start ? R"(, truncation_side="left")" : "");
  if (!classifies) {
    return text + fmt::format(
                      "ids = tokenizer({}, return_tensors=\"pt\")\nprint(tokenizer.decode(model.generate(**ids, "
                      "max_new_tokens=50)[0]))\n",
                      card_literal(example_prompt(facts.config.data).text));
  }
  const char* const answer = facts.task.regression()    ? "print(logits.tolist())"
                             : facts.task.multi_label() ? "print([label for i, label in config.id2label.items() if "
                                                          "logits[i] > 0])"
                                                        : "print(config.id2label[int(logits.argmax())])";
  return text + logits_in_python(facts.config) + answer + "\n";
}

std::string column(const std::string& name) { return card_text(core::quoted(name)); }

/// Says what a text of a classifier or a regression was.
std::string text_of_classifier(const RunConfig& config) {
  const data::TokenizerOptions& options = config.tokenizer_config;
  const std::string& second = config.data.text_pair_column;
  const std::string one = column(config.data.text_column);
  const std::string columns =
      second.empty() ? "the column " + one : fmt::format("the pair of the columns {} and {}", one, column(second));
  const std::string length =
      options.max_length > 0 ? fmt::format("{} tokens", options.max_length) : "the positions of the model";
  const std::string fate =
      options.return_overflowing_tokens
          ? fmt::format("became windows with stride {}, and the mean of their logits counts", options.stride)
          : "were cut";
  return fmt::format("In training a text was {}. Texts longer than {} {} (truncation_side: {}).", columns, length, fate,
                     options.truncation_side);
}

/// Says what a text of a language model was.
std::string text_of_language_model(const RunConfig& config) {
  const data::Options& data = config.data;
  const std::string form =
      data.prompt_template.empty() || data.prompt_template == "alpaca" || data.prompt_template == "chat"
          ? data.prompt_template
          : "that the command below gives";
  std::string text = "In training a text was ";
  if (!data.messages_column.empty()) {
    text += fmt::format("a chat of the column {}, in the template {}", column(data.messages_column),
                        form.empty() ? "chat" : form);
  } else if (!data.prompt_column.empty()) {
    text += fmt::format("the column {}, {}then the column {}", column(data.prompt_column),
                        data.prompt_template.empty() ? "" : "a line break, ", column(data.response_column));
  } else if (!form.empty()) {
    text += fmt::format("made of a row's columns by the template {}", form);
  } else {
    text += fmt::format("the column {}, or a part of a text file", column(data.text_column));
  }
  const int64_t length = config.tokenizer_config.max_length;
  return text + (length > 0 ? fmt::format(". Samples had at most {} tokens.", length) : ".");
}

std::string texts_of_training(const CardFacts& facts) {
  if (facts.config.data.train.empty()) return "";  // the training is not known
  return (facts.task.classifies() ? text_of_classifier(facts.config) : text_of_language_model(facts.config)) + "\n\n";
}

}  // namespace

std::string card_literal(const std::string& text) { return core::quoted(text, text.size() * 8 + 8); }

std::string card_text(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == '|' || c == '`' || c == '*' || c == '_' || c == '[') out += '\\';
    out += c == '\n' || c == '\r' ? ' ' : c;
    if (c == '<') out.replace(out.size() - 1, 1, "&lt;");
  }
  return out;
}

std::string model_use(const CardFacts& facts) {
  return fmt::format("\n## How to use it\n\n{}In Python:\n\n```python\n{}```\n\nWith neoloom:\n\n```bash\n{}\n```\n",
                     texts_of_training(facts), python(facts), command(facts));
}

}  // namespace neoloom::launch
