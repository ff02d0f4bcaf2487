// SPDX-License-Identifier: Apache-2.0
#include <ATen/ops/randn.h>

#include <nlohmann/json.hpp>

#include "model/checkpoints/adapter_folder.h"
#include "model/checkpoints/safetensors.h"
#include "model/checkpoints/weight_files.h"
#include "model/lora/target_modules.h"
#include "tests/support/scratch.h"

namespace neoloom::model {
namespace {

using core::ErrorKind;
using nlohmann::json;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Pair;
using ::testing::UnorderedElementsAre;

class AdapterConfig : public ::testing::Test {
 protected:
  void SetUp() override {
    write_safetensors(scratch_.path("adapter_model.safetensors"),
                      {{"base_model.model.transformer.h.1.mlp.c_fc.lora_A.weight", at::randn({2, 4})},
                       {"base_model.model.transformer.h.1.mlp.c_fc.lora_B.weight", at::randn({16, 2})}});
  }
  AdapterFolder read(const json& extra) {
    json config = {{"peft_type", "LORA"}, {"task_type", "CAUSAL_LM"}, {"r", 2}, {"target_modules", {"c_fc"}}};
    config.update(extra);
    scratch_.write("adapter_config.json", config.dump());
    return read_adapter_folder(scratch_.path());
  }
  std::string refusal(const json& extra) {
    return error_of(ErrorKind::kWeights, [&] { read(extra); });
  }
  ScratchFolder scratch_;
};

TEST_F(AdapterConfig, MissingFieldsTakePeftsDefaults) {
  const AdapterFolder folder = read(json::object());
  EXPECT_EQ(folder.lora.lora_alpha, 8.0);
  EXPECT_EQ(folder.lora.lora_dropout, 0.0);
  EXPECT_FALSE(folder.lora.use_rslora);
  EXPECT_THAT(folder.lora.target_modules.names, ElementsAre("c_fc"));
  EXPECT_EQ(folder.pad_token_id, -1);
  EXPECT_TRUE(folder.labels.empty());
  EXPECT_THAT(read({{"target_modules", nullptr}}).lora.target_modules.names, ElementsAre("q_proj", "v_proj"));
}

TEST_F(AdapterConfig, ExpressionsAndExclusionsBecomeTheModulesThatTheTensorsName) {
  EXPECT_THAT(read({{"target_modules", ".*\\.c_fc"}}).lora.target_modules.names,
              ElementsAre("transformer.h.1.mlp.c_fc"));
  EXPECT_THAT(read({{"layers_to_transform", 1}, {"layers_pattern", "h"}}).lora.target_modules.names,
              ElementsAre("transformer.h.1.mlp.c_fc"));
  EXPECT_THAT(read({{"exclude_modules", {"h.0.mlp.c_fc"}}}).lora.target_modules.names,
              ElementsAre("transformer.h.1.mlp.c_fc"));
}

TEST_F(AdapterConfig, AFloatAlphaAndForeignDefaultsAreRead) {
  const AdapterFolder folder = read({{"lora_alpha", 11.313708498984761},
                                     {"megatron_core", "megatron.core"},
                                     {"qalora_group_size", 16},
                                     {"loftq_config", json::object()},
                                     {"alpha_pattern", json::object()},
                                     {"a_field_of_the_future", nullptr}});
  EXPECT_EQ(folder.lora.lora_alpha, 11.313708498984761);
}

TEST_F(AdapterConfig, PatternsOfRankAndAlphaAreRead) {
  const AdapterFolder folder =
      read({{"rank_pattern", {{"h.0.mlp.c_fc", 2}, {"c_fc", 4.0}}}, {"alpha_pattern", {{"c_fc", 2.5}}}});
  EXPECT_THAT(folder.lora.rank_pattern, UnorderedElementsAre(Pair("h.0.mlp.c_fc", 2), Pair("c_fc", 4)));
  EXPECT_THAT(folder.lora.alpha_pattern, ElementsAre(Pair("c_fc", 2.5)));
  EXPECT_THAT(refusal({{"rank_pattern", {{"(c_fc", 2}}}}),
              HasSubstr("rank_pattern: \"(c_fc\" is no regular expression"));
}

TEST_F(AdapterConfig, LabelsAndPaddingComeFromTheConfigurationBeside) {
  scratch_.write("config.json", R"({"id2label":{"1":"spam 😀","0":"ham"},"problem_type":"single_label_classification",
                                    "pad_token_id":50256})");
  const AdapterFolder folder = read({{"task_type", "SEQ_CLS"}});
  EXPECT_THAT(folder.labels, ElementsAre("ham", "spam 😀"));
  EXPECT_EQ(folder.pad_token_id, 50256);
  EXPECT_EQ(folder.problem_type, "single_label_classification");
  scratch_.write("config.json", R"({"id2label":{"0":"ham","2":"spam"}})");
  EXPECT_THAT(refusal(json::object()), HasSubstr("none for 1"));
}

TEST_F(AdapterConfig, WhatIsNotSupportedIsRefusedByName) {
  const std::map<std::string, json> unsupported = {
      {"peft_type", "IA3"},
      {"task_type", "SEQ_2_SEQ_LM"},
      {"lora_bias", "yes"},
      {"bias", "some"},
      {"rank_pattern", {{"q_proj", 0}}},
      {"alpha_pattern", {{"q_proj", "4"}}},
      {"modules_to_save", {"wpe"}},
      {"init_lora_weights", "loftq"},
      {"trainable_token_indices", {1, 1}},
      {"target_parameters", {"x"}},
      {"layer_replication", json::array({json::array({0, 1})})},
      {"alora_invocation_tokens", {1}},
      {"eva_config", {{"rho", 2}}},
      {"corda_config", {{"a", 1}}},
      {"lora_ga_config", {{"a", 1}}},
      {"velora_config", {{"a", 1}}},
      {"kasa_config", {{"a", 1}}},
      {"use_bdlora", true},
      {"monteclora_config", {{"a", 1}}},
      {"arrow_config", {{"a", 1}}},
      {"use_qalora", true},
      {"megatron_config", {{"a", 1}}},
      {"loftq_config", {{"a", 1}}},
      {"ensure_weight_tying", true},
      {"a_field_of_the_future", 3},
      {"r", 0},
      {"lora_alpha", "8"},
      {"lora_dropout", 1.0},
      {"use_rslora", "yes"},
      {"use_dora", 1},
      {"target_modules", json::array()},
  };
  for (const auto& [key, value] : unsupported) {
    EXPECT_THAT(refusal({{key, value}}),
                AllOf(HasSubstr("adapter_config.json: " + key + " is "), HasSubstr("expected")));
  }
  for (const char* init : {"pissa_niter_4", "loftq", "corda", "lora_ga", "mica", "pissa_niter_"}) {
    EXPECT_THAT(refusal({{"init_lora_weights", init}}),
                AllOf(HasSubstr(init), HasSubstr("path_initial_model_for_weight_conversion")));
  }
}

TEST_F(AdapterConfig, WhatIsNotSupportedSaysHowToGoOn) {
  EXPECT_THAT(refusal({{"use_bdlora", true}}), HasSubstr("merge_and_unload().save_pretrained(FOLDER)"));
  EXPECT_THAT(refusal({{"trainable_token_indices", {{"lm_head", {1, 2}}}}}),
              AllOf(HasSubstr("one for wte alone"), HasSubstr("merge_and_unload")));
  for (const json& tokens : {json{-1}, json{1.5}, json{{"wte", {3, 3}}}}) {
    EXPECT_THAT(refusal({{"trainable_token_indices", tokens}}), HasSubstr("different token ids, of at least 0"));
  }
}

TEST_F(AdapterConfig, TokensAreReadAsAListAndAsOneOfWte) {
  const auto tokens = [&](const json& value) { return read({{"trainable_token_indices", value}}).lora; };
  EXPECT_THAT(tokens({7, 2}).trainable_token_indices, ElementsAre(7, 2));
  EXPECT_THAT(tokens({{"wte", {7, 2}}}).trainable_token_indices, ElementsAre(7, 2));
  EXPECT_THAT(tokens({{"transformer.wte", {2}}}).trainable_token_indices, ElementsAre(2));
  EXPECT_THAT(tokens(json::object()).trainable_token_indices, ElementsAre());
}

TEST(Tokens, ThatTheModelLacksOrTrainsOtherwiseAreRefused) {
  GptNeoConfig config;
  config.vocab_size = 10;
  LoraOptions lora;
  lora.trainable_token_indices = {3, 9};
  require_tokens(lora, config);
  const auto refusal_of = [&] { return error_of(ErrorKind::kUsage, [&] { require_tokens(lora, config); }); };
  lora.modules_to_save = {"wte"};
  EXPECT_THAT(refusal_of(), HasSubstr("modules_to_save: [wte]"));
  lora.modules_to_save = {"lm_head", "ln_f"};
  EXPECT_THAT(refusal_of(), AllOf(HasSubstr("modules_to_save: [lm_head]"), HasSubstr("tied to wte")));
  config.tie_word_embeddings = false;
  require_tokens(lora, config);
  lora.trainable_token_indices = {10};
  EXPECT_THAT(refusal_of(), HasSubstr("10 is no token of this model; expected 0 to 9"));
}

TEST_F(AdapterConfig, LoraOnAnEmbeddingOrTheHeadIsRefusedOnce) {
  for (const char* name :
       {"lm_head.lora_A.weight", "transformer.wte.lora_embedding_A", "transformer.wpe.lora_B.weight"}) {
    write_safetensors(scratch_.path("adapter_model.safetensors"),
                      {{"base_model.model.transformer.h.1.mlp.c_fc.lora_A.weight", at::randn({2, 4})},
                       {std::string("base_model.model.") + name, at::randn({2, 4})}});
    EXPECT_THAT(refusal({{"target_modules", {"c_fc", "lm_head", "wte"}}}),
                AllOf(HasSubstr("is not supported"), HasSubstr(name), HasSubstr("modules_to_save"),
                      HasSubstr("merge_and_unload"), HasSubstr("tie_word_embeddings = False")));
  }
}

TEST_F(AdapterConfig, DoraOnAChangedBaseIsRefused) {
  EXPECT_THAT(refusal({{"use_dora", true}, {"init_lora_weights", "pissa"}}),
              AllOf(HasSubstr("init_lora_weights is \"pissa\""), HasSubstr("use_dora is true")));
  EXPECT_TRUE(read({{"use_dora", true}, {"init_lora_weights", "gaussian"}}).lora.use_dora);
}

TEST_F(AdapterConfig, AnInitialisationOfKnownValuesIsRead) {
  const auto init = [&](const json& value) { return read({{"init_lora_weights", value}}).lora.init_lora_weights; };
  EXPECT_TRUE(init("pissa").splits_weights());
  EXPECT_TRUE(init("olora").splits_weights());
  EXPECT_EQ(init_name(init(false)), "false");
  EXPECT_EQ(init_name(init("gaussian")), "gaussian");
  EXPECT_EQ(init("eva"), AdapterInit{}) << "it leaves the base as it is";
}

TEST_F(AdapterConfig, TheBasesNameAndRevisionAndTheRowsOfTheHeadAreRead) {
  const AdapterFolder plain = read(json::object());
  EXPECT_EQ(plain.revision, "");
  EXPECT_EQ(plain.score_rows, 0);
  write_safetensors(scratch_.path("adapter_model.safetensors"),
                    {{"base_model.model._orig_mod.transformer.h.1.mlp.c_fc.lora_A.weight", at::randn({2, 4})},
                     {"base_model.model._orig_mod.transformer.h.1.mlp.c_fc.lora_B.weight", at::randn({16, 2})},
                     {"base_model.model._orig_mod.score.modules_to_save.weight", at::randn({3, 4})}});
  const AdapterFolder folder =
      read({{"base_model_name_or_path", "org/name"}, {"revision", "a-tag"}, {"target_modules", ".*c_fc"}});
  EXPECT_EQ(folder.base_model_name_or_path, "org/name");
  EXPECT_EQ(folder.revision, "a-tag");
  EXPECT_EQ(folder.score_rows, 3);
  EXPECT_THAT(folder.lora.target_modules.names, ElementsAre("transformer.h.1.mlp.c_fc"));
}

TEST(Targets, ThatMatchNothingAreNamedWithTheNearestThereIs) {
  EXPECT_THAT(unmatched_targets({{"q_proj", "o_proj", "h.1.mlp.c_fc", "h.2.mlp.c_fc"}}, 2),
              ElementsAre("o_proj", "h.2.mlp.c_fc"));
  LoraOptions lora;
  lora.target_modules = {{"q_proj", "transformer.h.1.mlp.c_fc", "all-linear"}};
  require_all_match(lora, 2);
  const auto refusal_of = [&](const std::string& entry) {
    lora.target_modules = {{"q_proj", entry}};
    return error_of(ErrorKind::kUsage, [&] { require_all_match(lora, 2); });
  };
  EXPECT_THAT(refusal_of("o_proj"),
              AllOf(HasSubstr("\"o_proj\" matches no module"), HasSubstr("did you mean out_proj?"),
                    HasSubstr("q_proj, k_proj, v_proj, out_proj, c_fc, c_proj")));
  for (const char* name : {"wte", "lm_head", "transformer.wpe"})
    EXPECT_THAT(refusal_of(name), AllOf(HasSubstr("embeddings"), HasSubstr("modules_to_save")));
  EXPECT_THAT(refusal_of("score"), HasSubstr("trained in full"));
}

TEST_F(AdapterConfig, FilesThatAreNotThereAreNamed) {
  std::filesystem::remove(scratch_.path("adapter_model.safetensors"));
  EXPECT_THAT(refusal(json::object()), HasSubstr("no adapter_model.safetensors"));
  scratch_.write("adapter_model.bin", "x");
  EXPECT_THAT(refusal(json::object()), HasSubstr("can run code"));
  std::filesystem::remove(scratch_.path("adapter_config.json"));
  EXPECT_THAT(error_of(ErrorKind::kWeights, [&] { read_adapter_folder(scratch_.path()); }),
              HasSubstr("expected an adapter folder"));
}

TEST_F(AdapterConfig, HostileJsonIsRefused) {
  const auto read_text = [&](const std::string& text) {
    scratch_.write("adapter_config.json", text);
    return error_of(ErrorKind::kWeights, [&] { read_adapter_folder(scratch_.path()); });
  };
  EXPECT_THAT(read_text(R"({"r":1,"r":2})"), HasSubstr("'r' appears twice"));
  EXPECT_THAT(read_text(std::string(100'000, '[')), HasSubstr("deeper than 32"));
  EXPECT_THAT(read_text(R"({"a":)" + std::string(40, '[') + std::string(40, ']') + "}"), HasSubstr("deeper than 32"));
  EXPECT_THAT(read_text("[1]"), HasSubstr("expected a JSON object"));
  EXPECT_THAT(read_text("{"), HasSubstr("not valid JSON"));
  EXPECT_THAT(read_text(R"({"a":")" + std::string(size_t{1} << 20, 'x') + "\"}"), HasSubstr("at most 1048576"));
}

TEST(StoredTensors, OfAModelThatPeftWrapsAreRefusedInOneSentence) {
  const ScratchFolder folder;
  for (const char* name : {"base_model.model.transformer.wte.weight", "module.base_model.model.transformer.wte.weight",
                           "transformer.h.0.attn.attention.q_proj.base_layer.weight"}) {
    write_safetensors(folder.path("model.safetensors"), {{name, at::randn({4, 4})}});
    EXPECT_THAT(
        error_of(ErrorKind::kWeights, [&] { SourceTensors source(folder.path()); }),
        AllOf(HasSubstr("wrapped by PEFT"), HasSubstr(name), HasSubstr("merge_and_unload"), HasSubstr("--adapter")));
  }
}

TEST(StoredTensors, OfAHeadAreCounted) {
  const ScratchFolder folder;
  EXPECT_EQ(stored_head_rows(folder.path()), 0);
  write_safetensors(folder.path("model.safetensors"), {{"transformer.wte.weight", at::randn({5, 4})}});
  EXPECT_EQ(stored_head_rows(folder.path()), 0);
  write_safetensors(folder.path("model.safetensors"), {{"module.score.weight", at::randn({3, 4})}});
  EXPECT_EQ(stored_head_rows(folder.path()), 3);
}

TEST(AdapterConfigText, IsSortedAndNamesModulesAsPeftDoes) {
  LoraOptions lora;
  lora.target_modules = {{"all-linear"}};
  lora.lora_alpha = 16;
  const json config = json::parse(adapter_config_text(lora, Head::kSingleLabel, "EleutherAI/gpt-neo-125m", "a-tag"));
  EXPECT_EQ(config["revision"], "a-tag");
  EXPECT_TRUE(json::parse(adapter_config_text(lora, Head::kCausalLm, "base", ""))["revision"].is_null());
  EXPECT_EQ(config["target_modules"].size(), 6U);
  EXPECT_TRUE(config["lora_alpha"].is_number_integer());
  EXPECT_EQ(config["modules_to_save"], json({"classifier", "score"}));
  EXPECT_EQ(config["task_type"], "SEQ_CLS");
}

}  // namespace
}  // namespace neoloom::model
