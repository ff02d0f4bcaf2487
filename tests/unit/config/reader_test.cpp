// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/config/support.h"

namespace neoloom::launch {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;
using testing::StartsWith;

// A template as users bring it from Hugging Face scripts.
constexpr const char* kTemplate = R"({
  "model_config": {
    "pretrained_model_name": "EleutherAI/gpt-neo-125m",
    "problem_type": "multi_label_classification",
    "torch_dtype": "torch.float32"
  },
  "quantization_config": {},
  "peft_config": {
    "peft_type": "LORA", "task_type": "SEQ_CLS", "r": 16, "lora_alpha": 16, "lora_dropout": 0.1,
    "inference_mode": false
  },
  "tokenizer_config": {},
  "trainer_config": {
    "num_train_epochs": 1, "auto_find_batch_size": true, "per_device_train_batch_size": 8,
    "gradient_accumulation_steps": 4, "warmup_ratio": 0.03, "weight_decay": 0.01, "bf16": false,
    "optim": "adamw_torch", "report_to": "none", "remove_unused_columns": true, "push_to_hub": false
  },
  "invalid_data_tolerance_percent": 5
})";

TEST(Template, ReadsWhole) {
  const RunConfig config = parse_config(kTemplate, "template.json", {"data.train=rows.jsonl"});
  EXPECT_EQ(config.model_config.pretrained_model_name, "EleutherAI/gpt-neo-125m");
  EXPECT_EQ(config.model_config.problem_type, "multi_label_classification");
  EXPECT_EQ(config.model_config.frozen_dtype, model::Dtype::kFloat32);
  ASSERT_TRUE(config.peft_config.has_value());
  EXPECT_EQ(config.peft_config->task_type, "SEQ_CLS");
  EXPECT_EQ(config.peft_config->r, 16);
  EXPECT_EQ(config.peft_config->lora_alpha, 16.0);
  EXPECT_EQ(config.peft_config->lora_dropout, 0.1);
  EXPECT_THAT(config.peft_config->target_modules.names, ElementsAre("q_proj", "v_proj"));
  EXPECT_EQ(config.trainer_config.num_train_epochs, 1.0);
  EXPECT_TRUE(config.trainer_config.auto_find_batch_size);
  EXPECT_EQ(config.trainer_config.warmup_steps, 0.03);
  EXPECT_EQ(config.trainer_config.gradient_accumulation_steps, 4);
  EXPECT_EQ(config.data.invalid_data_tolerance_percent, 5.0);
  EXPECT_EQ(config.data.train.text(), "rows.jsonl");
  EXPECT_EQ(config.data.labels_column, "labels");
  EXPECT_THAT(config.warnings, ElementsAre(HasSubstr("torch_dtype"), HasSubstr("warmup_ratio")));
}

TEST(Defaults, AreThoseOfTheOptionsWhenNothingIsGiven) {
  for (const char* text : {"", "# nothing\n", "{}", "trainer_config:\n", "model_config: {}\n"}) {
    const RunConfig config = parse(text);
    EXPECT_EQ(flatten(config), flatten(RunConfig{})) << text;
    EXPECT_FALSE(config.peft_config.has_value()) << text;
  }
}

TEST(PeftGroup, EmptyIsLoraAndAbsentOrNullIsFullTraining) {
  EXPECT_TRUE(parse("peft_config: {}\n").peft_config.has_value());
  EXPECT_FALSE(parse("peft_config:\n").peft_config.has_value());
  EXPECT_FALSE(parse("peft_config: {r: 4}\n", {"peft_config=null"}).peft_config.has_value());
  EXPECT_EQ(parse("", {"peft_config.r=4"}).peft_config.value().r, 4);
}

TEST(PeftGroup, OtherMethodsAreRefusedByName) {
  EXPECT_THAT(refusal("peft_config:\n  peft_type: IA3\n"),
              AllOf(StartsWith("run.yaml:2: peft_config.peft_type"), HasSubstr("\"IA3\" is not supported yet")));
}

TEST(UnknownKey, NamesPlaceAndNearestKnownKey) {
  EXPECT_THAT(refusal("trainer_config:\n  learning_rat: 1\n"),
              AllOf(StartsWith("run.yaml:2: unknown key trainer_config.learning_rat"),
                    HasSubstr("did you mean learning_rate?")));
  EXPECT_THAT(refusal("peft_config:\n  lora_alhpa: 1\n"), HasSubstr("did you mean lora_alpha?"));
  EXPECT_THAT(refusal("train_config: {}\n"), HasSubstr("did you mean trainer_config?"));
}

