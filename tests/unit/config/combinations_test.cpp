// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "runtime/core/error.h"
#include "tests/unit/config/support.h"

namespace neoloom::launch {
namespace {

using testing::HasSubstr;

TEST(ComputeDtype, FollowsBf16AndFp16) {
  EXPECT_EQ(parse("trainer_config: {bf16: true}\n").runtime.compute_dtype, "bfloat16");
  EXPECT_EQ(parse("trainer_config: {fp16: true}\n").runtime.compute_dtype, "float16");
  EXPECT_EQ(parse("trainer_config: {fp16: false}\n").runtime.compute_dtype, "auto");
  EXPECT_THAT(refusal("trainer_config: {fp16: true, bf16: true}\n"), HasSubstr("cannot both be true"));
  EXPECT_THAT(refusal("trainer_config: {bf16: true}\nruntime: {compute_dtype: float32}\n"),
              HasSubstr("run.yaml:2: runtime.compute_dtype"));
}

TEST(FrozenDtype, IsThatOfBfloat16ProductsUnlessItIsGiven) {
  using model::Dtype;
  const auto stored = [](const std::string& text) { return parse(text).model_config.frozen_dtype; };
  EXPECT_EQ(stored(""), Dtype::kFloat16);
  EXPECT_EQ(stored("trainer_config: {fp16: true}\n"), Dtype::kFloat16);
  EXPECT_EQ(stored("trainer_config: {bf16: true}\n"), Dtype::kBFloat16);
  EXPECT_EQ(stored("runtime: {compute_dtype: bfloat16}\nmodel_config: {frozen_dtype: null}\n"), Dtype::kBFloat16);
  for (const auto& [name, dtype] : {std::pair("float16", Dtype::kFloat16), std::pair("float32", Dtype::kFloat32)}) {
    EXPECT_EQ(stored(fmt::format("trainer_config: {{bf16: true}}\nmodel_config: {{torch_dtype: {}}}\n", name)), dtype);
  }
  const RunConfig resolved = parse("trainer_config: {bf16: true}\n");
  EXPECT_EQ(parse(to_yaml(resolved)).model_config.frozen_dtype, Dtype::kBFloat16) << "a run keeps what it started with";
}

TEST(Combinations, AreToldAtOnceInTheOrderOfTheirLines) {
  EXPECT_EQ(refusal("peft_config:\n  task_type: CAUSAL_LM\n  target_modules: []\n"
                    "trainer_config:\n  bf16: true\n  fp16: true\n  eval_strategy: epoch\n"
                    "data:\n  label_column: l\n  labels_column: m\n  pack: samples\n"),
            "run.yaml: 5 mistakes:"
            "\n  run.yaml:2: peft_config.task_type: CAUSAL_LM has no labels; remove label columns and problem_type, or "
            "use SEQ_CLS"
            "\n  run.yaml:3: peft_config.target_modules: expected at least one module name (default: q_proj, v_proj), "
            "or all-linear"
            "\n  run.yaml:6: trainer_config.fp16: bf16 and fp16 cannot both be true"
            "\n  run.yaml:7: trainer_config.eval_strategy: evaluation while training needs data.validation or "
            "data.validation_split"
            "\n  run.yaml:10: data.labels_column: label_column (one label a row) and labels_column (several) cannot "
            "both be given")
      << "what packs need is not told while the task is unknown";
}

TEST(Combinations, AreNotCheckedWithValuesThatCouldNotBeRead) {
  EXPECT_EQ(
      refusal("trainer_config:\n  eval_strategy: epoch\ndata: {validation_split: much}\n"),
      "run.yaml:3: data.validation_split: expected a number of at least 0 and below 1, found \"much\" (a string)");
}

TEST(BestModel, NeedsEvaluationsAndNoCheckpointOfTheirSteps) {
  const std::string data = "data: {validation: v}\n";
  for (const char* key : {"load_best_model_at_end: true", "save_strategy: best"}) {
    EXPECT_THAT(refusal(data + fmt::format("trainer_config: {{{}}}\n", key)), HasSubstr("needs eval_strategy")) << key;
    EXPECT_EQ(refusal(data + fmt::format("trainer_config: {{{}, eval_strategy: epoch}}\n", key)), "accepted") << key;
  }
  for (const char* more : {"eval_steps: 30, save_steps: 100", "eval_steps: 0.04, save_steps: 100", "save_strategy: no",
                           "save_strategy: epoch", "save_strategy: best"}) {
    EXPECT_EQ(refusal(data + fmt::format("trainer_config: {{load_best_model_at_end: true, eval_strategy: steps, {}}}\n",
                                         more)),
              "accepted")
        << more;
  }
}

TEST(Evaluation, NeedsValidationData) {
  EXPECT_THAT(refusal("trainer_config: {eval_strategy: epoch}\n"), HasSubstr("needs data.validation"));
  EXPECT_EQ(refusal("trainer_config: {eval_strategy: epoch}\ndata: {validation_split: 0.1}\n"), "accepted");
  EXPECT_THAT(refusal("data: {validation: dev.csv, validation_split: 0.1}\n"), HasSubstr("give one of them"));
  EXPECT_THAT(refusal("trainer_config: {eval_on_start: true}\n"),
              HasSubstr("eval_on_start: evaluation while training"));
  EXPECT_THAT(refusal("trainer_config: {eval_delay: 2}\n"), HasSubstr("has no effect with eval_strategy: no"));
  EXPECT_THAT(refusal("trainer_config: {calibrate: true}\n"), HasSubstr("calibrate: expected one validation set"));
  EXPECT_THAT(refusal("data: {validation: {a: v, b: w}}\ntrainer_config: {calibrate: true}\n"), HasSubstr("found 2"));
}

TEST(EarlyStopping, NeedsEvaluationsAndAThresholdNeedsIt) {
  const std::string data = "data: {validation: v}\n";
  EXPECT_THAT(refusal(data + "trainer_config: {early_stopping_patience: 2}\n"),
              HasSubstr("early_stopping_patience: needs eval_strategy"));
  EXPECT_THAT(refusal(data + "trainer_config: {eval_strategy: epoch, early_stopping_threshold: 0.1}\n"),
              HasSubstr("has no effect without early_stopping_patience"));
  const auto warnings = [&](const std::string& more) {
    return parse(data + "trainer_config: {eval_strategy: epoch, early_stopping_patience: 2" + more + "}\n").warnings;
  };
  EXPECT_THAT(warnings(""), testing::ElementsAre(HasSubstr("the result is the last state")));
  EXPECT_THAT(warnings(", load_best_model_at_end: true"), testing::IsEmpty());
}

TEST(Schedules, ThatFollowEvaluationsNeedThemAndHaveNoWarmUp) {
  const std::string data = "data: {validation: v}\n";
  for (const char* name : {"reduce_lr_on_plateau", "greedy"}) {
    const auto run = [&](const std::string& more) {
      return data + fmt::format("trainer_config: {{lr_scheduler_type: {}{}}}\n", name, more);
    };
    EXPECT_THAT(refusal(run("")), HasSubstr("lr_scheduler_type: needs eval_strategy")) << name;
    EXPECT_THAT(refusal(run(", eval_strategy: epoch, lr_scheduler_kwargs: {factor: 1.0}")),
                HasSubstr("lr_scheduler_kwargs.factor: expected less than 1"));
    EXPECT_THAT(refusal(run(", eval_strategy: epoch, lr_scheduler_kwargs: {num_cycles: 2}")),
                HasSubstr("has no argument \"num_cycles\"; it has mode, threshold, threshold_mode, factor"));
    EXPECT_THAT(parse(run(", eval_strategy: epoch, warmup_steps: 5")).warnings,
                testing::ElementsAre(HasSubstr("warmup_steps: 5 has no effect")));
  }
  EXPECT_EQ(refusal(data + "trainer_config: {lr_scheduler_type: greedy, eval_strategy: epoch, "
                           "lr_scheduler_kwargs: {smooth: true, verbose: false}}\n"),
            "accepted");
}

TEST(Packs, AreForLanguageModels) {
  EXPECT_EQ(parse("data: {pack: samples}\n").data.pack, "samples");
  EXPECT_EQ(parse("data: {pack: null}\n").data.pack, "auto");
  EXPECT_EQ(parse("trainer_config: {packing: true}\n").data.pack, "samples");
  EXPECT_EQ(parse("trainer_config: {packing: false}\n").data.pack, "auto");
  EXPECT_THAT(refusal("data: {pack: wrapped}\n"), HasSubstr("data.pack"));
  EXPECT_THAT(refusal("peft_config: {task_type: SEQ_CLS}\ndata: {pack: samples}\n"),
              HasSubstr("run.yaml:2: data.pack: packs are for causal language models"));
  EXPECT_THAT(refusal("data: {label_column: l, pack: documents}\n"), HasSubstr("data.pack"));
  EXPECT_EQ(refusal("data: {label_column: l, pack: none}\n"), "accepted");
  EXPECT_EQ(refusal("data: {template: alpaca, pack: samples}\n"), "accepted");
  EXPECT_THAT(refusal("data: {template: alpaca, pack: documents}\n"), HasSubstr("use samples"));
}

TEST(Truncation, HasASideOrWindowsOfLabelledTexts) {
  EXPECT_EQ(parse("").tokenizer_config.truncation_side, "right");
  EXPECT_EQ(parse("tokenizer_config: {truncation_side: left}\n").tokenizer_config.truncation_side, "left");
  EXPECT_EQ(parse("trainer_config: {truncation_mode: keep_end}\n").tokenizer_config.truncation_side, "left");
  EXPECT_EQ(parse("trainer_config: {truncation_mode: keep_start}\n").tokenizer_config.truncation_side, "right");
  EXPECT_THAT(refusal("tokenizer_config: {truncation_side: middle}\n"), HasSubstr("expected one of right, left"));
  EXPECT_THAT(parse("tokenizer_config: {truncation_side: left}\ndata: {pack: documents}\n").warnings,
              testing::ElementsAre(HasSubstr("truncation_side: has no effect with data.pack: documents")));
  const std::string windows = "tokenizer_config: {return_overflowing_tokens: true, stride: 8}\n";
  EXPECT_EQ(parse(windows).tokenizer_config.stride, 8);
  EXPECT_THAT(refusal("tokenizer_config: {stride: 8}\n"), HasSubstr("return_overflowing_tokens: true"));
  EXPECT_THAT(refusal(windows + "data: {text_pair_column: b}\n"), HasSubstr("text pairs have no windows"));
  for (const char* causal : {"peft_config: {task_type: CAUSAL_LM}\n", "data: {prompt_column: p, response_column: r}\n",
                             "data: {messages_column: m}\n"}) {
    EXPECT_THAT(refusal(windows + causal), HasSubstr("data.pack: documents")) << causal;
  }
}

TEST(Chats, HaveATemplateOfRolesAndNoOtherColumns) {
  EXPECT_EQ(parse("data: {messages_column: m}\n").data.prompt_template, "chat");
  EXPECT_EQ(parse("data: {template: chat}\n").data.messages_column, "messages");
  EXPECT_EQ(
      parse("data: {messages_column: m, template: \"{?assistant}{assistant}{/assistant}\"}\n").data.messages_column,
      "m");
  EXPECT_THAT(refusal("data: {messages_column: m, template: alpaca}\n"), HasSubstr("data.template: expected \"chat\""));
  EXPECT_THAT(refusal("data: {messages_column: m, prompt_column: p, response_column: r}\n"),
              HasSubstr("remove prompt_column"));
  EXPECT_THAT(refusal("data: {messages_column: m, label_column: l}\n"),
              HasSubstr("data.messages_column: prompts and responses train"));
  EXPECT_THAT(refusal("data: {messages_column: m, pack: documents}\n"), HasSubstr("use samples"));
  EXPECT_EQ(parse(to_yaml(parse("data: {template: chat}\n"))).data.messages_column, "messages");
}

TEST(GlobalBatch, IsAWholeNumberOfMicroBatches) {
  EXPECT_EQ(refusal("runtime: {global_batch_size: 16}\n"), "accepted");
  EXPECT_THAT(refusal("runtime: {global_batch_size: 12}\n"), HasSubstr("12 is not a multiple"));
  EXPECT_THAT(refusal("runtime: {global_batch_size: 16}\ntrainer_config: {gradient_accumulation_steps: 2}\n"),
              HasSubstr("give one of them"));
}

TEST(Columns, DefaultToHuggingFacesNamesWhenATaskAsksForLabels) {
  EXPECT_EQ(parse("peft_config: {task_type: SEQ_CLS}\n").data.label_column, "label");
  EXPECT_EQ(parse("model_config: {problem_type: single_label_classification}\n").data.label_column, "label");
  EXPECT_EQ(parse("model_config: {problem_type: multi_label_classification}\n").data.labels_column, "labels");
  EXPECT_EQ(parse("peft_config: {task_type: SEQ_CLS}\ndata: {labels_column: tags}\n").data.label_column, "");
  EXPECT_EQ(parse("peft_config: {task_type: CAUSAL_LM}\n").data.label_column, "");
  EXPECT_EQ(parse("").data.label_column, "");
}

TEST(Columns, ThatContradictEachOtherAreRefused) {
  EXPECT_THAT(refusal("data: {label_column: a, labels_column: b}\n"), HasSubstr("cannot both be given"));
  EXPECT_THAT(refusal("data: {prompt_column: a}\n"), HasSubstr("must be given together"));
  EXPECT_THAT(refusal("data: {response_column: a}\n"), HasSubstr("must be given together"));
  EXPECT_EQ(refusal("data: {prompt_column: a, response_column: b}\n"), "accepted");
  EXPECT_EQ(refusal("data: {template: alpaca}\n"), "accepted");
  EXPECT_THAT(refusal("data: {template: joined}\n"), HasSubstr("data.template: joined is for data.prompt_column"));
  EXPECT_THAT(refusal("data: {template: newline, messages_column: m}\n"), HasSubstr("is for data.prompt_column"));
  EXPECT_THAT(refusal("data: {template: alpaca, prompt_column: a, response_column: b}\n"), HasSubstr("itself"));
  EXPECT_THAT(refusal("data: {template: alpaca, label_column: c}\n"), HasSubstr("has no labels"));
  EXPECT_THAT(refusal("data: {template: \"{a\"}\n"), HasSubstr("data.template: the brace at byte 1"));
  EXPECT_THAT(refusal("data: {prompt_column: a, response_column: b, label_column: c}\n"), HasSubstr("has no labels"));
  EXPECT_THAT(refusal("data: {prompt_column: a, response_column: b}\npeft_config: {task_type: SEQ_CLS}\n"),
              HasSubstr("has no labels"));
  EXPECT_THAT(refusal("data: {label_column: a}\npeft_config: {task_type: CAUSAL_LM}\n"), HasSubstr("no labels"));
  EXPECT_THAT(refusal("data: {label_column: a}\nmodel_config: {problem_type: multi_label_classification}\n"),
              HasSubstr("labels_column"));
  EXPECT_THAT(refusal("data: {labels_column: a}\nmodel_config: {problem_type: single_label_classification}\n"),
              HasSubstr("label_column"));
}

TEST(Columns, AreCheckedAgainWhereAnAdapterSaysTheTask) {
  const KeyLocation place = [](std::string_view group, std::string_view key) {
    return fmt::format("{}.{}", group, key);
  };
  RunConfig config = parse("data: {label_column: a}\n");
  config.peft_config.emplace().task_type = "CAUSAL_LM";
  try {
    resolve_columns(config, place);
    ADD_FAILURE() << "accepted";
  } catch (const core::Error& error) {
    EXPECT_EQ(error.kind(), core::ErrorKind::kUsage);
    EXPECT_THAT(error.what(), HasSubstr("peft_config.task_type: CAUSAL_LM has no labels"));
  }
  config.peft_config->task_type = "SEQ_CLS";
  config.data.label_column.clear();
  config.model_config.problem_type = "multi_label_classification";
  resolve_columns(config, place);
  EXPECT_EQ(config.data.labels_column, "labels");
}

TEST(Labels, CountsAndNamesMustAgree) {
  EXPECT_THAT(refusal("model_config: {num_labels: 3}\ndata: {label_column: l, label_names: [a, b]}\n"),
              HasSubstr("data.label_names has 2"));
  EXPECT_EQ(refusal("model_config: {num_labels: 2}\ndata: {label_column: l, label_names: [a, b]}\n"), "accepted");
  EXPECT_THAT(refusal("model_config: {num_labels: 1, problem_type: single_label_classification}\n"),
              HasSubstr("regression"));
  EXPECT_EQ(parse("model_config: {num_labels: 1}\ndata: {label_column: l}\n").model_config.problem_type, "regression");
  EXPECT_EQ(refusal("data: {label_names: [a, b]}\n"), "accepted");  // the training file tells the column
  for (const char* model : {"peft_config: {task_type: CAUSAL_LM}\ndata: {label_names: [a, b]}\n",
                            "data: {prompt_column: p, response_column: r, label_names: [a, b]}\n"}) {
    EXPECT_THAT(refusal(model), HasSubstr("data.label_names: a language model has no labels")) << model;
  }
}

TEST(Adapter, TargetsAndSavedModulesAreKnown) {
  EXPECT_THAT(refusal("peft_config: {target_modules: []}\n"), HasSubstr("at least one module name"));
  EXPECT_THAT(refusal("peft_config: {modules_to_save: [wpe]}\n"),
              HasSubstr("expected score, classifier, ln_f, wte, lm_head"));
  for (const std::string init : {"pissa", "olora"}) {
    EXPECT_THAT(refusal("peft_config: {use_dora: true, init_lora_weights: " + init + "}\n"),
                HasSubstr("peft_config.use_dora: not together with init_lora_weights " + init));
  }
  EXPECT_THAT(refusal("peft_config: {lora_bias: true, init_lora_weights: gaussian}\n"),
              HasSubstr("peft_config.lora_bias: not together with init_lora_weights gaussian"));
  EXPECT_THAT(refusal("peft_config: {lora_bias: true, use_dora: true}\n"), HasSubstr("not together with use_dora"));
  EXPECT_THAT(refusal("peft_config: {bias: some}\n"), HasSubstr("lora_only"));
  EXPECT_TRUE(parse("peft_config: {lora_bias: true, init_lora_weights: false, bias: all}\n").peft_config->lora_bias);
  EXPECT_EQ(parse("peft_config: {target_modules: all-linear}\n").peft_config->target_modules,
            (model::ModuleChoice{{"all-linear"}}));
  EXPECT_EQ(parse("peft_config: {target_modules: '.*q_proj'}\n").peft_config->target_modules,
            (model::ModuleChoice{{".*q_proj"}, true}));
}

TEST(Adapter, LimitsAndPatternsAreReadAsPeftWritesThem) {
  const std::string text =
      "peft_config: {exclude_modules: '.*c_fc', layers_to_transform: 1, layers_pattern: h, rank_pattern: {q_proj: 4, "
      "v: 2}, "
      "alpha_pattern: {v_proj: 0.5}}\n";
  const model::LoraOptions lora = *parse(text).peft_config;
  EXPECT_TRUE(lora.exclude_modules.is_expression);
  EXPECT_EQ(lora.layers_to_transform, std::vector<int64_t>{1});
  EXPECT_EQ(lora.rank_pattern, (model::ModulePattern<int64_t>{{"q_proj", 4}, {"v", 2}}));
  EXPECT_EQ(lora.alpha_pattern, (model::ModulePattern<double>{{"v_proj", 0.5}}));
  const RunConfig again = parse(to_yaml(parse(text)));
  EXPECT_EQ(flatten(again), flatten(parse(text)));
  EXPECT_THAT(refusal("peft_config: {layers_to_transform: [1, 1]}\n"), HasSubstr("listed twice"));
  EXPECT_THAT(refusal("peft_config: {layers_pattern: h}\n"), HasSubstr("no effect without layers_to_transform"));
  EXPECT_THAT(refusal("peft_config: {layers_pattern: layers, layers_to_transform: [0]}\n"), HasSubstr("expected h"));
  EXPECT_THAT(refusal("peft_config: {target_modules: '.*', layers_to_transform: [0]}\n"), HasSubstr("needs a list"));
  EXPECT_THAT(refusal("peft_config: {rank_pattern: {q_proj: 0}}\n"),
              HasSubstr("rank_pattern.q_proj: expected an integer"));
  EXPECT_THAT(refusal("peft_config: {alpha_pattern: [q_proj]}\n"), HasSubstr("a map from modules"));
}

TEST(Adapter, TokensAreReadAsPeftWritesThem) {
  const auto tokens = [](const std::string& value) {
    const RunConfig config = parse("peft_config: {trainable_token_indices: " + value + "}\n");
    EXPECT_EQ(flatten(parse(to_yaml(config))), flatten(config));
    return config.peft_config->trainable_token_indices;
  };
  EXPECT_EQ(tokens("[7, 2]"), (std::vector<int64_t>{7, 2}));
  EXPECT_EQ(tokens("{wte: [7, 2]}"), (std::vector<int64_t>{7, 2}));
  EXPECT_EQ(tokens("{transformer.wte: [3]}"), std::vector<int64_t>{3});
  EXPECT_EQ(tokens("null"), std::vector<int64_t>());
  EXPECT_EQ(tokens("{}"), std::vector<int64_t>());
  const auto wrong = [](const std::string& value) {
    return refusal("peft_config: {trainable_token_indices: " + value + "}\n");
  };
  EXPECT_THAT(wrong("[3, 3]"), HasSubstr("3 is listed twice"));
  EXPECT_THAT(wrong("[-1]"), HasSubstr("peft_config.trainable_token_indices: expected an integer"));
  EXPECT_THAT(wrong("all"), HasSubstr("expected a list of token ids, or {wte: [...]}"));
  EXPECT_THAT(wrong("{lm_head: [3]}"), HasSubstr("only rows of wte can be trained"));
  EXPECT_THAT(wrong("{wte: [3], lm_head: [3]}"), HasSubstr("only rows of wte can be trained"));
  EXPECT_THAT(wrong("[3], modules_to_save: [wte]"),
              HasSubstr("peft_config.trainable_token_indices: not together with modules_to_save: [wte]"));
}

TEST(Adapter, InitialisationsAreReadAsPeftWritesThem) {
  for (const std::string name : {"true", "false", "gaussian", "orthogonal", "pissa", "pissa_niter_16", "olora"}) {
    const RunConfig config = parse("peft_config: {init_lora_weights: " + name + "}\n");
    EXPECT_EQ(model::init_name(config.peft_config->init_lora_weights), name);
    EXPECT_EQ(flatten(parse(to_yaml(config))), flatten(config));
  }
  EXPECT_THAT(
      refusal("peft_config: {init_lora_weights: loftq}\n"),
      HasSubstr("run.yaml:1: peft_config.init_lora_weights \"loftq\" is not supported: it corrects a quantised"));
  EXPECT_THAT(refusal("peft_config: {init_lora_weights: pisa}\n"), HasSubstr("expected true, false, gaussian"));
  EXPECT_THAT(refusal("peft_config: {init_lora_weights: 1}\n"), HasSubstr("true, false, or the name"));
  EXPECT_THAT(refusal("peft_config: {init_lora_weights: olora, init_from: some/where}\n"),
              HasSubstr("olora has no effect, since init_from gives the initial values"));
}

}  // namespace
}  // namespace neoloom::launch
