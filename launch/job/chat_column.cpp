// SPDX-License-Identifier: Apache-2.0
#include "launch/job/chat_column.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <nlohmann/json.hpp>
#include <string_view>
#include <vector>

#include "data/chat_template.h"
#include "runtime/core/error.h"
#include "runtime/core/json.h"
#include "runtime/core/text.h"

namespace neoloom::launch {
namespace {

using core::ErrorKind;
using nlohmann::json;

/// What the cells of a column are.
struct Counts {
  int64_t filled = 0;
  int64_t chats = 0;               // lists of {role, content}
  int64_t share_gpt = 0;           // lists of {from, value}
  std::vector<std::string> roles;  // in the order in which they come
  bool most(int64_t count) const { return count > 0 && count * 10 >= filled * 9; }
};

bool is_list_with(const json& list, const char* first, const char* second) {
  return list.is_array() && !list.empty() && std::all_of(list.begin(), list.end(), [&](const json& message) {
           return message.is_object() && message.contains(first) && message.contains(second);
         });
}

bool holds(const std::vector<std::string>& names, const std::string& name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

Counts count(const data::FileSample& sample, size_t column) {
  Counts counts;
  for (const data::Row& row : sample.rows) {
    const data::Cell& cell = row.cells[column];
    if (cell.kind == data::Cell::Kind::kMissing) continue;
    ++counts.filled;
    if (cell.kind != data::Cell::Kind::kOther || !core::json_excess(cell.json).empty()) continue;
    const json list = json::parse(cell.json, nullptr, /*allow_exceptions=*/false);
    counts.share_gpt += is_list_with(list, "from", "value") ? 1 : 0;
    if (!is_list_with(list, "role", "content")) continue;
    ++counts.chats;
    for (const json& message : list) {
      if (!message["role"].is_string()) continue;
      if (const auto role = message["role"].get<std::string>(); !holds(counts.roles, role))
        counts.roles.push_back(role);
    }
  }
  return counts;
}

/// Returns a template with a block for each role; empty: the usual one has them all.
std::string form_of(const std::vector<std::string>& roles) {
  const data::ChatTemplate usual("");
  std::vector<data::ChatTemplate::Role> blocks = usual.roles();
  for (const std::string& role : roles) {
    const bool can_be_named = !role.empty() && std::all_of(role.begin(), role.end(), [](unsigned char c) {
      return std::isalnum(c) != 0 || c == '_' || c == '-';
    });
    if (usual.role(role) != nullptr || !can_be_named) continue;
    std::string title = role;
    title[0] = static_cast<char>(std::toupper(static_cast<unsigned char>(title[0])));
    blocks.push_back({role, fmt::format("### {}:\n", title), "\n\n"});
  }
  std::string form;
  if (blocks.size() == usual.roles().size()) return form;
  for (const auto& block : blocks)
    form += fmt::format("{{?{0}}}{1}{{{0}}}{2}{{/{0}}}", block.name, block.before, block.after);
  return form;
}

/// Returns why a row cannot be learned.
std::string complaint_of(const data::Cell& cell, const data::ChatTemplate& form) {
  if (cell.kind == data::Cell::Kind::kMissing) return "no value";
  std::vector<data::ChatMessage> messages;
  std::string complaint = data::read_messages(cell.json, form, messages);
  const auto answers = [](const data::ChatMessage& message) { return message.role == data::kAssistant; };
  if (complaint.empty() && std::none_of(messages.begin(), messages.end(), answers))
    complaint = "no message has the role \"assistant\"";
  return complaint;
}

std::string note_of(const data::FileSample& sample, size_t column, const std::string& form) {
  const data::ChatTemplate roles(form);
  int64_t bad = 0;
  std::string first;
  for (const data::Row& row : sample.rows) {
    const std::string complaint = complaint_of(row.cells[column], roles);
    if (complaint.empty()) continue;
    if (bad++ == 0) first = fmt::format("line {}: {}", row.line, complaint);
  }
  if (bad == 0) return "";
  return fmt::format(
      "{} of the first {} rows have no chat that can be learned in {} (the first: {}); correct them, or "
      "leave such rows out with data.invalid_data_tolerance_percent",
      bad, sample.rows.size(), core::quoted(sample.columns[column]), first);
}

}  // namespace

std::optional<ChatColumn> look_for_chats(const data::FileSample& sample, size_t column) {
  const Counts counts = count(sample, column);
  const std::string& name = sample.columns[column];
  core::require(
      !counts.most(counts.share_gpt), ErrorKind::kData,
      "{0}: column {1} holds chats of {{\"from\", \"value\"}} (ShareGPT); neoloom reads {{\"role\", \"content\"}}: "
      "convert it, for JSON lines with jq -c '{{messages: [.{2}[] | {{role: ({{human: \"user\", gpt: "
      "\"assistant\"}}[.from] // .from), content: .value}}]}}' FILE > chats.jsonl",
      sample.options.train.text(), core::quoted(name), name);
  if (!counts.most(counts.chats)) return std::nullopt;
  core::require(holds(counts.roles, std::string(data::kAssistant)), ErrorKind::kData,
                "{}: the chats of column {} have the roles {}, none of them \"assistant\", whose messages are learned; "
                "rename the role in the file",
                sample.options.train.text(), core::quoted(name), core::quoted_list(counts.roles));
  const std::string form = form_of(counts.roles);
  return ChatColumn{name, form, note_of(sample, column, form)};
}

}  // namespace neoloom::launch
