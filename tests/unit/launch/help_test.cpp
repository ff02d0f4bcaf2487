// SPDX-License-Identifier: Apache-2.0
#include "launch/help.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sstream>

#include "launch/command_line.h"
#include "launch/planning/device_sheets.h"
#include "runtime/core/error.h"

namespace neoloom::launch {
namespace {

CommandLine parsed(std::vector<std::string> words) {
  std::vector<char*> pointers;
  pointers.reserve(words.size());
  for (std::string& word : words) pointers.push_back(word.data());
  return parse_command_line(static_cast<int>(pointers.size()), pointers.data());
}

/// Splits at blanks outside of quotes.
std::vector<std::string> words_of(const std::string& line) {
  std::vector<std::string> words(1);
  char quote = '\0';
  for (const char c : line) {
    if (quote == '\0' && (c == '"' || c == '\'')) {
      quote = c;
    } else if (c == quote) {
      quote = '\0';
    } else if (c == ' ' && quote == '\0') {
      words.emplace_back();
    } else {
      words.back() += c;
    }
  }
  return words;
}

std::string help_of(const std::string& command) {
  std::vector<std::string> words = {"neoloom", "help"};
  std::istringstream in(command);
  for (std::string word; in >> word;) words.push_back(word);
  return parsed(words).text;
}

std::vector<std::string> all_commands() {
  std::vector<std::string> names;
  std::istringstream in(help_of(""));
  bool inside = false;
  for (std::string line; std::getline(in, line);) {
    if (inside && line.empty()) break;
    if (inside) names.push_back(line.substr(2, line.find(' ', 2) - 2));
    inside = inside || line == "Subcommands:";
  }
  for (const char* verb : {"checkpoint list", "checkpoint inspect", "checkpoint verify"}) names.emplace_back(verb);
  return names;
}

TEST(Help, EveryCommandHasTwoExamplesThatAreItsOwn) {
  const std::vector<std::string> commands = all_commands();
  ASSERT_GT(commands.size(), 12u);
  for (const std::string& command : commands) {
    const std::vector<std::string> examples = examples_of(command);
    EXPECT_GE(examples.size(), 2u) << command;
    for (const std::string& example : examples) {
      EXPECT_TRUE(example.starts_with("neoloom " + command)) << example;
      EXPECT_NO_THROW(parsed(words_of(example))) << example;
      EXPECT_THAT(help_of(command), testing::HasSubstr("  " + example + "\n"));
    }
  }
}

TEST(Help, IsTheSameTextThatTheOptionPrints) {
  EXPECT_EQ(parsed({"neoloom", "train", "--help"}).text, help_of("train"));
  EXPECT_EQ(parsed({"neoloom", "checkpoint", "list", "--help"}).text, help_of("checkpoint list"));
  EXPECT_EQ(parsed({"neoloom", "--help"}).text, help_of(""));
}

TEST(Help, PlanNamesEveryDevice) {
  std::string names = "--device cpu|cuda";
  for (const DeviceSheet& sheet : device_sheets()) names += std::string("|").append(sheet.name);
  EXPECT_THAT(help_of("plan"), testing::HasSubstr(names + "\n"));
}

std::string refusal(std::vector<std::string> words) {
  try {
    parsed(std::move(words));
  } catch (const core::Error& error) {
    EXPECT_EQ(error.kind(), core::ErrorKind::kUsage);
    return error.what();
  }
  return "accepted";
}

TEST(Help, AMistypedWordNamesTheNearest) {
  using testing::HasSubstr;
  EXPECT_THAT(refusal({"neoloom", "trian"}), HasSubstr("did you mean train?"));
  EXPECT_THAT(refusal({"neoloom", "train", "--confg", "a"}), HasSubstr("did you mean --config?"));
  EXPECT_THAT(refusal({"neoloom", "checkpoint", "lst", "a"}), HasSubstr("did you mean list?"));
  EXPECT_THAT(refusal({"neoloom", "help", "predit"}), HasSubstr("did you mean predict?"));
  EXPECT_THAT(refusal({"neoloom", "help", "--completion", "fish"}), HasSubstr("bash"));
}

}  // namespace
}  // namespace neoloom::launch
