// SPDX-License-Identifier: Apache-2.0
#include "launch/config/config_files.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "launch/config/document.h"
#include "launch/config/mistakes.h"
#include "runtime/core/error.h"
#include "runtime/core/files.h"

namespace neoloom::launch {

using core::ErrorKind;

namespace {

Node read_document(const std::string& path) { return parse_document(core::read_file(path, ErrorKind::kUsage), path); }

/// Throws: Error(kUsage) if `whole` already has the group.
void add_group(Node& whole, Node::Entry entry) {
  const auto same = [&](const Node::Entry& other) { return other.key == entry.key; };
  if (const auto first = std::find_if(whole.entries.begin(), whole.entries.end(), same); first != whole.entries.end()) {
    core::fail(ErrorKind::kUsage, "{}: {} is given twice, first at {}; a group lies in one file", entry.position.text(),
               entry.key, first->position.text());
  }
  whole.entries.push_back(std::move(entry));
}

void add_whole(Node& whole, const std::string& path) {
  Node root = read_document(path);
  if (root.is_null()) return;
  core::require(root.kind == Node::Kind::kMap, ErrorKind::kUsage,
                "{}: expected a map of groups such as trainer_config, found {}", root.position.text(), kind_name(root));
  for (Node::Entry& entry : root.entries) add_group(whole, std::move(entry));
}

void add_bare(Node& whole, const std::string& group, const std::string& path) {
  Node root = read_document(path);
  core::require(root.kind == Node::Kind::kMap, ErrorKind::kUsage,
                "{}: expected the keys of {}, found {}; {{}} stands for the defaults", root.position.text(), group,
                kind_name(root));
  for (const Node::Entry& entry : root.entries) {
    core::require(entry.key != group, ErrorKind::kUsage,
                  "{}: the file names the group {} itself; give it as --config, or remove this level",
                  entry.position.text(), group);
  }
  const Position position = root.position;
  add_group(whole, {group, position, std::move(root)});
}

}  // namespace

std::string ConfigFiles::text() const {
  std::vector<std::string> names = whole;
  for (const auto& [name, path] : group) names.push_back(path);
  return fmt::format("{}", fmt::join(names, ", "));
}

RunConfig read_config(const ConfigFiles& files, const std::vector<std::string>& overrides) {
  Node root;
  root.kind = Node::Kind::kMap;
  root.position = {std::make_shared<const std::string>(files.text()), 0};
  Mistakes mistakes;
  for (const std::string& path : files.whole) mistakes.attempt([&] { add_whole(root, path); });
  for (const auto& item : files.group) mistakes.attempt([&] { add_bare(root, item.first, item.second); });
  mistakes.refuse_any(files.text());
  return config_from(root, files.text(), overrides);
}

}  // namespace neoloom::launch
