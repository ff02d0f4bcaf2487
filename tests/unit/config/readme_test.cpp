// SPDX-License-Identifier: Apache-2.0
// Compares configs/README.md, where users look keys up, with the reader.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <set>
#include <sstream>
#include <vector>

#include "launch/config/schema.h"
#include "runtime/core/environment.h"
#include "runtime/core/files.h"
#include "tests/unit/config/support.h"

namespace neoloom::launch {
namespace {

/// Returns "group.key" -> text of the default column, from rows "| `key` | type | `default` | ... |" below "##
/// `group`".
std::map<std::string, std::string> documented_keys() {
  std::istringstream lines(core::read_file(NL_SOURCE_DIR "/configs/README.md"));
  std::map<std::string, std::string> keys;
  std::string group;
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with("## ")) group = line.starts_with("## `") ? line.substr(4, line.find('`', 4) - 4) : "";
    if (group.empty() || !line.starts_with("| `")) continue;
    const std::string key = line.substr(3, line.find('`', 3) - 3);
    const size_t second = line.find('|', line.find('|', 1) + 1);
    const size_t open = line.find('`', second);
    std::string value = line.substr(open + 1, line.find('`', open + 1) - open - 1);
    if (const size_t escaped = value.find("\\|"); escaped != std::string::npos) value.erase(escaped, 1);
    keys[fmt::format("{}.{}", group, key)] = value;
  }
  return keys;
}

TEST(Readme, ListsEveryKeyWithItsDefaultAndNoOther) { EXPECT_EQ(documented_keys(), flatten(parse("peft_config: {}"))); }

/// Returns the "group.key" names in the first column of the table below "## What a resume may change", row by row.
std::vector<std::set<std::string>> keys_by_row_of_resumes() {
  const std::string readme = core::read_file(NL_SOURCE_DIR "/configs/README.md");
  std::istringstream lines(readme.substr(readme.find("## What a resume may change")));
  std::vector<std::set<std::string>> rows;
  std::string line;
  for (std::getline(lines, line); std::getline(lines, line) && !line.starts_with("## ");) {
    if (!line.starts_with("| `")) continue;
    std::istringstream quoted(line.substr(0, line.find('|', 1)));
    auto& row = rows.emplace_back();
    std::getline(quoted, line, '`');
    while (std::getline(quoted, line, '`')) {
      EXPECT_TRUE(row.insert(line).second) << line;
      std::getline(quoted, line, '`');
    }
  }
  return rows;
}

// The page says that a resume refuses changes of all other keys. A key that is missing or in the wrong row would make
// that false.
TEST(Readme, SaysWhatAResumeMayChange) {
  std::vector<std::set<std::string>> rows(2);
  for (const Field& field : make_fields()) {
    if (field.identity == Identity::kFree || field.identity == Identity::kMeasured) rows[0].insert(field.name());
    if (field.identity == Identity::kResolved) rows[1].insert(field.name());
  }
  EXPECT_EQ(keys_by_row_of_resumes(), rows);
}

TEST(Readme, NamesEveryOtherSpelling) {
  const std::string readme = core::read_file(NL_SOURCE_DIR "/configs/README.md");
  for (const Alias& alias : make_aliases()) {
    EXPECT_THAT(readme, testing::HasSubstr(fmt::format("`{}`", alias.old_key)));
  }
}

/// Returns `core::kVariables` as the rows of a table.
std::string table_of_variables() {
  std::string table;
  for (const core::VariableInfo& info : core::kVariables) {
    std::string names;
    std::istringstream words{std::string(info.names)};
    for (std::string name; words >> name;) names += fmt::format("{}`{}`", names.empty() ? "" : ", ", name);
    table += fmt::format("| {} | {} | {} | {} |\n", names, info.default_value, info.reader, info.meaning);
  }
  return table;
}

TEST(Readme, ListsEveryEnvironmentVariableAndNoOther) {
  const std::string readme = core::read_file(NL_SOURCE_DIR "/configs/README.md");
  const std::string line = "| --- | --- | --- | --- |\n";
  const size_t table = readme.find(line, readme.find("## Environment variables")) + line.size();
  EXPECT_EQ(readme.substr(table), table_of_variables());  // the last section of the page
}

}  // namespace
}  // namespace neoloom::launch
