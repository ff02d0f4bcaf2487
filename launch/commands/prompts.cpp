// SPDX-License-Identifier: Apache-2.0
#include "launch/commands/prompts.h"

#include <fmt/format.h>

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

/// `place`: file and line.
std::string prompt_of_object(std::string_view line, const std::string& place) {
  const nlohmann::json object = core::parse_json(line, place, ErrorKind::kData);
  const auto found = object.is_object() ? object.find("prompt") : object.end();
  core::require(found != object.end() && found->is_string(), ErrorKind::kData,
                "{}: expected an object with a text \"prompt\", found {}", place,
                core::printable(std::string(line), 100));
  return found->get<std::string>();
}

}  // namespace

std::vector<Prompt> read_prompts(const std::string& path, const std::string& text) {
  std::vector<Prompt> prompts;
  if (path.empty()) {
    prompts.push_back({text, ""});
    require_utf8(prompts.front());
    return prompts;
  }
  const core::MappedFile file(path);
  data::require_text(path, file.text());
  const bool objects = path.ends_with(".jsonl");
  data::Lines lines(data::without_byte_order_mark(file.text()));
  for (std::string_view line; lines.next(line);) {
    const std::string place = fmt::format("{}: line {}", path, lines.number());
    Prompt prompt{std::string(line), place + ": "};
    require_utf8(prompt);
    if (objects) prompt.text = prompt_of_object(line, place);
    prompts.push_back(std::move(prompt));
  }
  core::require(!prompts.empty(), ErrorKind::kData, "{} is empty; expected one prompt a line", path);
  return prompts;
}

}  // namespace neoloom::launch
