// SPDX-License-Identifier: Apache-2.0
// configs/README.md is where users look keys up: its tables and the reader must not drift apart.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <sstream>

#include "launch/config/schema.h"
#include "runtime/core/files.h"
#include "tests/unit/config/support.h"

namespace neoloom::launch {
namespace {

/// "group.key" -> text of the default column, from rows "| `key` | type | `default` | ... |" below "## `group`".
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

TEST(Readme, NamesEveryOtherSpelling) {
  const std::string readme = core::read_file(NL_SOURCE_DIR "/configs/README.md");
  for (const Alias& alias : make_aliases()) {
    EXPECT_THAT(readme, testing::HasSubstr(fmt::format("`{}`", alias.old_key)));
  }
}

}  // namespace
}  // namespace neoloom::launch
