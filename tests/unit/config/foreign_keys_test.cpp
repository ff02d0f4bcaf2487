// SPDX-License-Identifier: Apache-2.0
// hf_defaults.json was written by make_hf_defaults.py from transformers and peft themselves.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "launch/config/schema.h"
#include "runtime/core/files.h"
#include "tests/unit/config/support.h"

namespace neoloom::launch {
namespace {

using testing::AllOf;
using testing::AnyOf;
using testing::HasSubstr;

nlohmann::json hugging_face_defaults() {
  return nlohmann::json::parse(core::read_file(NL_SOURCE_DIR "/tests/unit/config/hf_defaults.json"));
}

TEST(ForeignKeys, EveryFieldOfTrainingArgumentsAndLoraConfigIsKnown) {
  const nlohmann::json defaults = hugging_face_defaults();
  for (const char* group : {"trainer_config", "peft_config"}) {
    for (const auto& [key, value] : defaults.at(group).items()) {
      const nlohmann::json document = {{group, {{key, "a value that no key takes"}}}};
      EXPECT_THAT(refusal(document.dump()), AnyOf("accepted", HasSubstr("not supported yet"), HasSubstr("expected")))
          << key;
    }
  }
}

TEST(ForeignKeys, EveryDefaultIsAcceptedAndChangesNothing) {
  const nlohmann::json defaults = hugging_face_defaults();
  for (const char* group : {"trainer_config", "peft_config"}) {
    for (const auto& [key, value] : defaults.at(group).items()) {
      const nlohmann::json document = {{group, {{key, value}}}};
      EXPECT_EQ(refusal(document.dump()), "accepted") << key << ": " << value;
    }
  }
}

TEST(ForeignKeys, OwnDefaultsAreHuggingFacesButForTheDocumentedOnes) {
  const nlohmann::json defaults = hugging_face_defaults();
  const std::map<std::string, std::string> documented = {
      {"trainer_config.output_dir", "runs/default"},     {"trainer_config.logging_steps", "10"},
      {"trainer_config.save_total_limit", "3"},          {"trainer_config.eval_steps", "0"},
      {"trainer_config.gradient_checkpointing", "auto"}, {"trainer_config.metric_for_best_model", "loss"},
      {"peft_config.target_modules", "[q_proj, v_proj]"}};
  const auto own = flatten(parse("peft_config: {}"));
  for (const Field& field : make_fields()) {
    const bool foreign = defaults.contains(field.group) && defaults.at(field.group).contains(field.key);
    if (!foreign || documented.contains(field.name())) continue;
    const nlohmann::json document = {{field.group, {{field.key, defaults.at(field.group).at(field.key)}}}};
    EXPECT_EQ(flatten(parse(document.dump(), {"peft_config={}"})).at(field.name()), own.at(field.name()))
        << field.name();
  }
  for (const auto& [name, value] : documented)
    EXPECT_THAT(own.at(name), AnyOf(value, fmt::format("\"{}\"", value))) << name;
}

TEST(ForeignKeys, ValuesThatWouldChangeTheResultAreRefusedByName) {
  for (const std::string text :
       {"trainer_config: {optim: lomo}", "trainer_config: {eval_on_start: true}",
        "trainer_config: {neftune_noise_alpha: 5}", "trainer_config: {push_to_hub: true}",
        "trainer_config: {overwrite_output_dir: true}", "trainer_config: {report_to: wandb}",
        "trainer_config: {report_to: [tensorboard]}", "trainer_config: {deepspeed: ds.json}",
        "trainer_config: {resume_from_checkpoint: some/where}",
        "trainer_config: {average_tokens_across_devices: false}", "peft_config: {use_dora: true}",
        "peft_config: {bias: all}", "peft_config: {inference_mode: true}", "tokenizer_config: {padding_side: left}",
        "model_config: {load_in_8bit: true}", "model_config: {device_map: auto}", "data: {messages_column: m}"}) {
    EXPECT_THAT(refusal(text + "\n"), HasSubstr("is not supported yet")) << text;
  }
}

TEST(ForeignKeys, MapsAreTakenWithTheirDefaultsInsideAndRefusedByTheirOwnKeys) {
  const std::string group = "trainer_config: {accelerator_config: ";
  EXPECT_EQ(refusal(group + "{split_batches: false, dispatch_batches: null, even_batches: true}}\n"), "accepted");
  EXPECT_THAT(refusal(group + "{split_batches: true}}\n"),
              HasSubstr("trainer_config.accelerator_config.split_batches: true is not supported yet"));
  EXPECT_THAT(refusal(group + "{even_batch: true}}\n"),
              HasSubstr("unknown key trainer_config.accelerator_config.even_batch; did you mean even_batches?"));
  EXPECT_EQ(refusal("trainer_config: {fsdp_config: {min_num_params: 0, xla: false, xla_fsdp_grad_ckpt: false}}\n"),
            "accepted");
  EXPECT_EQ(refusal("peft_config: {runtime_config: {ephemeral_gpu_offload: false}}\n"), "accepted");
}

TEST(ForeignKeys, DefaultsOfOlderTrainingArgumentsAreTaken) {
  const std::string defaults =
      R"({"save_safetensors": false, "use_mps_device": false, "jit_mode_eval": false, "use_ipex": false,
          "fp16_opt_level": "O1", "half_precision_backend": "auto", "tpu_num_cores": null, "tpu_metrics_debug": false,
          "debug": [], "past_index": -1, "sharded_ddp": [], "fsdp": [], "fsdp_min_num_params": 0,
          "fsdp_config": {"fsdp_min_num_params": 0, "xla": false, "xla_fsdp_grad_ckpt": false},
          "fsdp_transformer_layer_cls_to_wrap": null, "adafactor": false, "use_legacy_prediction_loop": false,
          "hub_private_repo": false, "include_inputs_for_metrics": false, "fp16_backend": "auto",
          "push_to_hub_model_id": null, "push_to_hub_organization": null, "push_to_hub_token": "<PUSH_TO_HUB_TOKEN>",
          "mp_parameters": "", "torchdynamo": null, "xpu_backend": null, "per_gpu_train_batch_size": null,
          "warmup_ratio": 0.0, "warmup_steps": 0, "evaluation_strategy": "no", "group_by_length": false})";
  EXPECT_EQ(refusal("{\"trainer_config\": " + defaults + "}"), "accepted");
  EXPECT_THAT(refusal("trainer_config: {sharded_ddp: simple}\n"), HasSubstr("is not supported"));
}

