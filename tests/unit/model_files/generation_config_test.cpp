// SPDX-License-Identifier: Apache-2.0
#include "model/generation/generation_config.h"

#include "model/config_notes.h"
#include "tests/support/scratch.h"

namespace neoloom::model {
namespace {

using core::ErrorKind;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class GenerationSettings : public ::testing::Test {
 protected:
  GenerationConfig read(const std::string& config, const std::string& generation_config = "") {
    scratch_.write("config.json", R"({"model_type": "gpt_neo", "num_layers": 2, )" + config + "}");
    if (!generation_config.empty()) scratch_.write("generation_config.json", generation_config);
    config_ = GptNeoConfig::from_file(scratch_.path("config.json"));
    return GenerationConfig::from_folder(scratch_.path(), config_);
  }
  ScratchFolder scratch_;
  GptNeoConfig config_;
};

TEST_F(GenerationSettings, WithoutAFileOfTheirOwnStandInTheConfiguration) {
  const GenerationConfig found = read(R"("eos_token_id": [7, 9], "top_k": 3)");
  EXPECT_THAT(found.eos_token_ids, ElementsAre(7, 9));
  EXPECT_EQ(found.top_k, 3);
  EXPECT_EQ(found.file, "config.json");
  EXPECT_FALSE(found.temperature || found.do_sample || found.max_new_tokens);
  EXPECT_THAT(read(R"("vocab_size": 100)").eos_token_ids, ElementsAre(50256));
}

TEST_F(GenerationSettings, TheirOwnFileGoesBeforeTheConfiguration) {
  const GenerationConfig found = read(R"("eos_token_id": 7, "top_k": 3)", R"({"eos_token_id": 5, "temperature": 0.5})");
  EXPECT_THAT(found.eos_token_ids, ElementsAre(5));
  EXPECT_EQ(found.temperature, 0.5);
  EXPECT_FALSE(found.top_k);
  EXPECT_THAT(read(R"("eos_token_id": 7)", "{}").eos_token_ids, IsEmpty());
}

TEST_F(GenerationSettings, WhatIsNotKnownAndNotNeutralIsListed) {
  const GenerationConfig found = read(R"("eos_token_id": 7)", R"({"num_beams": 4, "min_length": 0, "typical_p": 1.0,
      "bad_words_ids": [[1]], "min_p": null, "use_cache": true, "transformers_version": "5"})");
  EXPECT_THAT(found.unknown, ::testing::UnorderedElementsAre("num_beams 4", "bad_words_ids [[1]]"));
}

TEST_F(GenerationSettings, AValueOfAnotherTypeIsNamed) {
  for (const auto& [file, key] : {std::pair{R"({"top_k": -1})", "top_k"},
                                  {R"({"temperature": "hot"})", "temperature"},
                                  {R"({"eos_token_id": ["x"]})", "eos_token_id"},
                                  {R"({"do_sample": 1})", "do_sample"}}) {
    EXPECT_THAT(error_of(ErrorKind::kWeights, [this, text = file] { read(R"("eos_token_id": 7)", text); }),
                ::testing::AllOf(HasSubstr("generation_config.json"), HasSubstr(key)));
  }
}

TEST_F(GenerationSettings, AttentionLayersGoBeforeAttentionTypes) {
  read(R"("attention_types": [[["global", "local"], 1]], "attention_layers": ["global", "global"])");
  EXPECT_THAT(config_.layer_is_local, ElementsAre(false, false));
  EXPECT_THAT(config_notes(config_), ElementsAre(HasSubstr("attention_layers counts")));
  read(R"("attention_types": [[["global", "local"], 1]], "attention_layers": ["global", "local"])");
  EXPECT_THAT(config_notes(config_), IsEmpty());
}

TEST_F(GenerationSettings, DropoutsAreReadAndLeftToTraining) {
  read(R"("resid_dropout": 0.1, "embed_dropout": 0.0, "attention_dropout": 0.25)");
  EXPECT_EQ(config_.resid_dropout, 0.1);
  EXPECT_EQ(config_.embed_dropout, 0.0);
  EXPECT_EQ(config_.attention_dropout, 0.25);
  read(R"("resid_dropout": 0)");
  EXPECT_EQ(config_.resid_dropout, 0.0);
  EXPECT_THAT(error_of(ErrorKind::kWeights, [&] { read(R"("resid_dropout": 1.5)"); }), HasSubstr("from 0 to 1"));
}

}  // namespace
}  // namespace neoloom::model
