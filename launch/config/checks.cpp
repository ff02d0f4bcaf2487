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

using train::Interval;

namespace {

constexpr std::string_view kMultiLabel = "multi_label_classification";
constexpr std::string_view kSingleLabel = "single_label_classification";
constexpr std::string_view kRegression = "regression";

bool has_label_column(const data::Options& data) { return !data.label_column.empty() || !data.labels_column.empty(); }

/// Turns bf16 and fp16 into the compute dtype, which is what the runtime reads.
void resolve_compute_dtype(RunConfig& config, Mistakes& found, const KeyLocation& place) {
  const train::Options& trainer = config.trainer_config;
  if (!trainer.bf16 && !trainer.fp16) return;
  if (!found.require(!(trainer.bf16 && trainer.fp16), "{}: bf16 and fp16 cannot both be true",
                     place("trainer_config", "fp16")))
    return;
  const std::string wanted = trainer.bf16 ? "bfloat16" : "float16";
  std::string& chosen = config.runtime.compute_dtype;
  found.require(chosen == "auto" || chosen == wanted, "{}: {} contradicts trainer_config.{}: true; give one of them",
                place("runtime", "compute_dtype"), chosen, trainer.bf16 ? "bf16" : "fp16");
  chosen = wanted;
}

void check_labels(const RunConfig& config, bool task_known, Mistakes& found, const KeyLocation& place) {
  const data::Options& data = config.data;
  const auto& num_labels = config.model_config.num_labels;
  const bool language_model =
      (config.peft_config && config.peft_config->task_type == "CAUSAL_LM") || data::has_responses(data);
  found.require(!language_model || !task_known || data.label_names.empty(),
                "{}: a language model has no labels; remove them, or name data.label_column and train with SEQ_CLS",
                place("data", "label_names"));
  found.require(!num_labels || data.label_names.empty() || *num_labels == static_cast<int64_t>(data.label_names.size()),
                "{}: {} labels, but data.label_names has {}", place("model_config", "num_labels"),
                num_labels.value_or(0), data.label_names.size());
  found.require(num_labels != 1 || config.model_config.problem_type != kSingleLabel,
                "{}: one class leaves nothing to tell apart; expected at least 2, or problem_type: regression",
                place("model_config", "num_labels"));
  found.require(data.labels_column.empty() || !data.labels_separator.empty(),
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

void check_early_stopping(RunConfig& config, Mistakes& found, const KeyLocation& place) {
  const train::Options& trainer = config.trainer_config;
  found.require(trainer.early_stopping_patience || trainer.early_stopping_threshold == 0.0,
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

void check_rhythm(const RunConfig& config, Mistakes& found, const KeyLocation& place) {
  const train::Options& trainer = config.trainer_config;
  const bool splits = config.data.validation_split > 0;
  found.require(!splits || config.data.validation.empty(),
                "{}: data.validation names files for validation, and this takes them from data.train; give one of them",
                place("data", "validation_split"));
  const bool evaluates = trainer.eval_strategy != Interval::kNo;
  found.require((!evaluates && !trainer.eval_on_start) || splits || !config.data.validation.empty(),
                "{}: evaluation while training needs data.validation or data.validation_split",
                place("trainer_config", evaluates ? "eval_strategy" : "eval_on_start"));
  found.require(!trainer.calibrate || splits || config.data.validation.size() == 1,
                "{}: expected one validation set to fit on, data.validation or data.validation_split, found {}",
                place("trainer_config", "calibrate"),
                config.data.validation.empty() ? "none" : fmt::format("{}", config.data.validation.size()));
  found.require(evaluates || trainer.eval_delay == 0, "{}: has no effect with eval_strategy: no",
                place("trainer_config", "eval_delay"));
  found.require(evaluates || !trainer.compares_evaluations(),
                "{}: needs eval_strategy steps or epoch, and data.validation or data.validation_split",
                place("trainer_config", comparing_key(trainer)));
}

void check_sizes(const RunConfig& config, Mistakes& found, const KeyLocation& place) {
  const train::Options& trainer = config.trainer_config;
  const int64_t global = config.runtime.global_batch_size;
  if (global == 0) return;
  found.require(trainer.gradient_accumulation_steps == 1,
                "{}: {} fixes the size of a step, and so does trainer_config.gradient_accumulation_steps; "
                "give one of them",
                place("runtime", "global_batch_size"), global);
  found.require(global % trainer.per_device_train_batch_size == 0,
                "{}: {} is not a multiple of trainer_config.per_device_train_batch_size ({})",
                place("runtime", "global_batch_size"), global, trainer.per_device_train_batch_size);
}

void check_loss(const train::Options& trainer, Mistakes& found, const KeyLocation& place) {
  found.require(!trainer.class_weights.given() || trainer.label_smoothing_factor == 0.0,
                "{}: class_weights and label_smoothing_factor cannot both be given",
                place("trainer_config", "class_weights"));
}

/// Gives the optimizer its canonical name, which is what a resume compares, and finds wrong arguments.
void resolve_optimizer(RunConfig& config, Mistakes& found, const KeyLocation& place) {
  train::Options& trainer = config.trainer_config;
  if (trainer.optim == "adamw_hf") {
    config.warnings.push_back(fmt::format("{}: adamw_hf is computed as adamw_torch", place("trainer_config", "optim")));
    trainer.optim = "adamw_torch";
  }
  try {
    optim::make_optimizer_options(trainer.optim, trainer.optim_args);
  } catch (const core::Error& error) {
    found.require(false, "{}: {}", place("trainer_config", "optim_args"), error.what());
  }
  trainer.optim = optim::canonical_optimizer(trainer.optim);
  found.require(!trainer.loraplus_lr_ratio || config.peft_config.has_value(),
                "{}: full-parameter training has no lora_A and lora_B; remove it, or add peft_config",
                place("trainer_config", "loraplus_lr_ratio"));
}

/// Finds wrong arguments before any data is read. The numbers of steps, known later, are no part of them.
void check_schedule(RunConfig& config, Mistakes& found, const KeyLocation& place) {
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
    found.require(false, "{}: {}", place("trainer_config", "lr_scheduler_type"), error.what());
  }
  if (follows_metric && trainer.warmup_steps > 0) {
    config.warnings.push_back(fmt::format("{}: {} has no effect: lr_scheduler_type {} has no warm-up",
                                          place("trainer_config", "warmup_steps"), trainer.warmup_steps,
                                          settings.name));
  }
}

/// A new model (shape, no name) has random weights, all of which are trained.
void check_new_model(const RunConfig& config, Mistakes& found, const KeyLocation& place) {
  const model::Options& model = config.model_config;
  if (static_cast<const model::NewModelOptions&>(model) == model::NewModelOptions{}) return;
  const bool unnamed = found.require(
      model.pretrained_model_name.empty(),
      "{}: {} brings the shape of its own (config.json), and model_config gives one, too (hidden_size and the "
      "like); leave out the name to train a new model of that shape, or leave out the shape",
      place("model_config", "pretrained_model_name"), core::quoted(model.pretrained_model_name));
  if (!unnamed) return;
  found.require(!config.tokenizer_config.pretrained_tokenizer_name.empty(),
                "{}: a new model needs it; expected the folder or the hub id of a tokenizer, such as "
                "EleutherAI/gpt-neo-125m",
                place("tokenizer_config", "pretrained_tokenizer_name"));
  found.require(!config.peft_config,
                "{}: a new model has random weights, which an adapter cannot mend; leave out the group, and start LoRA "
                "from the result of this run (model_config.pretrained_model_name: {}/model)",
                place("peft_config", "r"), config.trainer_config.output_dir);
}

void check_adapter_kind(const model::LoraOptions& lora, Mistakes& found, const KeyLocation& place) {
  found.require(!lora.use_dora || !lora.init_lora_weights.splits_weights(),
                "{}: not together with init_lora_weights {}, whose adapter is stored as a plain LoRA for the unchanged "
                "base, which DoRA is not; remove one of them",
                place("peft_config", "use_dora"), model::init_name(lora.init_lora_weights));
  using Kind = model::AdapterInit::Kind;
  const Kind kind = lora.init_lora_weights.kind;
  found.require(!lora.lora_bias || kind == Kind::kTrue || kind == Kind::kFalse,
                "{}: not together with init_lora_weights {}; PEFT has it with true and false only",
                place("peft_config", "lora_bias"), model::init_name(lora.init_lora_weights));
  found.require(!lora.lora_bias || !lora.use_dora,
                "{}: not together with use_dora, in PEFT neither; remove one of them",
                place("peft_config", "lora_bias"));
}

void check_peft(const RunConfig& config, Mistakes& found, const KeyLocation& place) {
  if (!config.peft_config) return;
  check_adapter_kind(*config.peft_config, found, place);
  found.require(!config.peft_config->target_modules.empty(),
                "{}: expected at least one module name (default: q_proj, v_proj), or all-linear",
                place("peft_config", "target_modules"));
  const model::AdapterInit& init = config.peft_config->init_lora_weights;
  found.require(config.peft_config->init_from.empty() || init == model::AdapterInit{},
                "{}: {} has no effect, since init_from gives the initial values; remove one of them",
                place("peft_config", "init_lora_weights"), model::init_name(init));
  const bool limited = !config.peft_config->layers_to_transform.empty();
  found.require(!limited || !config.peft_config->target_modules.is_expression,
                "{}: it needs a list in target_modules; an expression can name the blocks itself, e.g. "
                "\".*\\.h\\.[0-3]\\..*q_proj\"",
                place("peft_config", "layers_to_transform"));
  for (const std::string& name : config.peft_config->layers_pattern) {
    if (!found.require(limited, "{}: it has no effect without layers_to_transform; expected both",
                       place("peft_config", "layers_pattern")))
      break;
    found.require(name == "h", "{}: {} is no list of blocks of GPT-Neo; expected h",
                  place("peft_config", "layers_pattern"), core::quoted(name));
  }
  for (const std::string& module : config.peft_config->modules_to_save) {
    found.require(model::can_train_whole(module), "{}: \"{}\" cannot be trained whole; expected score, classifier, {}",
                  place("peft_config", "modules_to_save"), module, fmt::join(model::kWholeModules, ", "));
  }
  found.require(config.peft_config->trainable_token_indices.empty() || !model::trains_whole(*config.peft_config, "wte"),
                "{}: not together with modules_to_save: [wte], which trains the rows of all tokens; remove one of them",
                place("peft_config", "trainable_token_indices"));
}

/// Names the key that says that rows hold prompts and responses, or chats.
std::string_view response_key(const data::Options& data) {
  if (!data.messages_column.empty()) return "messages_column";
  return data.prompt_template.empty() || data.prompt_template == data::kNewline ? "prompt_column" : "template";
}

/// Settles what stands between two columns. Returns false if the template is none that joins two.
bool take_pair_template(data::Options& data, Mistakes& found, const KeyLocation& place) {
  const bool named = data.prompt_template == data::kNewline || data.prompt_template == data::kJoined;
  const bool pair = !data.prompt_column.empty() || !data.response_column.empty();
  if (named) {
    found.require(pair && data.messages_column.empty(), "{}: {} is for data.prompt_column and data.response_column",
                  place("data", "template"), data.prompt_template);
  }
  if (data.prompt_template == data::kJoined) data.prompt_template.clear();
  return named || (pair && data.prompt_template.empty() && data.messages_column.empty());
}

void check_template(data::Options& data, Mistakes& found, const KeyLocation& place) {
  if (take_pair_template(data, found, place)) return;
  if (data.prompt_template == "chat" && data.messages_column.empty()) data.messages_column = "messages";
  const bool chats = !data.messages_column.empty();
  if (chats && data.prompt_template.empty()) data.prompt_template = "chat";
  if (data.prompt_template.empty()) return;
  found.require(data.prompt_column.empty() && data.response_column.empty(),
                "{}: {}; remove prompt_column and response_column", place("data", response_key(data)),
                chats ? "a chat brings prompts and answers itself" : "a template names its columns itself");
  try {
    if (chats) {
      data::ChatTemplate parsed(data.prompt_template);
    } else {
      data::PromptTemplate parsed(data.prompt_template);
    }
  } catch (const core::Error& error) {
    found.require(false, "{}: {}", place("data", "template"), error.what());
  }
}

void check_packs(const RunConfig& config, Mistakes& found, const KeyLocation& place) {
  const data::Options& data = config.data;
  const bool packs = data.pack == "documents" || data.pack == "samples";
  const bool classifies = has_label_column(data) || !config.model_config.problem_type.empty() ||
                          (config.peft_config && config.peft_config->task_type == "SEQ_CLS");
  found.require(!packs || !classifies,
                "{}: packs are for causal language models; a classification needs none, since nothing is padded: "
                "remove it",
                place("data", "pack"));
  found.require(data.pack != "documents" || !data::has_responses(data),
                "{}: documents would cut prompts from their responses; use samples", place("data", "pack"));
}

/// Returns false if keys contradict each other on what the task is.
bool settle_columns(RunConfig& config, Mistakes& found, const KeyLocation& place) {
  resolve_regression(config);
  data::Options& data = config.data;
  const std::string task = config.peft_config ? config.peft_config->task_type : "";
  const std::string& problem = config.model_config.problem_type;
  const bool labelled = has_label_column(data);

  const bool one_column =
      found.require(data.label_column.empty() || data.labels_column.empty(),
                    "{}: label_column (one label a row) and labels_column (several) cannot both be given",
                    place("data", "labels_column"));
  check_template(data, found, place);
  const bool own_template = !data.prompt_template.empty() && data.prompt_template != data::kNewline;
  found.require(data.prompt_column.empty() == data.response_column.empty() || own_template,
                "{}: prompt_column and response_column must be given together",
                place("data", data.prompt_column.empty() ? "response_column" : "prompt_column"));
  const bool agree = found.require(!data::has_responses(data) || (!labelled && task != "SEQ_CLS" && problem.empty()),
                                   "{}: prompts and responses train a causal language model, which has no labels",
                                   place("data", response_key(data))) &&
                     found.require(task != "CAUSAL_LM" || (!labelled && problem.empty()),
                                   "{}: CAUSAL_LM has no labels; remove label columns and problem_type, or use SEQ_CLS",
                                   place("peft_config", "task_type"));
  found.require(data.text_pair_column.empty() || (task != "CAUSAL_LM" && data.prompt_column.empty()),
                "{}: a causal language model has no text pairs; remove the key, or use SEQ_CLS",
                place("data", "text_pair_column"));
  if (task == "SEQ_CLS" || !problem.empty()) name_label_column(config);
  if (!one_column) return agree;
  found.require(data.labels_column.empty() || problem != kSingleLabel,
                "{}: single-label classification takes data.label_column, not labels_column",
                place("model_config", "problem_type"));
  found.require(data.label_column.empty() || problem != kMultiLabel,
                "{}: multi-label classification takes data.labels_column, not label_column",
                place("model_config", "problem_type"));
  return agree;
}

void check_truncation(RunConfig& config, bool task_known, Mistakes& found, const KeyLocation& place) {
  const data::TokenizerOptions& tokenizer = config.tokenizer_config;
  found.require(tokenizer.stride == 0 || tokenizer.return_overflowing_tokens,
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
  found.require(!causal || !task_known,
                "{}: a language model has no windows; data.pack: documents cuts long texts into several samples",
                where);
  found.require(config.data.text_pair_column.empty(),
                "{}: text pairs have no windows; remove it, or data.text_pair_column", where);
}

}  // namespace

void name_label_column(RunConfig& config) {
  if (has_label_column(config.data)) return;
  const std::string& problem = config.model_config.problem_type;
  const bool multi = problem == kMultiLabel || (problem == kRegression && config.model_config.num_labels > 1);
  (multi ? config.data.labels_column : config.data.label_column) = multi ? "labels" : "label";
}

void resolve_columns(RunConfig& config, const KeyLocation& place) {
  Mistakes found;
  settle_columns(config, found, place);
  found.refuse_any("the task");
}

void resolve_and_check(RunConfig& config, Mistakes& found, const KeyLocation& place) {
  resolve_compute_dtype(config, found, place);
  const bool task_known = settle_columns(config, found, place);
  if (task_known) check_packs(config, found, place);
  check_truncation(config, task_known, found, place);
  check_labels(config, task_known, found, place);
  check_rhythm(config, found, place);
  check_report_to(config, place);
  check_early_stopping(config, found, place);
  check_sizes(config, found, place);
  check_loss(config.trainer_config, found, place);
  resolve_optimizer(config, found, place);
  check_schedule(config, found, place);
  check_new_model(config, found, place);
  check_peft(config, found, place);
}

}  // namespace neoloom::launch
