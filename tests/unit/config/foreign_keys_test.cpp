// SPDX-License-Identifier: Apache-2.0
// hf_defaults.json was written by make_hf_defaults.py from transformers and peft themselves.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "launch/config/document.h"
#include "launch/config/schema.h"
#include "tests/unit/config/hf_defaults.h"
#include "tests/unit/config/support.h"

namespace neoloom::launch {
namespace {

using testing::AllOf;
using testing::AnyOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

std::string rendered(const nlohmann::json& value) { return render(parse_document(value.dump(), "default")); }

std::vector<std::string> warnings_of(std::string_view group, std::string_view key, const nlohmann::json& value) {
  const nlohmann::json document = {{std::string(group), {{std::string(key), value}}}};
  try {
    return parse(document.dump()).warnings;
  } catch (const core::Error& error) {
    return {std::string("refused: ") + error.what()};
  }
}

TEST(ForeignKeys, EveryKeyOfTheClassesIsInTheTables) {
  const Schema schema;
  const nlohmann::json defaults = hugging_face_defaults();  // outlives the loop
  for (const auto& [group, keys] : defaults.items()) {
    for (const auto& [key, value] : keys.items()) {
      EXPECT_TRUE(schema.field(group, key) || schema.alias(group, key) || schema.foreign_key(group, key))
          << group << "." << key;
    }
  }
}

TEST(ForeignKeys, EveryDefaultIsTakenWithoutAWord) {
  const Schema schema;
  const nlohmann::json defaults = hugging_face_defaults();  // outlives the loop
  for (const auto& [group, keys] : defaults.items()) {
    for (const auto& [key, value] : keys.items()) {
      const Alias* alias = schema.alias(group, key);
      if (alias != nullptr && alias->outdated) continue;  // an old spelling is said
      EXPECT_THAT(warnings_of(group, key, value), IsEmpty()) << group << "." << key << ": " << value;
    }
  }
}

TEST(ForeignKeys, TheTablesBeginWithHuggingFacesDefault) {
  const nlohmann::json defaults = hugging_face_defaults();
  for (const ForeignKey& key : make_foreign_keys()) {
    const auto group = defaults.find(std::string(key.group));
    if (group == defaults.end() || !group->contains(std::string(key.key))) continue;
    const std::string value = rendered(group->at(std::string(key.key)));
    // null stands for the default of a model or tokenizer folder.
    if (value == "null") continue;
    EXPECT_EQ(key.quiet.front(), value) << key.group << "." << key.key;
  }
}

// The rule of the page: no key is swallowed in silence, and each says why.
TEST(ForeignKeys, EveryOtherValueGetsOneLineOrIsRefusedWithTheReason) {
  for (const ForeignKey& key : make_foreign_keys()) {
    if (key.group.find('.') != std::string_view::npos) continue;
    ASSERT_FALSE(key.reason.empty()) << key.key;
    const auto warnings = warnings_of(key.group, key.key, "a value that no key takes");
    const bool refused = key.kind == ForeignKey::Kind::kRefused;
    EXPECT_THAT(warnings, ElementsAre(AllOf(HasSubstr(fmt::format("run.yaml:1: {}.{}", key.group, key.key)),
                                            HasSubstr(refused ? "is not supported yet; accepted: " : "has no effect: "),
                                            HasSubstr(std::string(key.reason)))));
    for (const std::string_view value : key.quiet) {
      EXPECT_EQ(refusal(fmt::format("{}: {{{}: {}}}\n", key.group, key.key, value.empty() ? "\"\"" : value)),
                "accepted");
    }
  }
}

TEST(ForeignKeys, OwnDefaultsAreHuggingFacesButForTheDocumentedOnes) {
  const nlohmann::json defaults = hugging_face_defaults();
  const std::map<std::string, std::string> documented = {
      {"trainer_config.output_dir", "runs/default"},      {"trainer_config.logging_steps", "10"},
      {"trainer_config.save_total_limit", "3"},           {"trainer_config.eval_steps", "0"},
      {"trainer_config.gradient_checkpointing", "auto"},  {"trainer_config.metric_for_best_model", "loss"},
      {"peft_config.target_modules", "[q_proj, v_proj]"}, {"tokenizer_config.add_eos_token", "true"}};
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
       {"trainer_config: {optim: lomo}", "trainer_config: {save_on_each_node: true}",
        "trainer_config: {push_to_hub: true}", "trainer_config: {deepspeed: ds.json}",
        "trainer_config: {resume_from_checkpoint: some/where}", "trainer_config: {label_names: [other]}",
        "peft_config: {use_qalora: true}", "peft_config: {use_bdlora: true}",
        "tokenizer_config: {chat_template: jinja}", "model_config: {load_in_8bit: true}"}) {
    EXPECT_THAT(refusal(text + "\n"), HasSubstr("is not supported yet")) << text;
  }
}

TEST(ReportTo, TakesNamesListsAllAndNone) {
  const auto names = [](const std::string& value) {
    return parse("trainer_config: {report_to: " + value + "}\n").trainer_config.report_to;
  };
  EXPECT_THAT(names("csv"), ElementsAre("csv"));
  EXPECT_THAT(names("[prometheus, tensorboard]"), ElementsAre("prometheus", "tensorboard"));
  for (const std::string all : {"all", "[all]"})
    EXPECT_THAT(names(all), ElementsAre("tensorboard", "csv", "prometheus"));
  for (const std::string none : {"none", "[none]", "[]", "null"}) EXPECT_THAT(names(none), IsEmpty()) << none;
}

TEST(ReportTo, RefusesServicesByNameAndOtherWords) {
  for (const std::string value : {"wandb", "[tensorboard, mlflow]", "comet_ml"}) {
    EXPECT_THAT(refusal("trainer_config: {report_to: " + value + "}\n"),
                AllOf(HasSubstr("neoloom sends nothing over a network"), HasSubstr("metrics.jsonl")))
        << value;
  }
  for (const std::string value : {"tensorbord", "[all, csv]", "[none, csv]", "[csv, csv]", "7", "{csv: true}"}) {
    EXPECT_THAT(refusal("trainer_config: {report_to: " + value + "}\n"), HasSubstr("trainer_config.report_to: "))
        << value;
  }
}

TEST(ReportTo, SaysThatAFolderOfTensorBoardAloneHasNoEffect) {
  EXPECT_THAT(parse("trainer_config: {logging_dir: logs}\n").warnings,
              ElementsAre(HasSubstr("trainer_config.logging_dir: has no effect without tensorboard in report_to")));
  EXPECT_THAT(parse("trainer_config: {logging_dir: logs, report_to: tensorboard}\n").warnings, IsEmpty());
}

TEST(ForeignKeys, HarmlessValuesGetALineAndTheRunGoesOn) {
  for (const std::string text :
       {"model_config: {device_map: auto}", "trainer_config: {label_names: [labels]}",
        "tokenizer_config: {padding_side: left}", "tokenizer_config: {pad_to_multiple_of: 8}",
        "trainer_config: {tf32: true}", "trainer_config: {torch_compile: true}",
        "trainer_config: {average_tokens_across_devices: false}", "trainer_config: {dataloader_num_workers: 4}",
        "peft_config: {inference_mode: true}", "trainer_config: {resume_from_checkpoint: true}"}) {
    EXPECT_THAT(parse(text + "\n").warnings, ElementsAre(HasSubstr("has no effect: "))) << text;
  }
  EXPECT_THAT(parse("trainer_config: {save_only_model: true}\n").warnings,
              ElementsAre(HasSubstr("checkpoints stay whole, so that the run can resume")));
  EXPECT_THAT(parse("trainer_config: {overwrite_output_dir: true}\n").warnings,
              ElementsAre(HasSubstr("a run in output_dir resumes; another output_dir starts over")));
}

TEST(ForeignKeys, TheDtypeAutoLeavesTheDefault) {
  const RunConfig config = parse("model_config: {dtype: auto}\ntrainer_config: {bf16: true}\n");
  EXPECT_EQ(config.model_config.frozen_dtype, model::Dtype::kBFloat16);
  EXPECT_THAT(config.warnings, IsEmpty());
}

TEST(ForeignKeys, ADdpTimeoutOtherThanTheDefaultIsThePeerTimeout) {
  EXPECT_EQ(parse("trainer_config: {ddp_timeout: 7200}\n").runtime.peer_timeout_seconds, 7200);
  EXPECT_EQ(parse("trainer_config: {ddp_timeout: 1800}\n").runtime.peer_timeout_seconds, 300);
  EXPECT_THAT(refusal("trainer_config: {ddp_timeout: 60}\nruntime: {peer_timeout_seconds: 90}\n"),
              HasSubstr("runtime.peer_timeout_seconds is given twice"));
}

TEST(ForeignKeys, KeysOfSftConfigLeadToTheirGroups) {
  const RunConfig config = parse("trainer_config: {max_seq_length: 64, dataset_text_field: body}\n");
  EXPECT_EQ(config.tokenizer_config.max_length, 64);
  EXPECT_EQ(config.data.text_column, "body");
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
