// SPDX-License-Identifier: Apache-2.0
#include "launch/job/column_roles.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

#include "runtime/core/error.h"

namespace neoloom::launch {
namespace {

using core::Task;
using data::Cell;
using testing::AllOf;
using testing::HasSubstr;
using testing::IsEmpty;

Cell text(const std::string& value) { return {Cell::Kind::kText, value, {}}; }
Cell whole(int64_t value) {
  return {Cell::Kind::kInteger, std::to_string(value), {}, {}, {static_cast<double>(value)}};
}
Cell words(int row) { return text(fmt::format("a text of several words, number {}", row)); }

struct Made {
  std::string name;
  std::function<Cell(int row)> cell;
};

data::FileSample sample(const std::vector<Made>& columns, int rows = 60, bool header = true) {
  data::FileSample sample;
  sample.options.train = std::string("rows.jsonl");
  sample.options.header = header;
  for (const Made& column : columns) sample.columns.push_back(column.name);
  for (int i = 0; i < rows; ++i) {
    data::Row row;
    for (const Made& column : columns) row.cells.push_back(column.cell(i));
    sample.rows.push_back(std::move(row));
  }
  return sample;
}

ColumnRoles roles(const std::vector<Made>& columns, const std::string& task_type = "") {
  return guess_roles(sample(columns), task_type);
}

Cell of_three(int row) { return text(std::vector<std::string>{"x", "y", "z"}[static_cast<size_t>(row) % 3]); }

TEST(ColumnRoles, FewValuesUnderTheNameOfALabelAreClasses) {
  const ColumnRoles found = roles({{"id", whole}, {"review", words}, {"sentiment", of_three}});
  EXPECT_EQ(found.task, Task::kSingleLabel);
  EXPECT_EQ(found.text, "review");
  EXPECT_EQ(found.label, "sentiment");
  EXPECT_THAT(found.label_reason, AllOf(HasSubstr("its name"), HasSubstr("3 different values in 60 rows: \"x\" 20")));
  EXPECT_THAT(found.notes, testing::ElementsAre(HasSubstr("not used: \"id\"")));
}

TEST(ColumnRoles, ManyTextsUnderTheNameOfALabelAreAResponse) {
  const ColumnRoles found = roles({{"source", words}, {"target", [](int i) { return words(i * 7); }}});
  EXPECT_EQ(found.task, Task::kCausalLm);
  EXPECT_EQ(found.prompt, "source");
  EXPECT_EQ(found.response, "target");
}

TEST(ColumnRoles, NumbersAreClassesOrMeasurements) {
  const auto task_of = [](const std::string& name, const std::function<Cell(int)>& cell) {
    return roles({{"text", words}, {name, cell}}).task;
  };
  EXPECT_EQ(task_of("label", [](int i) { return whole(i % 5); }), Task::kSingleLabel);
  EXPECT_EQ(task_of("label", [](int i) { return whole(i % 25); }), Task::kSingleLabel);  // intents have many classes
  EXPECT_EQ(task_of("stars", [](int i) { return whole(i % 5); }), Task::kSingleLabel);
  EXPECT_EQ(task_of("score", [](int i) { return whole(i % 25); }), Task::kRegression);
  EXPECT_EQ(task_of("label", [](int i) { return text(fmt::format("{}.5", i % 3)); }), Task::kRegression);
  EXPECT_EQ(task_of("label", [](int i) { return text(fmt::format("{}.0", i % 3)); }), Task::kSingleLabel);
}

TEST(ColumnRoles, ListsAreSeveralLabelsOrSeveralNumbers) {
  const auto list = [](int i) {
    return Cell{Cell::Kind::kList, "", i % 2 == 0 ? std::vector<std::string>{"a"} : std::vector<std::string>{"a", "b"}};
  };
  const ColumnRoles labels = roles({{"text", words}, {"labels", list}});
  EXPECT_EQ(labels.task, Task::kMultiLabel);
  EXPECT_EQ(labels.labels, "labels");
  const auto numbers = [](int) { return Cell{Cell::Kind::kOther, "a list", {}, {}, {0.5, 1.25}}; };
  const ColumnRoles values = roles({{"text", words}, {"scores_of_it", words}, {"labels", numbers}});
  EXPECT_EQ(values.task, Task::kRegression);
  EXPECT_EQ(values.values, 2);
  const auto flags = [](int i) {
    return Cell{Cell::Kind::kList, "", {"0", i % 2 == 0 ? "1" : "0"}, {}, {0.0, i % 2 == 0 ? 1.0 : 0.0}};
  };
  EXPECT_THROW(roles({{"text", words}, {"labels", flags}}), core::Error);
}

TEST(ColumnRoles, ASeparatorJoinsSeveralLabels) {
  const auto joined = [](int i) { return text(i % 2 == 0 ? "a, b" : i % 3 == 0 ? "b, c" : "c"); };
  const ColumnRoles found = roles({{"text", words}, {"genres", joined}});
  EXPECT_EQ(found.task, Task::kMultiLabel);
  EXPECT_EQ(found.labels_separator, ", ");
  const auto commas = [](int i) { return text(i % 2 == 0 ? "Business, Finance" : "Sports"); };
  EXPECT_EQ(roles({{"text", words}, {"label", commas}}).task, Task::kSingleLabel);
  const auto once = [](int i) { return text(i == 5 ? "a|b" : i % 2 == 0 ? "a" : "c"); };
  EXPECT_EQ(roles({{"text", words}, {"label", once}}).task, Task::kSingleLabel);
}

TEST(ColumnRoles, PairsNeedALabel) {
  const auto other = [](int i) { return words(i * 3); };
  const auto bit = [](int i) { return whole(i % 2); };
  const ColumnRoles pair = roles({{"question", words}, {"answer", other}, {"label", bit}});
  EXPECT_EQ(pair.text, "question");
  EXPECT_EQ(pair.text_pair, "answer");
  const ColumnRoles prompt = roles({{"question", words}, {"answer", other}});
  EXPECT_EQ(prompt.prompt, "question");
  EXPECT_EQ(prompt.response, "answer");
}

TEST(ColumnRoles, TheTaskOfAnAdapterGoesFirst) {
  const std::vector<Made> labelled = {{"text", words}, {"label", of_three}};
  EXPECT_EQ(roles(labelled, "SEQ_CLS").label, "label");
  const ColumnRoles plain = roles(labelled, "CAUSAL_LM");
  EXPECT_EQ(plain.task, Task::kCausalLm);
  EXPECT_THAT(plain.label, IsEmpty());
  EXPECT_THROW(roles({{"text", words}}, "SEQ_CLS"), core::Error);
}

TEST(ColumnRoles, WithoutNamesOneColumnOfFewValuesIsTheLabel) {
  const ColumnRoles found = guess_roles(sample({{"0", of_three}, {"1", words}}, 60, /*header=*/false), "");
  EXPECT_EQ(found.label, "0");
  EXPECT_EQ(found.text, "1");
  // With names, it is told instead.
  const ColumnRoles named = roles({{"kind", of_three}, {"body", words}});
  EXPECT_EQ(named.task, Task::kCausalLm);
  EXPECT_THAT(named.notes.front(), AllOf(HasSubstr("column \"kind\" has 3 values"), HasSubstr("data.label_column")));
}

/// A column of chats, each with these roles.
std::function<Cell(int)> chats(const std::vector<std::string>& names, const std::string& role = "role",
                               const std::string& content = "content") {
  std::string list;
  for (const std::string& name : names) {
    list += fmt::format(R"({}{{"{}": "{}", "{}": "text"}})", list.empty() ? "[" : ", ", role, name, content);
  }
  return [list](int) { return Cell{Cell::Kind::kOther, "a list", {}, {}, {}, list + "]"}; };
}

TEST(ColumnRoles, ListsOfRoleAndContentAreChats) {
  const ColumnRoles found = roles({{"prompt", words}, {"label", of_three}, {"messages", chats({"user", "assistant"})}});
  EXPECT_EQ(found.task, Task::kCausalLm);
  EXPECT_EQ(found.messages, "messages");
  EXPECT_EQ(found.chat_template, "");
  EXPECT_EQ(found.prompt + found.label + found.text, "");
  EXPECT_THAT(found.notes, testing::ElementsAre(HasSubstr("not used: \"prompt\", \"label\"")));
  EXPECT_EQ(roles({{"talk", chats({"user", "assistant"})}, {"more", words}}).messages, "talk");
  EXPECT_EQ(roles({{"rejected", chats({"user", "assistant"})}, {"messages", chats({"user", "assistant"})}}).messages,
            "messages");
  EXPECT_EQ(roles({{"messages", words}}).text, "messages");
  EXPECT_EQ(roles({{"text", words}, {"label", of_three}, {"messages", chats({"user", "assistant"})}}, "SEQ_CLS").label,
            "label");
}

TEST(ColumnRoles, RolesThatTheUsualTemplateLacksGetABlock) {
  EXPECT_EQ(roles({{"messages", chats({"system", "user", "assistant"})}}).chat_template, "");
  EXPECT_EQ(roles({{"messages", chats({"user", "tool", "assistant"})}}).chat_template,
            "{?system}### System:\n{system}\n\n{/system}{?user}### User:\n{user}\n\n{/user}"
            "{?assistant}### Assistant:\n{assistant}\n\n{/assistant}{?tool}### Tool:\n{tool}\n\n{/tool}");
}

TEST(ColumnRoles, RowsWithoutAChatAreTold) {
  const auto some = [](int row) { return row == 30 ? chats({"user"})(row) : chats({"user", "assistant"})(row); };
  EXPECT_THAT(roles({{"messages", some}}).notes,
              testing::ElementsAre(AllOf(HasSubstr("1 of the first 60 rows have no chat that can be learned"),
                                         HasSubstr("no message has the role \"assistant\""))));
}

TEST(ColumnRoles, ChatsThatCannotBeReadAreRefusedWithTheWayOut) {
  const auto refusal = [](const std::function<Cell(int)>& cell) -> std::string {
    try {
      roles({{"conversations", cell}});
    } catch (const core::Error& error) {
      return error.what();
    }
    return "";
  };
  EXPECT_THAT(
      refusal(chats({"human", "gpt"}, "from", "value")),
      AllOf(HasSubstr("\"conversations\""), HasSubstr("ShareGPT"), HasSubstr("[.conversations[] | {role: ({human")));
  EXPECT_THAT(refusal(chats({"user", "bot"})), AllOf(HasSubstr("\"user\", \"bot\""), HasSubstr("\"assistant\"")));
}

TEST(ColumnRoles, ASortedFileIsTold) {
  const ColumnRoles found = roles({{"text", words}, {"label", [](int) { return text("ham"); }}});
  EXPECT_EQ(found.task, Task::kSingleLabel);
  EXPECT_THAT(found.notes.front(), HasSubstr("is the file sorted by it?"));
}

}  // namespace
}  // namespace neoloom::launch