TEST(UnknownKey, NamesTheGroupWhereTheKeyBelongs) {
  EXPECT_THAT(refusal("model_config:\n  learning_rate: 1\n"), HasSubstr("it belongs to trainer_config"));
  EXPECT_THAT(refusal("learning_rate: 1\n"), HasSubstr("the key learning_rate belongs to trainer_config"));
}

TEST(UnknownKey, GivesNoHintWhenNothingIsNear) {
  EXPECT_THAT(refusal("data:\n  zzzzzzzzzzzz: 1\n"), Not(HasSubstr("did you mean")));
}

TEST(WrongType, NamesPlaceKeyExpectedAndFound) {
  EXPECT_THAT(refusal("a: 1\n"), HasSubstr("run.yaml:1: unknown group \"a\""));
  EXPECT_EQ(refusal("trainer_config:\n  learning_rate: fast\n"),
            "run.yaml:2: trainer_config.learning_rate: expected a number of at least 0, found \"fast\" (a string)");
  EXPECT_EQ(refusal("trainer_config:\n\n  max_steps: 1.5\n"),
            "run.yaml:3: trainer_config.max_steps: expected -1 (use num_train_epochs) or an integer of at least 1, "
            "found 1.5 (a number)");
  EXPECT_THAT(refusal("trainer_config: {bf16: yes}\n"), HasSubstr("expected true or false"));
  EXPECT_THAT(refusal("trainer_config: [1]\n"), HasSubstr("expected a map of keys, found a list"));
  EXPECT_THAT(refusal("trainer_config: {output_dir: [a, b]}\n"), HasSubstr("expected a string, found [a, b] (a list)"));
  EXPECT_THAT(refusal("trainer_config: {seed: 99999999999999999999}\n"), HasSubstr("expected an integer"));
  EXPECT_THAT(refusal("- 1\n"), HasSubstr("a configuration is a map of groups"));
  EXPECT_THAT(refusal("trainer_config: {learning_rate:}\n"), HasSubstr("found null"));
}

TEST(RandomNumbersOfTraining, AreOffUnlessAskedFor) {
  EXPECT_EQ(parse("{}\n").trainer_config.neftune_noise_alpha, 0.0);
  EXPECT_EQ(parse("trainer_config: {neftune_noise_alpha: null}\n").trainer_config.neftune_noise_alpha, 0.0);
  EXPECT_EQ(parse("trainer_config: {neftune_noise_alpha: 5}\n").trainer_config.neftune_noise_alpha, 5.0);
  EXPECT_THAT(refusal("trainer_config: {neftune_noise_alpha: -5}\n"), HasSubstr("a number of at least 0"));
  EXPECT_EQ(parse("{}\n").model_config.resid_dropout, std::nullopt);
  EXPECT_EQ(parse("model_config: {resid_dropout: 0.1}\n").model_config.resid_dropout, 0.1);
  EXPECT_THAT(refusal("model_config: {embed_dropout: 1}\n"), HasSubstr("below 1"));
  EXPECT_EQ(parse("model_config: {attention_dropout: 0.1}\n").model_config.attention_dropout, 0.1);
  EXPECT_THAT(refusal("model_config: {attention_dropout: 1}\n"), HasSubstr("below 1"));
}

TEST(TokenBudget, IsACountOfTokens) {
  EXPECT_EQ(parse("{}\n").trainer_config.max_tokens_per_micro_batch, 0);
  EXPECT_EQ(parse("trainer_config: {max_tokens_per_micro_batch: null}\n").trainer_config.max_tokens_per_micro_batch, 0);
  EXPECT_EQ(parse("trainer_config: {max_tokens_per_micro_batch: 4096}\n").trainer_config.max_tokens_per_micro_batch,
            4096);
  EXPECT_THAT(refusal("trainer_config: {max_tokens_per_micro_batch: -1}\n"), HasSubstr("an integer of at least 0"));
}

