// SPDX-License-Identifier: Apache-2.0
#include "data/prompt_template.h"

#include "tests/support/scratch.h"

namespace neoloom::data {
namespace {

using core::ErrorKind;
using ::testing::HasSubstr;

TEST(PromptTemplate, LastColumnIsTheResponse) {
  const PromptTemplate form("Q: {q}\nA:{a} {{end}}");
  ASSERT_EQ(form.columns().size(), 2U);
  EXPECT_EQ(form.columns()[0].name, "q");
  EXPECT_EQ(form.columns()[1].name, "a");
  EXPECT_EQ(form.prompt({"why {a}?"}), "Q: why {a}?\nA:") << "a value is no template";
  EXPECT_EQ(form.response({"why?", " so"}), " so {end}");
}

TEST(PromptTemplate, WhatAnEmptyColumnEnclosesIsLeftOut) {
  const PromptTemplate form("{a}{?b} and {b}{?c} with {c}{/c}{/b}. {a}: {r}");
  EXPECT_EQ(form.prompt({"1", "2", "3"}), "1 and 2 with 3. 1: ");
  EXPECT_EQ(form.prompt({"1", "2", ""}), "1 and 2. 1: ");
  EXPECT_EQ(form.prompt({"1", "", "3"}), "1. 1: ");
  EXPECT_FALSE(form.columns()[0].optional);
  EXPECT_TRUE(form.columns()[1].optional);
}

TEST(PromptTemplate, AlpacaWithAndWithoutInput) {
  const PromptTemplate form("alpaca");
  EXPECT_EQ(form.prompt({"", "Add."}),
            "Below is an instruction that describes a task. Write a response that appropriately completes the "
            "request.\n\n### Instruction:\nAdd.\n\n### Response:\n");
  EXPECT_EQ(
      form.prompt({"1 2", "Add."}),
      "Below is an instruction that describes a task, paired with an input that provides further context. Write a "
      "response that appropriately completes the request.\n\n### Instruction:\nAdd.\n\n### Input:\n1 2\n\n"
      "### Response:\n");
  EXPECT_EQ(form.response({"", "", "3"}), "3");
}

TEST(PromptTemplate, MistakesAreNamedWithTheirPlace) {
  const auto complaint = [](const char* text) {
    return error_of(ErrorKind::kUsage, [&] { PromptTemplate parsed(text); });
  };
  EXPECT_THAT(complaint("alpacca"), HasSubstr("expected \"alpaca\""));
  EXPECT_THAT(complaint("Q: {q"), HasSubstr("the brace at byte 4 has no partner"));
  EXPECT_THAT(complaint("Q} {q}"), HasSubstr("byte 2"));
  EXPECT_THAT(complaint("{} {q}"), HasSubstr("byte 1: the braces hold no column"));
  EXPECT_THAT(complaint("{?q}{a}"), HasSubstr("{?q} is not closed by {/q}"));
  EXPECT_THAT(complaint("{?q}{q}{/p}{a}"), HasSubstr("{/p} closes no {?p}"));
  EXPECT_THAT(complaint("{a} {q} {a}"), HasSubstr("\"a\""));
  EXPECT_THAT(complaint("{q}{?a}{a}{/a}"), HasSubstr("\"a\""));
  EXPECT_THAT(complaint("{?q}{q}{a}{/q}"), HasSubstr("must stand outside"));
}

}  // namespace
}  // namespace neoloom::data
