// SPDX-License-Identifier: Apache-2.0
#include "launch/job/run_identity.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <functional>

#include "runtime/core/error.h"

namespace neoloom::launch {
namespace {

using nlohmann::ordered_json;
using testing::Contains;
using testing::HasSubstr;

model::GptNeoConfig base() {
  model::GptNeoConfig config;
  config.layer_is_local = {false, true};
  config.labels = {"ham", "spam"};
  return config;
}

ResolvedSettings resolved() {
  ResolvedSettings resolved;
  resolved.model_hash = "m";
  resolved.base_config = base_config_values(base());
  resolved.tokenizer_hash = "t";
  resolved.data_hash = "d";
  resolved.labels = {"ham", "spam"};
  resolved.start_hash = "s";
  resolved.device_kind = "cpu";
  resolved.compute_dtype = "float32";
  resolved.instruction_sets = "avx2";
  resolved.kernel_environment = "MKL_CBWR=AVX2";
  return resolved;
}

const std::string kOther = "other";

struct Item {
  std::string name;  // as messages name it
  std::function<void(RunConfig&, ResolvedSettings&)> change;
};

// Returns every item of the run identity that a resume compares, each with a change of it.
std::vector<Item> items() {
  return {
      {"trainer_config.learning_rate", [](RunConfig& c, ResolvedSettings&) { c.trainer_config.learning_rate *= 2; }},
      {"trainer_config.seed", [](RunConfig& c, ResolvedSettings&) { c.trainer_config.seed = 7; }},
      {"trainer_config.neftune_noise_alpha",
       [](RunConfig& c, ResolvedSettings&) { c.trainer_config.neftune_noise_alpha = 5; }},
      {"trainer_config.max_tokens_per_micro_batch",
       [](RunConfig& c, ResolvedSettings&) { c.trainer_config.max_tokens_per_micro_batch = 512; }},
      {"peft_config.r", [](RunConfig& c, ResolvedSettings&) { c.peft_config->r = 3; }},
      {"model_config.frozen_dtype",
       [](RunConfig& c, ResolvedSettings&) { c.model_config.frozen_dtype = model::Dtype::kBFloat16; }},
      {"runtime.gradient_sum", [](RunConfig& c, ResolvedSettings&) { c.runtime.gradient_sum = "float"; }},
      {"runtime.deterministic", [](RunConfig& c, ResolvedSettings&) { c.runtime.deterministic = false; }},
      {"trainer_config.max_steps", [](RunConfig& c, ResolvedSettings&) { c.trainer_config.max_steps = 99; }},
      {"model weights", [](RunConfig&, ResolvedSettings& r) { r.model_hash = kOther; }},
      {"tokenizer", [](RunConfig&, ResolvedSettings& r) { r.tokenizer_hash = kOther; }},
      {"training data", [](RunConfig&, ResolvedSettings& r) { r.data_hash = kOther; }},
      {"labels",
       [](RunConfig&, ResolvedSettings& r) {
         r.labels = {"spam", "ham"};
       }},
      {"pad_token_id", [](RunConfig&, ResolvedSettings& r) { r.pad_token_id = 1; }},
      {"peft_config.init_from", [](RunConfig&, ResolvedSettings& r) { r.start_hash = kOther; }},
      {"device", [](RunConfig&, ResolvedSettings& r) { r.device_kind = "H100"; }},
      {"runtime.compute_dtype", [](RunConfig&, ResolvedSettings& r) { r.compute_dtype = "bfloat16"; }},
      {"instruction_sets", [](RunConfig&, ResolvedSettings& r) { r.instruction_sets = "avx512f"; }},
      {"kernel_environment", [](RunConfig&, ResolvedSettings& r) { r.kernel_environment = ""; }},
  };
}

// Returns every value of config.json that GptNeoConfig holds, each with a change of it.
std::vector<std::pair<std::string, std::function<void(model::GptNeoConfig&)>>> base_items() {
  using Config = model::GptNeoConfig;
  return {{"vocab_size", [](Config& c) { ++c.vocab_size; }},
          {"max_position_embeddings", [](Config& c) { ++c.max_position_embeddings; }},
          {"hidden_size", [](Config& c) { ++c.hidden_size; }},
          {"num_layers", [](Config& c) { ++c.num_layers; }},
          {"num_heads", [](Config& c) { ++c.num_heads; }},
          {"intermediate_size", [](Config& c) { ++c.intermediate_size; }},
          {"window_size", [](Config& c) { ++c.window_size; }},
          {"layer_norm_epsilon", [](Config& c) { c.layer_norm_epsilon *= 1 + 1e-15; }},
          {"initializer_range", [](Config& c) { c.initializer_range = 0.03; }},
          {"embed_dropout", [](Config& c) { c.embed_dropout = 0.1; }},
          {"resid_dropout", [](Config& c) { c.resid_dropout = 0.1; }},
          {"attention_dropout", [](Config& c) { c.attention_dropout = 0.1; }},
          {"tie_word_embeddings", [](Config& c) { c.tie_word_embeddings = false; }},
          {"attention_layers",
           [](Config& c) {
             c.layer_is_local = {true, false};
           }},
          {"bos_token_id", [](Config& c) { ++c.bos_token_id; }},
          {"eos_token_id", [](Config& c) { ++c.eos_token_id; }},
          {"pad_token_id", [](Config& c) { ++c.pad_token_id; }},
          {"id2label", [](Config& c) { std::swap(c.labels[0], c.labels[1]); }},
          {"problem_type", [](Config& c) { c.problem_type = "multi_label_classification"; }}};
}

RunConfig config() {
  RunConfig config;
  config.peft_config.emplace();
  return config;
}

// Returns the message of a resume that is refused; "" when it goes on.
std::string refusal(const std::string& identity, const RunConfig& now, ResolvedSettings values) {
  try {
    adopt_identity("step-9.h5", identity, now, /*extend=*/false, values);
  } catch (const core::Error& error) {
    EXPECT_EQ(error.kind(), core::ErrorKind::kUsage);
    return error.what();
  }
  return "";
}

TEST(Identity, TheSameRunGoesOn) { EXPECT_EQ(refusal(identity_json(config(), resolved()), config(), resolved()), ""); }

TEST(Identity, EachItemThatChangesIsRefusedByName) {
  const std::string before = identity_json(config(), resolved());
  for (const Item& item : items()) {
    RunConfig changed = config();
    ResolvedSettings values = resolved();
    item.change(changed, values);
    EXPECT_THAT(refusal(before, changed, values), HasSubstr(fmt::format("  {}", item.name))) << item.name;
  }
}

TEST(Identity, EachValueOfTheBasesConfigIsRefusedByName) {
  const std::string before = identity_json(config(), resolved());
  ASSERT_EQ(base_items().size(), resolved().base_config.size());
  for (const auto& [key, change] : base_items()) {
    model::GptNeoConfig changed = base();
    change(changed);
    ResolvedSettings values = resolved();
    values.base_config = base_config_values(changed);
    EXPECT_THAT(refusal(before, config(), values), HasSubstr(fmt::format("config.json of the base: {}: was ", key)))
        << key;
  }
}

TEST(Identity, EachItemIsComparedOverRanksToo) {
  const comm::Fingerprint before = fingerprint("MPI", config(), resolved());
  for (const Item& item : items()) {
    RunConfig changed = config();
    ResolvedSettings values = resolved();
    item.change(changed, values);
    EXPECT_NE(fingerprint("MPI", changed, values), before) << item.name;
  }
  ResolvedSettings values = resolved();
  values.validation = {{"", "x"}};
  EXPECT_NE(fingerprint("MPI", config(), values), before);
  EXPECT_NE(fingerprint("another MPI", config(), resolved()), before);
}

TEST(Identity, RanksOfUnlikeBasesAreToldApartBeforeTheyWorkTogether) {
  for (const auto& [name, change] : base_items()) {
    model::GptNeoConfig changed = base();
    change(changed);
    ResolvedSettings values = resolved();
    values.base_config = base_config_values(changed);
    const auto has = [key = name](const ResolvedSettings& of) {
      return Contains(std::pair{fmt::format("config.json of the base: {}", key), of.base_config.at(key)});
    };
    EXPECT_THAT(early_fingerprint(config(), values), has(values));
    EXPECT_THAT(early_fingerprint(config(), values), testing::Not(has(resolved())));
  }
}

TEST(Identity, AKeyThatAnOlderNeoloomDidNotKnowHadItsDefault) {
  ordered_json older = ordered_json::parse(identity_json(config(), resolved()));
  for (const char* key : {"trainer_config.neftune_noise_alpha", "peft_config.use_dora"}) {
    ASSERT_EQ(older.at("config").erase(key), 1U) << key;
  }
  ResolvedSettings values = resolved();
  EXPECT_EQ(refusal(older.dump(), config(), values), "");
  RunConfig noisy = config();
  noisy.trainer_config.neftune_noise_alpha = 5;
  EXPECT_THAT(refusal(older.dump(), noisy, values), HasSubstr("trainer_config.neftune_noise_alpha: was 0, is 5"));
}

TEST(Identity, AnOlderNeoloomTrainedWithoutDropoutOfAttention) {
  ordered_json older = ordered_json::parse(identity_json(config(), resolved()));
  ASSERT_EQ(older.at("base_config").erase("attention_dropout"), 1U);
  ResolvedSettings values = resolved();
  EXPECT_EQ(refusal(older.dump(), config(), values), "");
  values.base_config["attention_dropout"] = "0.1";
  EXPECT_THAT(refusal(older.dump(), config(), values), HasSubstr("attention_dropout: was 0, is 0.1"));
}

TEST(Identity, WhatAnOlderNeoloomDidNotStoreIsNotCompared) {
  ordered_json older = ordered_json::parse(identity_json(config(), resolved()));
  for (const char* key : {"base_config", "labels", "pad_token_id", "init_from", "program", "kernel_environment"}) {
    ASSERT_EQ(older.erase(key), 1U) << key;
  }
  ResolvedSettings values = resolved();
  values.base_config["window_size"] = "7";
  values.labels = {"other"};
  values.pad_token_id = 9;
  values.kernel_environment = "MKL_CBWR=COMPATIBLE";
  EXPECT_EQ(refusal(older.dump(), config(), values), "");
}

TEST(Identity, AnAdapterToStartFromMayBeGoneOrNoLongerAskedForAfterTheStart) {
  ResolvedSettings values = resolved();
  values.start_hash = "";
  EXPECT_EQ(refusal(identity_json(config(), resolved()), config(), values), "");
  adopt_identity("", identity_json(config(), resolved()), config(), /*extend=*/false, values);
  EXPECT_EQ(values.start_hash, "s") << "further checkpoints still know it";
}

TEST(Identity, AnotherProgramIsToldAndGoesOn) {
  ordered_json identity = ordered_json::parse(identity_json(config(), resolved()));
  identity["program"] = "neoloom 0.0.1";
  ResolvedSettings values = resolved();
  EXPECT_THAT(adopt_identity("", identity.dump(), config(), /*extend=*/false, values),
              testing::ElementsAre(HasSubstr("neoloom 0.0.1")));
}

TEST(Identity, UnlikeDevicesAreAllowedWithAWord) {
  RunConfig lenient = config();
  lenient.runtime.allow_mixed_devices = true;
  ResolvedSettings values = resolved();
  values.kernel_environment = "";
  values.instruction_sets = "avx512f";
  EXPECT_THAT(adopt_identity("", identity_json(config(), resolved()), lenient, /*extend=*/false, values),
              testing::ElementsAre(HasSubstr("instruction_sets was avx2"), HasSubstr("kernel_environment")));
}

TEST(BaseOfARun, OfAnotherFunctionIsRefusedByNameAndOtherKeysAreNot) {
  const auto told = [](const model::GptNeoConfig& now) -> std::string {
    try {
      require_same_base(base_config_values(base()), now, "models/base");
    } catch (const core::Error& error) {
      EXPECT_EQ(error.kind(), core::ErrorKind::kWeights);
      return error.what();
    }
    return "";
  };
  model::GptNeoConfig changed = base();
  changed.labels.clear();  // the run has its own
  changed.pad_token_id = 3;
  EXPECT_EQ(told(changed), "");
  changed.window_size = 4;
  EXPECT_THAT(told(changed),
              testing::AllOf(HasSubstr("models/base/config.json"), HasSubstr("window_size: was 256, is 4")));
}

TEST(KernelEnvironment, ListsWhatIsSet) {
  ASSERT_EQ(::setenv("MKL_CBWR", "COMPATIBLE", 1), 0);
  EXPECT_THAT(kernel_environment(), HasSubstr("MKL_CBWR=COMPATIBLE"));
  ASSERT_EQ(::unsetenv("MKL_CBWR"), 0);
  EXPECT_THAT(kernel_environment(), testing::Not(HasSubstr("MKL_CBWR")));
}

TEST(BaseConfigValues, DoNotDependOnLayoutAndUnknownKeys) {
  const std::string path = fmt::format("{}/neoloom-identity-config.json", testing::TempDir());
  const auto values_of = [&](const std::string& text) {
    std::ofstream(path) << text;
    return base_config_values(model::GptNeoConfig::from_file(path));
  };
  EXPECT_EQ(values_of(R"({"model_type":"gpt_neo","num_layers":2,"attention_types":[[["global","local"],1]]})"),
            values_of("{\n \"transformers_version\": \"5\", \"model_type\": \"gpt_neo\",\n \"num_layers\": 2,"
                      "\n \"attention_layers\": [\"global\", \"local\"], \"window_size\": 256}"));
}

}  // namespace
}  // namespace neoloom::launch