TEST(WholeNumber, MayBeWrittenWithAPointAndIsShownAsWritten) {
  EXPECT_EQ(parse("trainer_config: {per_device_train_batch_size: 4.0}\n").trainer_config.per_device_train_batch_size,
            4);
  EXPECT_EQ(parse("{\"trainer_config\": {\"max_steps\": 1e2}}").trainer_config.max_steps, 100);
  EXPECT_EQ(parse("peft_config: {r: 8.0}\n").peft_config->r, 8);
  EXPECT_THAT(refusal("trainer_config: {per_device_train_batch_size: 0.0}\n"), HasSubstr("found 0.0 (a number)"));
  EXPECT_THAT(refusal("trainer_config: {seed: 1e300}\n"), HasSubstr("found 1e300 (a number)"));
  EXPECT_THAT(refusal("trainer_config: {learning_rate: -1.50}\n"), HasSubstr("found -1.50"));
}

TEST(UnknownKey, WithABlankThatLooksLikeAnotherIsShownWithEscapes) {
  EXPECT_THAT(refusal("trainer_config:\n  learning\u00a0rate: 1\n"),
              AllOf(StartsWith("run.yaml:2: unknown key trainer_config.\"learning\\"), HasSubstr("a0")));
  EXPECT_THAT(refusal("trainer_config:\n  " + std::string(5000, 'x') + ": 1\n").size(), testing::Lt(400U));
}

TEST(Mistakes, AreToldAllAtOnceWithTheirPlaces) {
  const std::string error = refusal(
      "trainer_config:\n  learning_rat: 1\n  max_steps: many\n  optim: lomo\n"
      "peft_config: {r: 0, use_qalora: true}\nmodel: x\n");
  EXPECT_THAT(error, StartsWith("run.yaml: 6 mistakes:\n  run.yaml:2: unknown key"));
  for (const char* part :
       {"run.yaml:3: trainer_config.max_steps", "run.yaml:4: trainer_config.optim", "run.yaml:5: peft_config.r",
        "run.yaml:5: peft_config.use_qalora", "run.yaml:6: unknown group"}) {
    EXPECT_THAT(error, HasSubstr(part));
  }
  EXPECT_THAT(refusal("trainer_config:\n  max_steps: many\n  learning_rat: 1\n", {"trainer_config.seed=x"}),
              testing::MatchesRegex("run.yaml: 3 mistakes:\n  run.yaml:2: .*\n  run.yaml:3: .*\n  --set .*"))
      << "a line at a time, then what has no line";
  const std::string one = refusal("trainer_config: {max_steps: many}\n");
  EXPECT_THAT(one, StartsWith("run.yaml:1: trainer_config.max_steps"));
  EXPECT_THAT(refusal("{}\n", {"trainer_config.max_steps=x", "trainer_config.seed=x"}), HasSubstr("2 mistakes"));
  std::string many = "trainer_config:\n";
  for (int i = 0; i < 40; ++i) many += "  unknown_" + std::to_string(i) + ": 1\n";
  EXPECT_THAT(refusal(many), AllOf(HasSubstr("40 mistakes"), HasSubstr("and 10 more")));
}

TEST(Range, RefusesWhatNoRunCanUse) {
  for (const char* text :
       {"trainer_config: {learning_rate: -1}", "trainer_config: {per_device_train_batch_size: 0}",
        "trainer_config: {num_train_epochs: 0}", "trainer_config: {warmup_steps: 1.5}",
        "trainer_config: {warmup_ratio: 1.0}", "trainer_config: {adam_beta2: 1.0}", "trainer_config: {max_steps: 0}",
        "peft_config: {r: 0}", "peft_config: {lora_dropout: 1.0}", "invalid_data_tolerance_percent: 101",
        "trainer_config: {logging_steps: 0}", "runtime: {threads_per_rank: -1}"}) {
    std::string yaml = text;
    EXPECT_THAT(refusal(yaml), HasSubstr("expected")) << text;
  }
}

TEST(Choice, KnownToHuggingFaceButNotHereIsSaidSo) {
  EXPECT_THAT(refusal("trainer_config: {optim: lomo}\n"),
              AllOf(HasSubstr("\"lomo\" is not supported yet"), HasSubstr("adamw_torch")));
  EXPECT_THAT(refusal("trainer_config: {lr_scheduler_type: wavy}\n"), HasSubstr("expected one of linear"));
  EXPECT_THAT(refusal("model_config: {problem_type: ranking}\n"), HasSubstr("regression"));
}