TEST(ForeignKeys, PlaceholdersOfTokensAreNoTokens) {
  EXPECT_EQ(refusal("trainer_config: {hub_token: <HUB_TOKEN>, push_to_hub_token: <PUSH_TO_HUB_TOKEN>}\n"), "accepted");
  EXPECT_THAT(refusal("trainer_config: {hub_token: abc}\n"),
              AllOf(HasSubstr("hub_token: *** is not supported"), HasSubstr("secrets do not belong")));
}

TEST(ForeignKeys, AnOldOptimizerIsComputedAsTheNewOneAndSaid) {
  const RunConfig config = parse("trainer_config: {optim: adamw_hf}\n");
  ASSERT_EQ(config.warnings.size(), 1U);
  EXPECT_EQ(config.warnings.front(), "run.yaml:1: trainer_config.optim: adamw_hf is computed as adamw_torch");
}

TEST(ForeignKeys, NamesOfOneOptimizerAreOneValue) {
  const auto optim = [](const std::string& text) {
    return parse("trainer_config: {" + text + "}\n").trainer_config.optim;
  };
  EXPECT_EQ(optim("optim: adamw_torch_fused"), "adamw_torch");
  EXPECT_EQ(optim("optim: lion"), "lion_32bit");
  EXPECT_EQ(optim("optim: adamw_bnb_8bit"), "adamw_8bit");
  EXPECT_EQ(optim("adafactor: true"), "adafactor");
  EXPECT_EQ(optim("adafactor: false, optim: sgd"), "sgd");
}

TEST(ForeignKeys, ArgumentsThatTheOptimizerDoesNotHaveAreRefused) {
  EXPECT_EQ(refusal("trainer_config: {optim: sgd, optim_args: 'momentum=0.9, nesterov=true'}\n"), "accepted");
  EXPECT_THAT(refusal("trainer_config: {optim_args: momentum=0.9}\n"),
              AllOf(HasSubstr("run.yaml:1: trainer_config.optim_args"), HasSubstr("adamw_torch has no argument")));
  EXPECT_THAT(refusal("trainer_config: {optim: sgd, optim_args: nesterov=true}\n"), HasSubstr("needs a momentum"));
  EXPECT_THAT(refusal("trainer_config: {optim: sgd, optim_args: momentum}\n"), HasSubstr("key=value"));
  EXPECT_THAT(refusal("trainer_config: {optim: sgd, optim_args: momentum=much}\n"), HasSubstr("found \"much\""));
  EXPECT_THAT(refusal("trainer_config: {optim: sgd, optim_args: weight_decay=0.1}\n"),
              HasSubstr("trainer_config.weight_decay sets it"));
  EXPECT_THAT(refusal("trainer_config: {loraplus_lr_ratio: 16}\n"), HasSubstr("no lora_A"));
}

TEST(ForeignKeys, AdviceIsGivenWhereThereIsAnotherWay) {
  EXPECT_THAT(refusal("trainer_config: {overwrite_output_dir: true}\n"), HasSubstr("--resume none"));
  EXPECT_THAT(refusal("trainer_config: {max_seq_length: 128}\n"), HasSubstr("tokenizer_config.max_length"));
}

TEST(Schema, EveryKeyHasOneMeaning) {
  const Schema schema;
  for (const ForeignKey& key : schema.foreign) {
    EXPECT_EQ(schema.field(key.group, key.key), nullptr) << key.group << "." << key.key;
    EXPECT_EQ(schema.alias(key.group, key.key), nullptr) << key.group << "." << key.key;
    EXPECT_EQ(schema.foreign_key(key.group, key.key), &key) << key.group << "." << key.key << " is listed twice";
  }
  for (const Alias& alias : schema.aliases) {
    EXPECT_EQ(schema.field(alias.group, alias.old_key), nullptr) << alias.old_key;
    EXPECT_NE(schema.field(alias.target_group, alias.key), nullptr) << alias.old_key;
  }
}

}  // namespace
}  // namespace neoloom::launch
