// SPDX-License-Identifier: Apache-2.0
#include <fmt/ranges.h>

#include <algorithm>

#include "data/chat_template.h"
#include "data/prompt_template.h"
#include "launch/config/schema.h"
#include "model/lora/target_modules.h"
#include "runtime/core/error.h"
#include "runtime/core/text.h"
#include "runtime/optim/metric_schedule.h"
#include "runtime/optim/optimizer_options.h"

namespace neoloom::launch {

using core::ErrorKind;
using train::Interval;

namespace {

constexpr std::string_view kMultiLabel = "multi_label_classification";
constexpr std::string_view kSingleLabel = "single_label_classification";
constexpr std::string_view kRegression = "regression";

bool has_label_column(const data::Options& data) { return !data.label_column.empty() || !data.labels_column.empty(); }

/// Turns bf16 and fp16 into the compute dtype, which is what the runtime reads.
void resolve_compute_dtype(RunConfig& config, const KeyLocation& place) {
  const train::Options& trainer = config.trainer_config;
  if (!trainer.bf16 && !trainer.fp16) return;
  core::require(!(trainer.bf16 && trainer.fp16), ErrorKind::kUsage, "{}: bf16 and fp16 cannot both be true",
                place("trainer_config", "fp16"));
  const std::string wanted = trainer.bf16 ? "bfloat16" : "float16";
  std::string& chosen = config.runtime.compute_dtype;
  core::require(chosen == "auto" || chosen == wanted, ErrorKind::kUsage,
                "{}: {} contradicts trainer_config.{}: true; give one of them", place("runtime", "compute_dtype"),
                chosen, trainer.bf16 ? "bf16" : "fp16");
  chosen = wanted;
}

void check_labels(const RunConfig& config, const KeyLocation& place) {
  const data::Options& data = config.data;
  const auto& num_labels = config.model_config.num_labels;
  const bool language_model =
      (config.peft_config && config.peft_config->task_type == "CAUSAL_LM") || data::has_responses(data);
  core::require(!language_model || data.label_names.empty(), ErrorKind::kUsage,
                "{}: a language model has no labels; remove them, or name data.label_column and train with SEQ_CLS",
                place("data", "label_names"));
  core::require(!num_labels || data.label_names.empty() || *num_labels == static_cast<int64_t>(data.label_names.size()),
                ErrorKind::kUsage, "{}: {} labels, but data.label_names has {}", place("model_config", "num_labels"),
                num_labels.value_or(0), data.label_names.size());
  core::require(num_labels != 1 || config.model_config.problem_type != kSingleLabel, ErrorKind::kUsage,
                "{}: one class leaves nothing to tell apart; expected at least 2, or problem_type: regression",
                place("model_config", "num_labels"));
  core::require(data.labels_column.empty() || !data.labels_separator.empty(), ErrorKind::kUsage,
                "{}: expected at least one character between labels", place("data", "labels_separator"));
}

/// Takes one output without a problem_type as a regression, as transformers does.
void resolve_regression(RunConfig& config) {
  const bool undecided = config.model_config.problem_type.empty() && config.data.labels_column.empty();
  if (undecided && config.model_config.num_labels == 1) config.model_config.problem_type = kRegression;
}

/// Returns the key for which evaluations are compared; "": none does.
std::string_view comparing_key(const train::Options& trainer) {
  if (trainer.load_best_model_at_end) return "load_best_model_at_end";
  if (trainer.save_strategy == Interval::kBest) return "save_strategy";
  if (trainer.early_stopping_patience) return "early_stopping_patience";
  return optim::follows_metric(trainer.lr_scheduler_type) ? "lr_scheduler_type" : "";
}

void check_early_stopping(RunConfig& config, const KeyLocation& place) {
  const train::Options& trainer = config.trainer_config;
  core::require(trainer.early_stopping_patience || trainer.early_stopping_threshold == 0.0, ErrorKind::kUsage,
                "{}: has no effect without early_stopping_patience; give both",
                place("trainer_config", "early_stopping_threshold"));
  if (!trainer.early_stopping_patience || trainer.load_best_model_at_end) return;
  config.warnings.push_back(
      fmt::format("{}: without load_best_model_at_end: true, the result is the last state, which "
                  "early stopping found to be no improvement",
                  place("trainer_config", "early_stopping_patience")));
}

void check_report_to(RunConfig& config, const KeyLocation& place) {
  const train::Options& trainer = config.trainer_config;
  const auto& names = trainer.report_to;
  if (trainer.logging_dir.empty() || std::find(names.begin(), names.end(), "tensorboard") != names.end()) return;
  config.warnings.push_back(
      fmt::format("{}: has no effect without tensorboard in report_to", place("trainer_config", "logging_dir")));
}

void check_rhythm(const RunConfig& config, const KeyLocation& place) {
  const train::Options& trainer = config.trainer_config;
  const bool splits = config.data.validation_split > 0;
  core::require(!splits || config.data.validation.empty(), ErrorKind::kUsage,
                "{}: data.validation names files for validation, and this takes them from data.train; give one of them",
                place("data", "validation_split"));
  const bool evaluates = trainer.eval_strategy != Interval::kNo;
  core::require((!evaluates && !trainer.eval_on_start) || splits || !config.data.validation.empty(), ErrorKind::kUsage,
                "{}: evaluation while training needs data.validation or data.validation_split",
                place("trainer_config", evaluates ? "eval_strategy" : "eval_on_start"));
  core::require(!trainer.calibrate || splits || config.data.validation.size() == 1, ErrorKind::kUsage,
                "{}: expected one validation set to fit on, data.validation or data.validation_split, found {}",
                place("trainer_config", "calibrate"),
                config.data.validation.empty() ? "none" : fmt::format("{}", config.data.validation.size()));
  core::require(evaluates || trainer.eval_delay == 0, ErrorKind::kUsage, "{}: has no effect with eval_strategy: no",
                place("trainer_config", "eval_delay"));
  core::require(evaluates || !trainer.compares_evaluations(), ErrorKind::kUsage,
                "{}: needs eval_strategy steps or epoch, and data.validation or data.validation_split",
                place("trainer_config", comparing_key(trainer)));
}

void check_sizes(const RunConfig& config, const KeyLocation& place) {
  const train::Options& trainer = config.trainer_config;
  const int64_t global = config.runtime.global_batch_size;
  if (global == 0) return;
  core::require(trainer.gradient_accumulation_steps == 1, ErrorKind::kUsage,
                "{}: {} fixes the size of a step, and so does trainer_config.gradient_accumulation_steps; "
                "give one of them",
                place("runtime", "global_batch_size"), global);
  core::require(global % trainer.per_device_train_batch_size == 0, ErrorKind::kUsage,
                "{}: {} is not a multiple of trainer_config.per_device_train_batch_size ({})",
                place("runtime", "global_batch_size"), global, trainer.per_device_train_batch_size);
}

void check_loss(const train::Options& trainer, const KeyLocation& place) {
  core::require(!trainer.class_weights.given() || trainer.label_smoothing_factor == 0.0, ErrorKind::kUsage,
                "{}: class_weights and label_smoothing_factor cannot both be given",
                place("trainer_config", "class_weights"));
}

/// Gives the optimizer its canonical name, which is what a resume compares, and finds wrong arguments.
void resolve_optimizer(RunConfig& config, const KeyLocation& place) {
  train::Options& trainer = config.trainer_config;
  if (trainer.optim == "adamw_hf") {
    config.warnings.push_back(fmt::format("{}: adamw_hf is computed as adamw_torch", place("trainer_config", "optim")));
    trainer.optim = "adamw_torch";
  }
  try {
    optim::make_optimizer_options(trainer.optim, trainer.optim_args);
  } catch (const core::Error& error) {
    core::fail(ErrorKind::kUsage, "{}: {}", place("trainer_config", "optim_args"), error.what());
  }
  trainer.optim = optim::canonical_optimizer(trainer.optim);
  core::require(!trainer.loraplus_lr_ratio || config.peft_config.has_value(), ErrorKind::kUsage,
                "{}: full-parameter training has no lora_A and lora_B; remove it, or add peft_config",
                place("trainer_config", "loraplus_lr_ratio"));
}

/// Finds wrong arguments before any data is read. The numbers of steps, known later, are no part of them.
void check_schedule(RunConfig& config, const KeyLocation& place) {
  const train::Options& trainer = config.trainer_config;
  const bool follows_metric = optim::follows_metric(trainer.lr_scheduler_type);
  const optim::ScheduleSettings settings{.name = trainer.lr_scheduler_type,
                                         .arguments = trainer.lr_scheduler_kwargs,
                                         .learning_rate = trainer.learning_rate,
                                         .total_steps = 1};
  try {
    if (follows_metric) {
      optim::make_metric_schedule(settings, /*greater_is_better=*/false);
    } else {
      optim::make_schedule(settings);
    }
  } catch (const core::Error& error) {
    core::fail(ErrorKind::kUsage, "{}: {}", place("trainer_config", "lr_scheduler_type"), error.what());
  }
  if (follows_metric && trainer.warmup_steps > 0) {
    config.warnings.push_back(fmt::format("{}: {} has no effect: lr_scheduler_type {} has no warm-up",
                                          place("trainer_config", "warmup_steps"), trainer.warmup_steps,
                                          settings.name));
  }
}

/// A new model (shape, no name) has random weights, all of which are trained.
void check_new_model(const RunConfig& config, const KeyLocation& place) {
  const model::Options& model = config.model_config;
  if (static_cast<const model::NewModelOptions&>(model) == model::NewModelOptions{}) return;
  core::require(
      model.pretrained_model_name.empty(), ErrorKind::kUsage,
      "{}: {} brings the shape of its own (config.json), and model_config gives one, too (hidden_size and the "
      "like); leave out the name to train a new model of that shape, or leave out the shape",
      place("model_config", "pretrained_model_name"), core::quoted(model.pretrained_model_name));
  core::require(!config.tokenizer_config.pretrained_tokenizer_name.empty(), ErrorKind::kUsage,
                "{}: a new model needs it; expected the folder or the hub id of a tokenizer, such as "
                "EleutherAI/gpt-neo-125m",
                place("tokenizer_config", "pretrained_tokenizer_name"));
  core::require(!config.peft_config, ErrorKind::kUsage,
                "{}: a new model has random weights, which an adapter cannot mend; leave out the group, and start LoRA "
                "from the result of this run (model_config.pretrained_model_name: {}/model)",
                place("peft_config", "r"), config.trainer_config.output_dir);
}

void check_adapter_kind(const model::LoraOptions& lora, const KeyLocation& place) {
  core::require(!lora.use_dora || !lora.init_lora_weights.splits_weights(), ErrorKind::kUsage,
                "{}: not together with init_lora_weights {}, whose adapter is stored as a plain LoRA for the unchanged "
                "base, which DoRA is not; remove one of them",
                place("peft_config", "use_dora"), model::init_name(lora.init_lora_weights));
  using Kind = model::AdapterInit::Kind;
  const Kind kind = lora.init_lora_weights.kind;
  core::require(!lora.lora_bias || kind == Kind::kTrue || kind == Kind::kFalse, ErrorKind::kUsage,
                "{}: not together with init_lora_weights {}; PEFT has it with true and false only",
                place("peft_config", "lora_bias"), model::init_name(lora.init_lora_weights));
  core::require(!lora.lora_bias || !lora.use_dora, ErrorKind::kUsage,
                "{}: not together with use_dora, in PEFT neither; remove one of them",
                place("peft_config", "lora_bias"));
}

void check_peft(const RunConfig& config, const KeyLocation& place) {
  if (!config.peft_config) return;
  check_adapter_kind(*config.peft_config, place);
  core::require(!config.peft_config->target_modules.empty(), ErrorKind::kUsage,
                "{}: expected at least one module name (default: q_proj, v_proj), or all-linear",
                place("peft_config", "target_modules"));
  const model::AdapterInit& init = config.peft_config->init_lora_weights;
  core::require(config.peft_config->init_from.empty() || init == model::AdapterInit{}, ErrorKind::kUsage,
                "{}: {} has no effect, since init_from gives the initial values; remove one of them",
                place("peft_config", "init_lora_weights"), model::init_name(init));
  const bool limited = !config.peft_config->layers_to_transform.empty();
  core::require(!limited || !config.peft_config->target_modules.is_expression, ErrorKind::kUsage,
                "{}: it needs a list in target_modules; an expression can name the blocks itself, e.g. "
                "\".*\\.h\\.[0-3]\\..*q_proj\"",
                place("peft_config", "layers_to_transform"));
  for (const std::string& name : config.peft_config->layers_pattern) {
    core::require(limited, ErrorKind::kUsage, "{}: it has no effect without layers_to_transform; expected both",
                  place("peft_config", "layers_pattern"));
    core::require(name == "h", ErrorKind::kUsage, "{}: {} is no list of blocks of GPT-Neo; expected h",
                  place("peft_config", "layers_pattern"), core::quoted(name));
  }
  for (const std::string& module : config.peft_config->modules_to_save) {
    core::require(model::can_train_whole(module), ErrorKind::kUsage,
                  "{}: \"{}\" cannot be trained whole; expected score, classifier, {}",
                  place("peft_config", "modules_to_save"), module, fmt::join(model::kWholeModules, ", "));
  }
}

}  // namespace

void name_label_column(RunConfig& config) {
  if (has_label_column(config.data)) return;
  const std::string& problem = config.model_config.problem_type;
  const bool multi = problem == kMultiLabel || (problem == kRegression && config.model_config.num_labels > 1);
  (multi ? config.data.labels_column : config.data.label_column) = multi ? "labels" : "label";
}

/// Names the key that says that rows hold prompts and responses, or chats.
std::string_view response_key(const data::Options& data) {
  if (!data.messages_column.empty()) return "messages_column";
  return data.prompt_template.empty() ? "prompt_column" : "template";
}

void check_template(data::Options& data, const KeyLocation& place) {
  if (data.prompt_template == "chat" && data.messages_column.empty()) data.messages_column = "messages";
  const bool chats = !data.messages_column.empty();
  if (chats && data.prompt_template.empty()) data.prompt_template = "chat";
  if (data.prompt_template.empty()) return;
  core::require(data.prompt_column.empty() && data.response_column.empty(), ErrorKind::kUsage,
                "{}: {}; remove prompt_column and response_column", place("data", response_key(data)),
                chats ? "a chat brings prompts and answers itself" : "a template names its columns itself");
  try {
    if (chats) {
      data::ChatTemplate parsed(data.prompt_template);
    } else {
      data::PromptTemplate parsed(data.prompt_template);
    }
  } catch (const core::Error& error) {
    core::fail(ErrorKind::kUsage, "{}: {}", place("data", "template"), error.what());
  }
}

void check_packs(const RunConfig& config, const KeyLocation& place) {
  const data::Options& data = config.data;
  const bool packs = data.pack == "documents" || data.pack == "samples";
  const bool classifies = has_label_column(data) || !config.model_config.problem_type.empty() ||
                          (config.peft_config && config.peft_config->task_type == "SEQ_CLS");
  core::require(!packs || !classifies, ErrorKind::kUsage,
                "{}: packs are for causal language models; a classification needs none, since nothing is padded: "
                "remove it",
                place("data", "pack"));
  core::require(data.pack != "documents" || !data::has_responses(data), ErrorKind::kUsage,
                "{}: documents would cut prompts from their responses; use samples", place("data", "pack"));
}

void resolve_columns(RunConfig& config, const KeyLocation& place) {
  resolve_regression(config);
  data::Options& data = config.data;
  const std::string task = config.peft_config ? config.peft_config->task_type : "";
  const std::string& problem = config.model_config.problem_type;
  const bool labelled = has_label_column(data);

  core::require(data.label_column.empty() || data.labels_column.empty(), ErrorKind::kUsage,
                "{}: label_column (one label a row) and labels_column (several) cannot both be given",
                place("data", "labels_column"));
  core::require(data.prompt_column.empty() == data.response_column.empty(), ErrorKind::kUsage,
                "{}: prompt_column and response_column must be given together",
                place("data", data.prompt_column.empty() ? "response_column" : "prompt_column"));
  check_template(data, place);
  core::require(!data::has_responses(data) || (!labelled && task != "SEQ_CLS" && problem.empty()), ErrorKind::kUsage,
                "{}: prompts and responses train a causal language model, which has no labels",
                place("data", response_key(data)));
  core::require(task != "CAUSAL_LM" || (!labelled && problem.empty()), ErrorKind::kUsage,
                "{}: CAUSAL_LM has no labels; remove label columns and problem_type, or use SEQ_CLS",
                place("peft_config", "task_type"));
  core::require(data.text_pair_column.empty() || (task != "CAUSAL_LM" && data.prompt_column.empty()), ErrorKind::kUsage,
                "{}: a causal language model has no text pairs; remove the key, or use SEQ_CLS",
                place("data", "text_pair_column"));
  if (task == "SEQ_CLS" || !problem.empty()) name_label_column(config);
  core::require(data.labels_column.empty() || problem != kSingleLabel, ErrorKind::kUsage,
                "{}: single-label classification takes data.label_column, not labels_column",
                place("model_config", "problem_type"));
  core::require(data.label_column.empty() || problem != kMultiLabel, ErrorKind::kUsage,
                "{}: multi-label classification takes data.labels_column, not label_column",
                place("model_config", "problem_type"));
}

void check_truncation(RunConfig& config, const KeyLocation& place) {
  const data::TokenizerOptions& tokenizer = config.tokenizer_config;
  core::require(tokenizer.stride == 0 || tokenizer.return_overflowing_tokens, ErrorKind::kUsage,
                "{}: has no effect without return_overflowing_tokens: true; give both, or remove it",
                place("tokenizer_config", "stride"));
  if (tokenizer.truncation_side == "left" && config.data.pack == "documents") {
    config.warnings.push_back(fmt::format("{}: has no effect with data.pack: documents, which cuts nothing off",
                                          place("tokenizer_config", "truncation_side")));
  }
  if (!tokenizer.return_overflowing_tokens) return;
  const std::string where = place("tokenizer_config", "return_overflowing_tokens");
  const bool causal = (config.peft_config && config.peft_config->task_type == "CAUSAL_LM") ||
                      data::has_responses(config.data) || config.data.pack == "documents";
  core::require(!causal, ErrorKind::kUsage,
                "{}: a language model has no windows; data.pack: documents cuts long texts into several samples",
                where);
  core::require(config.data.text_pair_column.empty(), ErrorKind::kUsage,
                "{}: text pairs have no windows; remove it, or data.text_pair_column", where);
}

void resolve_and_check(RunConfig& config, const KeyLocation& place) {
  resolve_compute_dtype(config, place);
  resolve_columns(config, place);
  check_packs(config, place);
  check_truncation(config, place);
  check_labels(config, place);
  check_rhythm(config, place);
  check_report_to(config, place);
  check_early_stopping(config, place);
  check_sizes(config, place);
  check_loss(config.trainer_config, place);
  resolve_optimizer(config, place);
  check_schedule(config, place);
  check_new_model(config, place);
  check_peft(config, place);
}

}  // namespace neoloom::launch
