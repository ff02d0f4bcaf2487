// SPDX-License-Identifier: Apache-2.0
#include "launch/job/task_choice.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "runtime/core/error.h"

namespace neoloom::launch {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::IsEmpty;

class TaskOfAFile : public testing::Test {
 protected:
  TaskOfAFile() : folder_((std::filesystem::temp_directory_path() / "neoloom-task-XXXXXX").string()) {
    if (mkdtemp(folder_.data()) == nullptr) throw std::runtime_error("no temporary folder");
  }
  ~TaskOfAFile() override { std::filesystem::remove_all(folder_); }

  TaskChoice choose(const std::string& yaml, const std::string& rows, const std::string& name = "rows.jsonl") {
    const std::string path = folder_ + "/" + name;
    std::ofstream(path) << rows;
    config_ = parse_config(yaml, "run.yaml", {"data.train=" + path});
    return choose_training_task(config_);
  }
  std::string refusal(const std::string& yaml, const std::string& rows, const std::string& name = "rows.jsonl") {
    try {
      choose(yaml, rows, name);
    } catch (const core::Error& error) {
      EXPECT_EQ(error.kind(), core::ErrorKind::kUsage);
      return error.what();
    }
    return "accepted";
  }

  std::string folder_;
  RunConfig config_;
};

const std::string kTemplate = "peft_config: {peft_type: LORA}\n";
const std::string kLabelled = "{\"text\": \"a\", \"label\": \"ham\"}\n";

TEST_F(TaskOfAFile, ALanguageModelHasNoHeadToSave) {
  const std::string head = "peft_config: {task_type: CAUSAL_LM, modules_to_save: [score]}\n";
  EXPECT_THAT(refusal(head, "{\"text\": \"a\"}\n"), AllOf(HasSubstr("modules_to_save"), HasSubstr("no score")));
  EXPECT_TRUE(choose("peft_config: {task_type: SEQ_CLS, modules_to_save: [score]}\n", kLabelled).classifies());
}

TEST_F(TaskOfAFile, TheTemplateClassifiesOnAColumnOfLabels) {
  const TaskChoice choice = choose(kTemplate, kLabelled);
  EXPECT_EQ(choice.problem_type_name(), "single_label_classification");
  EXPECT_EQ(choice.name(), "sequence classification");
  EXPECT_EQ(choice.reason, "column \"label\"; peft_config.task_type not given");
  EXPECT_THAT(choice.advice, HasSubstr("peft_config.task_type: CAUSAL_LM"));
  EXPECT_EQ(config_.data.label_column, "label");
  EXPECT_TRUE(choose(kTemplate, "text,label\na,1\n", "rows.csv").classifies());
  EXPECT_TRUE(choose(kTemplate, "[{\"text\": \"a\", \"label\": null}, {\"text\": \"b\", \"label\": 1}]", "rows.json")
                  .classifies());
}

TEST_F(TaskOfAFile, AColumnNamedLabelsHoldsOneOrSeveralAsItsValuesSay) {
  EXPECT_EQ(choose(kTemplate, "{\"text\": \"a\", \"labels\": [\"x\"]}\n").problem_type_name(),
            "multi_label_classification");
  EXPECT_EQ(config_.data.labels_column, "labels");
  EXPECT_EQ(choose(kTemplate, "{\"text\": \"a\", \"labels\": 3}\n").problem_type_name(), "single_label_classification");
  EXPECT_EQ(config_.data.label_column, "labels");
  EXPECT_THAT(refusal(kTemplate, "text,labels\na,x|y\n", "rows.csv"),
              AllOf(HasSubstr("data.label_column: labels"), HasSubstr("data.labels_column: labels")));
}

TEST_F(TaskOfAFile, WithoutLabelsOrWithPromptsIsALanguageModel) {
  EXPECT_EQ(choose(kTemplate, "{\"text\": \"a\"}\n").reason, "no label column");
  EXPECT_FALSE(choose(kTemplate, "a line\n", "rows.txt").classifies());
  EXPECT_FALSE(choose(kTemplate, "{\"prompt\": \"a\", \"response\": \"b\", \"label\": true}\n").classifies());
  EXPECT_FALSE(choose(kTemplate + "data: {prompt_column: p, response_column: r}\n", kLabelled).classifies());
  EXPECT_EQ(choose(kTemplate + "data: {template: alpaca}\n", kLabelled).reason, "data.template given");
}

TEST_F(TaskOfAFile, IsWhatAKeySaysWhateverTheFileHas) {
  const TaskChoice model = choose("peft_config: {task_type: CAUSAL_LM}\n", kLabelled);
  EXPECT_FALSE(model.classifies());
  EXPECT_EQ(model.reason, "peft_config.task_type CAUSAL_LM");
  EXPECT_THAT(model.advice, IsEmpty());
  EXPECT_EQ(choose("peft_config: {task_type: SEQ_CLS}\n", kLabelled).reason,
            "column \"label\"; peft_config.task_type SEQ_CLS");
  EXPECT_EQ(choose(kTemplate + "data: {label_column: kind}\n", kLabelled).reason,
            "column \"kind\"; data.label_column given");
  EXPECT_EQ(choose(kTemplate + "data: {label_names: [ham, spam]}\n", kLabelled).reason,
            "column \"label\"; data.label_names given");
}

TEST_F(TaskOfAFile, TrainingInFullWantsTheColumnNamed) {
  EXPECT_FALSE(choose("", kLabelled).classifies());
  EXPECT_TRUE(choose("data: {label_column: label}\n", kLabelled).classifies());
  EXPECT_TRUE(choose("model_config: {num_labels: 2}\n", kLabelled).classifies());
}

}  // namespace
}  // namespace neoloom::launch
