// SPDX-License-Identifier: Apache-2.0
#include "launch/config/config_files.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "runtime/core/error.h"
#include "tests/support/scratch.h"

namespace neoloom::launch {
namespace {

using testing::AllOf;
using testing::HasSubstr;

class ConfigFilesTest : public testing::Test {
 protected:
  std::string file(const std::string& name, const std::string& text) {
    std::string path = folder_.path(name);
    std::ofstream(path) << text;
    return path;
  }
  static std::string refusal(const ConfigFiles& files) {
    try {
      read_config(files, {});
    } catch (const core::Error& error) {
      return error.what();
    }
    return "accepted";
  }

 private:
  ScratchFolder folder_;
};

TEST_F(ConfigFilesTest, GroupsOfSeveralFilesMakeOneConfiguration) {
  const std::string model = file("model.yaml", "model_config: {pretrained_model_name: m}\npeft_config: {r: 4}\n");
  const std::string trainer = file("trainer.json", "{\"trainer_config\": {\"learning_rate\": 0.5}}");
  const RunConfig config = read_config({{model, trainer}, {}}, {"trainer_config.max_steps=7"});
  EXPECT_EQ(config.model_config.pretrained_model_name, "m");
  EXPECT_EQ(config.peft_config->r, 4);
  EXPECT_EQ(config.trainer_config.learning_rate, 0.5);
  EXPECT_EQ(config.trainer_config.max_steps, 7);
}

TEST_F(ConfigFilesTest, BareDocumentsAreTheirGroups) {
  const std::string peft = file("adapter_config.json", "{\"r\": 4,\n\"lora_alpha\": 32}");
  const std::string trainer = file("args.yaml", "learning_rate: 0.5\n");
  const std::string rest = file("rest.yaml", "data: {train: rows.jsonl}\n");
  const RunConfig config = read_config({{rest}, {{"peft_config", peft}, {"trainer_config", trainer}}}, {});
  EXPECT_EQ(config.peft_config->lora_alpha, 32);
  EXPECT_EQ(config.trainer_config.learning_rate, 0.5);
  EXPECT_EQ(config.data.train.text(), "rows.jsonl");
}

TEST_F(ConfigFilesTest, AGroupInTwoFilesIsRefusedWithBothFiles) {
  const std::string one = file("one.yaml", "model_config: {}\ntrainer_config: {learning_rate: 0.5}\n");
  const std::string two = file("two.yaml", "# more\ntrainer_config: {max_steps: 7}\n");
  const std::string bare = file("bare.yaml", "max_steps: 7\n");
  EXPECT_THAT(refusal({{one, two}, {}}),
              AllOf(HasSubstr(two + ":2: trainer_config is given twice"), HasSubstr("first at " + one + ":2")));
  EXPECT_THAT(refusal({{one}, {{"trainer_config", bare}}}), AllOf(HasSubstr(bare), HasSubstr(one + ":2")));
}

TEST_F(ConfigFilesTest, MessagesNameTheFileAndLineOfEachMistake) {
  const std::string one = file("one.yaml", "\nmodel_config: {revison: a}\n");
  const std::string bare = file("bare.json", "{\n\n\"learning_rat\": 1}\n");
  EXPECT_THAT(refusal({{one}, {{"trainer_config", bare}}}),
              AllOf(HasSubstr("2 mistakes"), HasSubstr(one + ":2: unknown key model_config.revison"),
                    HasSubstr(bare + ":3: unknown key trainer_config.learning_rat")));
}

TEST_F(ConfigFilesTest, EveryFileThatCannotBeReadIsNamed) {
  EXPECT_THAT(refusal({{"no-one.yaml", "no-two.yaml"}, {{"peft_config", "no-three.yaml"}}}),
              AllOf(HasSubstr("3 mistakes"), HasSubstr("no-one.yaml:"), HasSubstr("no-two.yaml:"),
                    HasSubstr("no-three.yaml:")));
}

TEST_F(ConfigFilesTest, ABareDocumentIsAMapOfKeys) {
  EXPECT_THAT(refusal({{}, {{"peft_config", file("empty.yaml", "")}}}),
              AllOf(HasSubstr("expected the keys of peft_config, found nothing"), HasSubstr("{} stands for")));
  EXPECT_THAT(refusal({{}, {{"peft_config", file("named.yaml", "peft_config: {r: 4}\n")}}}),
              HasSubstr("names the group peft_config itself; give it as --config"));
}

}  // namespace
}  // namespace neoloom::launch
