// SPDX-License-Identifier: Apache-2.0
#include "launch/commands/prompts.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "data/readers/decompress.h"
#include "data/readers/lines.h"
#include "data/readers/rows.h"
#include "runtime/core/error.h"
#include "runtime/core/files.h"
#include "runtime/core/json.h"
#include "runtime/core/text.h"
#include "runtime/core/utf8.h"

namespace neoloom::launch {
namespace {

using core::ErrorKind;

void require_utf8(const Prompt& prompt) {
  const std::string complaint = core::utf8_complaint(prompt.text);
  if (complaint.empty()) return;
  const bool typed = prompt.where.empty();
  core::fail(typed ? ErrorKind::kUsage : ErrorKind::kData, "{}{}", typed ? "--prompt: " : prompt.where, complaint);
}

/// `place`: file and line, or item.
void read_object(const nlohmann::json& object, const std::string& place, Prompt& prompt) {
  core::require(object.is_object(), ErrorKind::kData, "{}: expected an object, found {}", place, object.type_name());
  for (const auto& [name, value] : object.items()) {
    if (value.is_string()) prompt.columns.emplace(name, value.get<std::string>());
    if (value.is_array()) prompt.lists.emplace(name, value.dump());
  }
  prompt.is_object = true;
}

/// Returns the format of a file of prompts: text, where its name says none.
/// Throws: Error(kData) for one that is not read here, with the way out.
data::Format format_of_prompts(const std::string& path, std::string_view text) {
  const data::Format format = data::names_a_format(path) ? data::format_of(path, {}, text) : data::Format::kText;
  core::require(format != data::Format::kParquet, ErrorKind::kData,
                "{}: prompts are read from text, JSON lines or a JSON array, not from Parquet", path);
  const bool table = format == data::Format::kCsv || format == data::Format::kTsv;
  core::require(
      !table, ErrorKind::kData,
      "{0}: prompts are read from text, JSON lines or a JSON array; pipe a table: neoloom generate --prompt_file "
      "- --set data.format={1} <{0}",
      path, format == data::Format::kCsv ? "csv" : "tsv");
  data::require_text(path, text);
  return format;
}

void read_array(std::string_view text, const std::string& path, std::vector<Prompt>& prompts) {
  const nlohmann::json array = core::parse_json(text, path, ErrorKind::kData);
  for (const nlohmann::json& object : array) {
    const std::string place = fmt::format("{}: item {}", path, prompts.size() + 1);
    Prompt& prompt = prompts.emplace_back();
    prompt.where = place + ": ";
    read_object(object, place, prompt);
  }
}

/// Reads a prompt a line, or an object a line, where blank lines do not count.
void read_lines(std::string_view text, const std::string& path, bool objects, std::vector<Prompt>& prompts) {
  data::Lines lines(text);
  for (std::string_view line; lines.next(line);) {
    if (objects && line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    const std::string place = fmt::format("{}: line {}", path, lines.number());
    Prompt& prompt = prompts.emplace_back();
    prompt.text = line;
    prompt.where = place + ": ";
    require_utf8(prompt);
    if (objects) read_object(core::parse_json(line, place, ErrorKind::kData), place, prompt);
  }
}

[[noreturn]] void fail_without(const Prompt& prompt, const std::vector<std::string>& wanted) {
  std::vector<std::string> found;
  for (const auto& [name, value] : prompt.columns) found.push_back(name);
  core::fail(ErrorKind::kData, "{}expected the {} {}, found {}", prompt.where, wanted.size() == 1 ? "text" : "texts",
             core::quoted_list(wanted), found.empty() ? "no text" : core::quoted_list(found));
}

/// Values of the template's columns, without the response.
std::vector<std::string> values_of(const Prompt& prompt, const std::vector<data::PromptTemplate::Column>& columns) {
  std::vector<std::string> values, missing, needed;
  for (const auto& [name, optional] : columns) {
    const auto found = prompt.columns.find(name);
    values.push_back(found == prompt.columns.end() ? "" : found->second);
    if (!optional) needed.push_back(name);
    if (!optional && found == prompt.columns.end()) missing.push_back(name);
  }
  if (prompt.is_object) {
    if (!missing.empty()) fail_without(prompt, missing);
    return values;
  }
  core::require(
      needed.size() == 1, ErrorKind::kUsage,
      "{}the template of this run takes the columns {}: give them in JSONL (--prompt_file), or the whole text "
      "with --no_template",
      prompt.where, core::quoted_list(needed));
  for (size_t i = 0; i < columns.size(); ++i) {
    if (columns[i].name == needed.front()) values[i] = prompt.text;
  }
  return values;
}

}  // namespace

std::vector<Prompt> read_prompts(const std::string& path, const std::string& text) {
  std::vector<Prompt> prompts;
  if (path.empty()) {
    prompts.emplace_back().text = text;
    require_utf8(prompts.front());
    return prompts;
  }
  const core::MappedFile file(path);
  std::string unpacked;
  std::string_view content = file.text();
  if (const auto compression = data::compression_of(content); compression != data::Compression::kNone) {
    data::decompress(path, content, compression, [&unpacked](std::string_view piece) {
      unpacked += piece;
      return true;
    });
    content = unpacked;
  }
  const data::Format format = format_of_prompts(path, content);
  content = data::without_byte_order_mark(content);
  if (format == data::Format::kJsonArray) {
    read_array(content, path, prompts);
  } else {
    read_lines(content, path, /*objects=*/format == data::Format::kJsonLines, prompts);
  }
  core::require(!prompts.empty(), ErrorKind::kData, "{} is empty; expected one prompt a line", path);
  return prompts;
}

void make_chats(std::vector<Prompt>& prompts, const data::ChatTemplate& form, const std::string& column) {
  for (Prompt& prompt : prompts) {
    prompt.from_template = true;
    if (const auto list = prompt.lists.find(column); list != prompt.lists.end()) {
      const std::string complaint = data::read_messages(list->second, form, prompt.messages);
      core::require(complaint.empty(), ErrorKind::kData, "{}{}: {}", prompt.where, core::quoted(column), complaint);
      core::require(prompt.messages.back().role != data::kAssistant, ErrorKind::kData,
                    "{}{}: the last message is the assistant's, so nothing is to be answered", prompt.where,
                    core::quoted(column));
      continue;
    }
    if (prompt.is_object) {
      core::require(prompt.columns.contains("prompt"), ErrorKind::kData,
                    "{}expected the list of messages {}, or the text \"prompt\"", prompt.where, core::quoted(column));
      prompt.text = prompt.columns["prompt"];
    }
    core::require(form.role("user") != nullptr, ErrorKind::kUsage,
                  "{}a prompt is a message of the user, and the template of this run has no block for that role: give "
                  "messages in JSONL (--prompt_file), or the whole text with --no_template",
                  prompt.where);
    prompt.messages = {{"user", prompt.text}};
  }
}

void make_texts(std::vector<Prompt>& prompts, const data::PromptTemplate* form) {
  if (form == nullptr) {
    for (Prompt& prompt : prompts) {
      if (!prompt.is_object) continue;
      if (!prompt.columns.contains("prompt")) fail_without(prompt, {"prompt"});
      prompt.text = prompt.columns["prompt"];
    }
    return;
  }
  std::vector<data::PromptTemplate::Column> columns = form->columns();
  columns.pop_back();
  for (Prompt& prompt : prompts) {
    prompt.text = form->prompt(values_of(prompt, columns));
    prompt.from_template = true;
  }
}

}  // namespace neoloom::launch