TEST(ClassWeights, AreAutoOrAMapAndAreWrittenBack) {
  EXPECT_FALSE(parse("trainer_config: {class_weights: null}\n").trainer_config.class_weights.given());
  EXPECT_TRUE(parse("trainer_config: {class_weights: auto}\n").trainer_config.class_weights.balanced);
  const RunConfig config = parse("trainer_config: {class_weights: {ham: 1, 3: 2.5}}\n");
  EXPECT_THAT(config.trainer_config.class_weights.of_labels,
              ElementsAre(std::pair<std::string, double>("ham", 1.0), std::pair<std::string, double>("3", 2.5)));
  EXPECT_EQ(flatten(parse(to_yaml(config))), flatten(config));
  for (const char* wrong : {"balanced", "{}", "[1, 2]", "{ham: 0}", "{ham: -1}", "{ham: much}"}) {
    EXPECT_THAT(refusal(fmt::format("trainer_config: {{class_weights: {}}}\n", wrong)), HasSubstr("class_weights"))
        << wrong;
  }
}

TEST(MemorySize, IsReadInBytesAndInUnitsAndWrittenBack) {
  const auto bytes = [](const std::string& text) {
    const RunConfig config = parse("runtime: {memory_budget: " + text + "}\n");
    EXPECT_EQ(parse(to_yaml(config)).runtime.memory_budget.bytes, config.runtime.memory_budget.bytes) << text;
    return config.runtime.memory_budget.bytes;
  };
  EXPECT_EQ(bytes("auto"), 0);
  EXPECT_EQ(bytes("2000000"), 2'000'000);
  EXPECT_EQ(bytes("1.5GB"), 1'500'000'000);
  EXPECT_EQ(bytes("12GiB"), int64_t{12} << 30);
  EXPECT_EQ(bytes("\"800 MB\""), 800'000'000);
}

TEST(MemorySize, IsRefusedWithoutAKnownUnitOrBelowAMegabyte) {
  for (const char* value : {"12Gib", "GB", "-4GB", "much", "0", "12", "nan", "[1]", "true", "1e30"}) {
    EXPECT_THAT(refusal(std::string("runtime:\n  memory_budget: ") + value + "\n"),
                AllOf(StartsWith("run.yaml:2: runtime.memory_budget"), HasSubstr("such as 12GiB")))
        << value;
  }
}

TEST(GradientCheckpointing, IsAutoUnlessItIsSaid) {
  const auto chosen = [](const std::string& text) {
    const RunConfig config = parse("trainer_config: {gradient_checkpointing: " + text + "}\n");
    EXPECT_EQ(flatten(parse(to_yaml(config))), flatten(config));
    return config.trainer_config.gradient_checkpointing;
  };
  EXPECT_EQ(chosen("auto"), train::AutoFlag::kAuto);
  EXPECT_EQ(chosen("true"), train::AutoFlag::kTrue);
  EXPECT_EQ(chosen("false"), train::AutoFlag::kFalse);
  EXPECT_THAT(refusal("trainer_config: {gradient_checkpointing: maybe}\n"), HasSubstr("expected true, false or auto"));
}

TEST(OldSpelling, IsTakenWithAWarning) {
  const RunConfig config = parse(
      "model_config: {torch_dtype: bfloat16}\n"
      "trainer_config: {evaluation_strategy: epoch, group_by_length: true, no_cuda: true}\n"
      "data: {validation: dev.jsonl}\n");
  EXPECT_EQ(config.model_config.frozen_dtype, model::Dtype::kBFloat16);
  EXPECT_EQ(config.trainer_config.eval_strategy, train::Interval::kEpoch);
  EXPECT_EQ(config.trainer_config.train_sampling_strategy, "group_by_length");
  EXPECT_EQ(config.runtime.device, "cpu");
  EXPECT_THAT(config.warnings, SizeIs(4));
  EXPECT_THAT(config.warnings.front(), AllOf(StartsWith("run.yaml:1: "), HasSubstr("write model_config.frozen_dtype")));
}

TEST(OldSpelling, ThatAsksForNothingChangesNothing) {
  const RunConfig config =
      parse("trainer_config: {group_by_length: false, no_cuda: false, warmup_ratio: 0.0, warmup_steps: 7}\n");
  EXPECT_EQ(config.trainer_config.train_sampling_strategy, "random");
  EXPECT_EQ(config.runtime.device, "auto");
  EXPECT_EQ(config.trainer_config.warmup_steps, 7.0);
}

TEST(OldSpelling, BesideTheNewOneIsRefused) {
  EXPECT_THAT(refusal("trainer_config:\n  warmup_steps: 5\n  warmup_ratio: 0.1\n"),
              AllOf(StartsWith("run.yaml:3: "), HasSubstr("given twice"), HasSubstr("run.yaml:2")));
  EXPECT_THAT(refusal("invalid_data_tolerance_percent: 1\ndata: {invalid_data_tolerance_percent: 2}\n"),
              HasSubstr("given twice"));
}

TEST(QuantizationGroup, IsAcceptedOnlyEmpty) {
  EXPECT_EQ(refusal("quantization_config: {}\n"), "accepted");
  EXPECT_EQ(refusal("quantization_config:\n"), "accepted");
  EXPECT_THAT(refusal("quantization_config:\n  load_in_4bit: true\n"),
              StartsWith("run.yaml:2: quantization_config.load_in_4bit is not supported yet"));
}

TEST(Override, WinsOverTheFileAndIsCheckedLikeIt) {
  const std::string text = "trainer_config: {learning_rate: 1, evaluation_strategy: epoch}\ndata: {validation: v}\n";
  const RunConfig config = parse(text, {"trainer_config.learning_rate=1e-4", "trainer_config.eval_strategy=no",
                                        "peft_config.target_modules=[c_fc, c_proj]", "data.validation="});
  EXPECT_EQ(config.trainer_config.learning_rate, 1e-4);
  EXPECT_EQ(config.trainer_config.eval_strategy, train::Interval::kNo);
  EXPECT_THAT(config.peft_config.value().target_modules.names, ElementsAre("c_fc", "c_proj"));
  EXPECT_TRUE(config.data.validation.empty());
  EXPECT_EQ(parse("", {"trainer_config.seed=1", "trainer_config.seed=2"}).trainer_config.seed, 2);
  EXPECT_THAT(refusal("", {"trainer_config.learning_rate=x"}),
              StartsWith("--set trainer_config.learning_rate=x: trainer_config.learning_rate: expected"));
  EXPECT_THAT(refusal("", {"trainer_config.lr=1"}), HasSubstr("unknown key trainer_config.lr"));
  EXPECT_THAT(refusal("", {"trainer_config.seed"}), HasSubstr("expected group.key=value"));
  EXPECT_THAT(refusal("", {"=1"}), HasSubstr("expected group.key=value"));
  EXPECT_THAT(refusal("", {"trainer_config=5"}), HasSubstr("expected a map"));
}

TEST(Files, AreAPathAPatternOrAListAndAreWrittenSo) {
  const RunConfig config = parse("data: {train: [a.csv, 'b-*.csv'], validation: dev.csv}\n");
  EXPECT_THAT(config.data.train.names, ElementsAre("a.csv", "b-*.csv"));
  EXPECT_THAT(config.data.validation.front().files.names, ElementsAre("dev.csv"));
  EXPECT_THAT(to_yaml(config), HasSubstr("train: [a.csv, \"b-*.csv\"]\n"));
  EXPECT_THAT(to_yaml(config), HasSubstr("validation: dev.csv\n"));
  EXPECT_THAT(refusal("data: {train: [a.csv, a.csv]}\n"), HasSubstr("listed twice"));
  EXPECT_THAT(refusal("data: {train: {a: b}}\n"), HasSubstr("data.train"));
}

TEST(Files, HaveADelimiterOfOneCharacter) {
  EXPECT_EQ(parse("data: {delimiter: ';'}\n").data.delimiter, ";");
  EXPECT_EQ(parse("data: {delimiter: \"\\t\"}\n").data.delimiter, "\t");
  EXPECT_EQ(parse("", {"data.delimiter=\\t"}).data.delimiter, "\t");
  for (const char* wrong : {"'::'", "'\"'", "\"\\n\"", "\u00a7"}) {
    EXPECT_THAT(refusal(std::string("data: {delimiter: ") + wrong + "}\n"), HasSubstr("one ASCII character")) << wrong;
  }
  EXPECT_THAT(refusal("data: {encoding: utf-16}\n"), HasSubstr("utf-8-replace"));
}

TEST(Override, KeepsPathsAndWordsAsTheyStand) {
  EXPECT_EQ(parse("", {"data.train=/tmp/a b/x=y.jsonl"}).data.train.text(), "/tmp/a b/x=y.jsonl");
  EXPECT_EQ(parse("", {"data.labels_separator=\"\\t\""}).data.labels_separator, "\t");
}

TEST(Names, MayLookLikeNumbers) {
  const RunConfig config =
      parse("data: {header: false, text_column: 1, label_column: 0, label_names: [0, 1, \"\xF0\x9F\x98\x80\"]}\n");
  EXPECT_EQ(config.data.text_column, "1");
  EXPECT_EQ(config.data.label_column, "0");
  EXPECT_THAT(config.data.label_names, ElementsAre("0", "1", "\xF0\x9F\x98\x80"));
  EXPECT_THAT(refusal("data: {label_column: l, label_names: [a, b, a]}\n"), HasSubstr("\"a\" is listed twice"));
}

TEST(LabelNames, MayBeGivenAsInConfigJson) {
  for (const char* text :
       {"model_config: {id2label: {1: spam, 0: ham}}\n", "model_config: {label2id: {spam: 1, ham: 0}}\n",
        "{\"model_config\": {\"id2label\": {\"0\": \"ham\", \"1\": \"spam\"},\n"
        "\"label2id\": {\"ham\": 0, \"spam\": 1}}, \"data\": {\"label_names\": [\"ham\", \"spam\"]}}"}) {
    EXPECT_THAT(parse(text).data.label_names, ElementsAre("ham", "spam")) << text;
  }
  EXPECT_THAT(parse("model_config: {id2label: {0: 7, 1: no}}\n").data.label_names, ElementsAre("7", "no"));
  EXPECT_THAT(parse("model_config: {id2label: null, label2id: null}\n").data.label_names, IsEmpty());
  EXPECT_THAT(parse("model_config: {id2label: {0: a, 1: b}}\n", {"data.label_names=[b, a]"}).data.label_names,
              ElementsAre("b", "a"));
}

TEST(LabelNames, ThatDisagreeOrLeaveOutAnIdAreRefusedOnce) {
  EXPECT_EQ(
      refusal("model_config:\n  id2label: {0: ham, 1: spam}\n  label2id: {ham: 1, spam: 0}\n"),
      "run.yaml:3: data.label_names is given twice: here as model_config.label2id, [spam, ham], and at run.yaml:2 "
      "as model_config.id2label, [ham, spam]");
  EXPECT_EQ(refusal("model_config: {id2label: {0: ham, 1: spam}}\ndata: {label_names: [spam, ham]}\n"),
            "run.yaml:2: data.label_names is given twice: here as data.label_names, [spam, ham], and at run.yaml:1 as "
            "model_config.id2label, [ham, spam]");
  EXPECT_EQ(
      refusal("model_config: {id2label: {0: ham, 2: spam}}\n"),
      "run.yaml:1: model_config.id2label.2: spam: expected a name for each of the ids 0 to 1, such as {0: ham, 1: "
      "spam}");
  for (const char* wrong : {"label2id: {ham: 0, spam: 0}", "label2id: {ham: 0, spam: b}", "id2label: {0: null}",
                            "label2id: {ham: -1}", "id2label: {a: 0}", "label2id: {ham: 0.5}"}) {
    EXPECT_THAT(refusal(fmt::format("model_config: {{{}}}\n", wrong)), HasSubstr("expected a name for each of the ids"))
        << wrong;
  }
  for (const char* wrong : {"id2label: [ham, spam]", "label2id: 2", "id2label: {}"}) {
    EXPECT_THAT(refusal(fmt::format("model_config: {{{}}}\n", wrong)), HasSubstr("expected a map such as {")) << wrong;
  }
  EXPECT_THAT(refusal("model_config: {id2label: {0: [a]}}\n"), HasSubstr("expected a name"));
  EXPECT_THAT(refusal("peft_config: {task_type: CAUSAL_LM}\nmodel_config: {id2label: {0: a, 1: b}}\n"),
              HasSubstr("run.yaml:2: model_config.id2label: a language model has no labels"));
}

TEST(Resolved, ReadsBackToTheSameConfiguration) {
  const std::string text =
      "model_config: {pretrained_model_name: 'a: b # c', num_labels: 3, frozen_dtype: bf16}\n"
      "peft_config: {r: 3, lora_alpha: 0.1, task_type: SEQ_CLS, modules_to_save: [score], use_rslora: true,\n"
      "  use_dora: true, bias: lora_only}\n"
      "tokenizer_config: {model_max_length: 128}\n"
      "trainer_config: {learning_rate: 1.0e-7, adam_epsilon: 1.0e-8, eval_strategy: epoch, save_strategy: epoch,\n"
      "  load_best_model_at_end: true, data_seed: 3, greater_is_better: false, bf16: true, save_total_limit: null}\n"
      "data: {train: \"tab\\there\", validation: 'no', label_names: ['yes', 'no', \"\\u0007 \\\"q\\\"\"], "
      "label_column: 'on'}\n"
      "runtime: {threads_per_rank: 2, cache_dir: '~'}\n";
  const RunConfig config = parse(text);
  EXPECT_EQ(config.trainer_config.save_total_limit, 0);
  EXPECT_EQ(config.runtime.compute_dtype, "bfloat16");
  const RunConfig again = parse_config(to_yaml(config), "config.yaml", {});
  EXPECT_EQ(flatten(again), flatten(config));
  EXPECT_EQ(to_yaml(again), to_yaml(config));
  EXPECT_EQ(again.trainer_config.learning_rate, config.trainer_config.learning_rate);
  EXPECT_EQ(again.data.label_names, config.data.label_names);
  EXPECT_THAT(again.warnings, IsEmpty());
}

TEST(Resolved, ValidationSetsKeepTheirNamesAndOrder) {
  const RunConfig config = parse("data: {validation: {hard: h.csv, dev-1: [b.csv, 'a,b.csv']}}\n");
  const RunConfig again = parse_config(to_yaml(config), "config.yaml", {});
  ASSERT_EQ(again.data.validation.size(), 2U);
  EXPECT_EQ(again.data.validation[0].name, "hard");
  EXPECT_EQ(again.data.validation[1].name, "dev-1");
  EXPECT_THAT(again.data.validation[1].files.names, testing::ElementsAre("b.csv", "a,b.csv"));
  EXPECT_EQ(to_yaml(again), to_yaml(config));
}

TEST(Policies, SayWhatASkippedStepMeans) {
  const auto limit = [](const std::string& text) {
    return parse("trainer_config: {non_finite_policy: " + text + "}\n").trainer_config.non_finite_policy.most_skipped;
  };
  EXPECT_EQ(limit("abort"), 1);
  EXPECT_EQ(limit("skip 7"), 7);
  EXPECT_EQ(parse("runtime: {max_skipped_steps: 7}\n").trainer_config.non_finite_policy.most_skipped, 7) << "old";
  for (const char* text : {"skip", "skip 0", "skip 1.5", "skip 3 times", "5", "continue"}) {
    EXPECT_THAT(refusal(fmt::format("trainer_config: {{non_finite_policy: {}}}\n", text)),
                HasSubstr("expected abort, or skip N"))
        << text;
  }
  const auto spikes = [](const std::string& text) {
    return refusal("trainer_config: {loss_spike_policy: " + text + "}\n");
  };
  EXPECT_EQ(spikes("{z_score: 6}"), "accepted");
  EXPECT_EQ(spikes("null"), "accepted");
  EXPECT_THAT(spikes("{window: 10}"), HasSubstr("expected z_score"));
  EXPECT_THAT(spikes("{z_score: 6, windows: 10}"), HasSubstr("unknown key trainer_config.loss_spike_policy.windows"));
  EXPECT_THAT(spikes("{z_score: 6, window: 1}"), HasSubstr("at least 2"));
}

TEST(Resolved, FullTrainingStaysFullTraining) {
  const RunConfig config = parse("model_config: {train_all: true}\n");
  EXPECT_FALSE(parse_config(to_yaml(config), "config.yaml", {}).peft_config.has_value());
}

TEST(Flatten, NamesTheKeysThatDiffer) {
  const auto a = flatten(parse("trainer_config: {seed: 1}\n"));
  const auto b = flatten(parse("trainer_config: {seed: 2}\n"));
  EXPECT_EQ(a.at("trainer_config.seed"), "1");
  EXPECT_EQ(b.at("trainer_config.seed"), "2");
  EXPECT_EQ(a.size(), b.size());
}

}  // namespace
}  // namespace neoloom::launch
