// SPDX-License-Identifier: Apache-2.0
#include "launch/config/schema.h"

#include <algorithm>
#include <utility>

#include "launch/config/values.h"
#include "runtime/core/error.h"
#include "runtime/optim/metric_schedule.h"
#include "runtime/optim/optimizer_options.h"

namespace neoloom::launch {

namespace {

using enum Identity;

template <typename Config, typename Group>
auto& group_of(Config& config, Group RunConfig::*member) {
  return config.*member;
}
template <typename Config, typename Group>
auto& group_of(Config& config, std::optional<Group> RunConfig::*member) {
  return (config.*member).value();
}

/// Collects the fields of one group. GroupMember points to the group inside RunConfig.
template <typename GroupMember>
class GroupFields {
 public:
  GroupFields(std::string name, GroupMember member, std::vector<Field>& out)
      : name_(std::move(name)), member_(member), out_(out) {}

  template <typename Owner>
  void integer(std::string key, Identity identity, int64_t Owner::*m, const Rule<int64_t>& rule) {
    add(std::move(key), identity, m,
        [rule](const auto& name, const Node& node) { return read_integer(name, node, rule); });
  }
  template <typename Owner>
  void integer(std::string key, Identity identity, std::optional<int64_t> Owner::*m, const Rule<int64_t>& rule) {
    add(
        std::move(key), identity, m,
        [rule](const auto& name, const Node& node) { return read_integer(name, node, rule); }, true);
  }
  template <typename Owner>
  void number(std::string key, Identity identity, double Owner::*m, const Rule<double>& rule,
              bool null_is_default = false) {
    add(
        std::move(key), identity, m,
        [rule](const auto& name, const Node& node) { return read_number(name, node, rule); }, null_is_default);
  }
  template <typename Owner>
  void number(std::string key, Identity identity, std::optional<double> Owner::*m, const Rule<double>& rule) {
    add(
        std::move(key), identity, m,
        [rule](const auto& name, const Node& node) { return read_number(name, node, rule); }, true);
  }
  template <typename Owner>
  void flag(std::string key, Identity identity, bool Owner::*m, bool null_is_default = false) {
    add(std::move(key), identity, m, read_flag, null_is_default);
  }
  template <typename Owner>
  void flag(std::string key, Identity identity, std::optional<bool> Owner::*m) {
    add(std::move(key), identity, m, read_flag, true);
  }
  template <typename Owner>
  void text(std::string key, Identity identity, std::string Owner::*m, const Choices& choices = {},
            bool null_is_default = true) {
    add(
        std::move(key), identity, m,
        [choices](const auto& name, const Node& node) { return read_choice(name, node, choices); }, null_is_default);
  }
  template <typename Owner>
  void name(std::string key, Identity identity, std::string Owner::*m) {
    add(std::move(key), identity, m, read_name, true);
  }
  template <typename Owner>
  void names(std::string key, Identity identity, std::vector<std::string> Owner::*m) {
    add(std::move(key), identity, m, read_names, true);
  }
  template <typename T, typename Owner, typename Reader>
  void read_by(std::string key, Identity identity, T Owner::*m, Reader reader) {
    add(std::move(key), identity, m, reader, true);
  }
  template <typename Owner>
  void dtype(std::string key, Identity identity, model::Dtype Owner::*m) {
    add(std::move(key), identity, m, read_dtype, true);
  }
  template <typename Owner>
  void interval(std::string key, Identity identity, train::Interval Owner::*m, const Choices& choices) {
    add(std::move(key), identity, m,
        [choices](const auto& name, const Node& node) { return read_interval(name, node, choices); });
  }
  template <typename Owner>
  void auto_flag(std::string key, Identity identity, train::AutoFlag Owner::*m) {
    add(std::move(key), identity, m, read_auto_flag, true);
  }
  template <typename Owner>
  void memory_size(std::string key, Identity identity, train::MemorySize Owner::*m) {
    add(std::move(key), identity, m, read_memory_size, true);
  }
  /// Adds an integer whose `null` means 0.
  template <typename Owner>
  void limit(std::string key, Identity identity, int64_t Owner::*m) {
    add(std::move(key), identity, m, [](const auto& name, const Node& node) {
      return node.is_null() ? int64_t{0} : read_integer(name, node, kCount);
    });
  }
  /// Adds a key with one possible value. Nothing is stored.
  void constant(std::string key, Identity identity, std::string value, std::vector<std::string> later) {
    const std::string name = name_ + "." + key;
    Field field{name_, std::move(key), identity, true, {}, [value](const RunConfig&) { return value; }};
    field.read = [name, choices = Choices{{value}, std::move(later)}](RunConfig&, const Node& node) {
      read_choice(name, node, choices);
    };
    out_.push_back(std::move(field));
  }

 private:
  template <typename T, typename Owner, typename Reader>
  void add(std::string key, Identity identity, T Owner::*m, Reader reader, bool null_is_default = false) {
    const std::string name = name_ + "." + key;
    const GroupMember member = member_;
    Field field{name_, std::move(key), identity, null_is_default, {}, {}};
    field.read = [=](RunConfig& config, const Node& node) { group_of(config, member).*m = reader(name, node); };
    field.write = [=](const RunConfig& config) { return to_text(group_of(config, member).*m); };
    out_.push_back(std::move(field));
  }

  std::string name_;
  GroupMember member_;
  std::vector<Field>& out_;
};

void add_model_fields(std::vector<Field>& out) {
  using Options = model::Options;
  GroupFields group("model_config", &RunConfig::model_config, out);
  group.text("pretrained_model_name", kResolved, &Options::pretrained_model_name);
  group.name("revision", kResolved, &Options::revision);
  group.text("problem_type", kCompared, &Options::problem_type,
             {{"", "single_label_classification", "multi_label_classification", "regression"}, {}});
  group.integer("num_labels", kCompared, &Options::num_labels, kPositive);
  group.integer("pad_token_id", kCompared, &Options::pad_token_id, kCount);
  group.number("embed_dropout", kResolved, &Options::embed_dropout, kBelowOne);
  group.number("resid_dropout", kResolved, &Options::resid_dropout, kBelowOne);
  group.number("attention_dropout", kResolved, &Options::attention_dropout, kBelowOne);
  group.dtype("frozen_dtype", kCompared, &Options::frozen_dtype);
  group.flag("train_all", kCompared, &Options::train_all);
  group.flag("ignore_mismatched_sizes", kFree, &Options::ignore_mismatched_sizes, true);
}

/// Their values are compared as those of the base's config.json.
void add_new_model_fields(std::vector<Field>& out) {
  using Options = model::NewModelOptions;
  GroupFields group("model_config", &RunConfig::model_config, out);
  group.integer("vocab_size", kResolved, &Options::vocab_size, kPositive);
  group.integer("max_position_embeddings", kResolved, &Options::max_position_embeddings, kPositive);
  group.integer("hidden_size", kResolved, &Options::hidden_size, kPositive);
  group.integer("num_layers", kResolved, &Options::num_layers, kPositive);
  group.integer("num_heads", kResolved, &Options::num_heads, kPositive);
  group.integer("intermediate_size", kResolved, &Options::intermediate_size, kPositive);
  group.integer("window_size", kResolved, &Options::window_size, kPositive);
  group.read_by("attention_types", kResolved, &Options::attention_types, read_attention_types);
  group.names("attention_layers", kResolved, &Options::attention_layers);
  group.number("layer_norm_epsilon", kResolved, &Options::layer_norm_epsilon, kNotNegative);
  group.number("initializer_range", kResolved, &Options::initializer_range, kNotNegative);
  group.flag("tie_word_embeddings", kResolved, &Options::tie_word_embeddings);
}

void add_peft_fields(std::vector<Field>& out) {
  using Options = model::LoraOptions;
  GroupFields group("peft_config", &RunConfig::peft_config, out);
  group.constant("peft_type", kCompared, "LORA",
                 {"PROMPT_TUNING",
                  "MULTITASK_PROMPT_TUNING",
                  "P_TUNING",
                  "PREFIX_TUNING",
                  "ADALORA",
                  "BOFT",
                  "ADAPTION_PROMPT",
                  "IA3",
                  "LOHA",
                  "LOKR",
                  "OFT",
                  "POLY",
                  "LN_TUNING",
                  "VERA",
                  "FOURIERFT",
                  "XLORA",
                  "HRA",
                  "VBLORA",
                  "CPT",
                  "BONE",
                  "MISS",
                  "RANDLORA",
                  "ROAD",
                  "TRAINABLE_TOKENS",
                  "SHIRA",
                  "C3A"});
  group.text("task_type", kCompared, &Options::task_type,
             {{"", "SEQ_CLS", "CAUSAL_LM"}, {"SEQ_2_SEQ_LM", "TOKEN_CLS", "QUESTION_ANS", "FEATURE_EXTRACTION"}});
  group.integer("r", kCompared, &Options::r, kPositive);
  group.number("lora_alpha", kCompared, &Options::lora_alpha, kAboveZero);
  group.number("lora_dropout", kCompared, &Options::lora_dropout, kBelowOne);
  group.read_by("target_modules", kCompared, &Options::target_modules, read_modules);
  group.read_by("exclude_modules", kCompared, &Options::exclude_modules, read_modules);
  group.read_by("layers_to_transform", kCompared, &Options::layers_to_transform, read_counts);
  group.names("layers_pattern", kCompared, &Options::layers_pattern);
  group.read_by("rank_pattern", kCompared, &Options::rank_pattern, read_rank_pattern);
  group.read_by("alpha_pattern", kCompared, &Options::alpha_pattern, read_alpha_pattern);
  group.flag("use_rslora", kCompared, &Options::use_rslora);
  group.read_by("init_lora_weights", kCompared, &Options::init_lora_weights, read_adapter_init);
  group.flag("use_dora", kCompared, &Options::use_dora, true);
  group.text("bias", kCompared, &Options::bias, {{"none", "all", "lora_only"}, {}});
  group.flag("lora_bias", kCompared, &Options::lora_bias, true);
  group.names("modules_to_save", kCompared, &Options::modules_to_save);
  group.read_by("trainable_token_indices", kCompared, &Options::trainable_token_indices, read_tokens);
  group.text("init_from", kResolved, &Options::init_from);
}

void add_tokenizer_fields(std::vector<Field>& out) {
  using Options = data::TokenizerOptions;
  GroupFields group("tokenizer_config", &RunConfig::tokenizer_config, out);
  group.text("pretrained_tokenizer_name", kResolved, &Options::pretrained_tokenizer_name);
  group.limit("max_length", kResolved, &Options::max_length);
  group.flag("add_eos_token", kResolved, &Options::add_eos_token);
  group.flag("split_special_tokens", kResolved, &Options::split_special_tokens);
  group.text("truncation_side", kResolved, &Options::truncation_side, {{"right", "left"}, {}});
  group.flag("return_overflowing_tokens", kResolved, &Options::return_overflowing_tokens);
  group.limit("stride", kResolved, &Options::stride);
}

std::vector<std::string> names_of_schedules() {
  std::vector<std::string> names = optim::schedule_names();
  for (std::string& name : optim::metric_schedule_names()) names.push_back(std::move(name));
  return names;
}

/// adamw_hf is an old name, which resolve_and_check() replaces.
std::vector<std::string> names_of_optimizers() {
  std::vector<std::string> names = optim::optimizer_names();
  names.emplace_back("adamw_hf");
  return names;
}

void add_trainer_size_fields(std::vector<Field>& out) {
  using Options = train::Options;
  GroupFields group("trainer_config", &RunConfig::trainer_config, out);
  group.text("output_dir", kFree, &Options::output_dir);
  group.integer("per_device_train_batch_size", kCompared, &Options::per_device_train_batch_size, kPositive);
  group.integer("per_device_eval_batch_size", kMeasured, &Options::per_device_eval_batch_size, kPositive);
  group.integer("gradient_accumulation_steps", kCompared, &Options::gradient_accumulation_steps, kPositive);
  group.limit("max_tokens_per_micro_batch", kCompared, &Options::max_tokens_per_micro_batch);
  group.number("num_train_epochs", kResolved, &Options::num_train_epochs, kAboveZero);
  group.integer("max_steps", kResolved, &Options::max_steps, kMaxSteps);
  group.flag("auto_find_batch_size", kCompared, &Options::auto_find_batch_size);
  group.text("optim", kCompared, &Options::optim,
             {names_of_optimizers(),
              {"adamw_torch_xla",
               "adamw_torch_npu_fused",
               "adamw_anyprecision",
               "adamw_torch_4bit",
               "ademamix",
               "adagrad",
               "ademamix_8bit",
               "lion_8bit",
               "paged_adamw_32bit",
               "paged_adamw_8bit",
               "paged_ademamix_32bit",
               "paged_ademamix_8bit",
               "paged_lion_32bit",
               "paged_lion_8bit",
               "rmsprop",
               "rmsprop_bnb",
               "rmsprop_bnb_8bit",
               "rmsprop_bnb_32bit",
               "galore_adamw",
               "galore_adamw_8bit",
               "galore_adafactor",
               "galore_adamw_layerwise",
               "galore_adamw_8bit_layerwise",
               "galore_adafactor_layerwise",
               "lomo",
               "adalomo",
               "grokadamw",
               "schedule_free_radam",
               "schedule_free_adamw",
               "schedule_free_sgd",
               "apollo_adamw",
               "apollo_adamw_layerwise",
               "stable_adamw"}});
  group.text("optim_args", kCompared, &Options::optim_args);
  group.number("learning_rate", kCompared, &Options::learning_rate, kNotNegative);
  group.number("loraplus_lr_ratio", kCompared, &Options::loraplus_lr_ratio, kAboveZero);
  group.text("lr_scheduler_type", kCompared, &Options::lr_scheduler_type, {names_of_schedules(), {}}, false);
  group.read_by("lr_scheduler_kwargs", kCompared, &Options::lr_scheduler_kwargs, read_schedule_arguments);
  group.number("warmup_steps", kCompared, &Options::warmup_steps, kSteps);
  group.number("adam_beta1", kCompared, &Options::adam_beta1, kBelowOne);
  group.number("adam_beta2", kCompared, &Options::adam_beta2, kBelowOne);
  group.number("adam_epsilon", kCompared, &Options::adam_epsilon, kNotNegative);
  group.number("weight_decay", kCompared, &Options::weight_decay, kNotNegative);
  group.number("max_grad_norm", kCompared, &Options::max_grad_norm, kNotNegative);
  group.flag("completion_only_loss", kResolved, &Options::completion_only_loss);
  group.read_by("non_finite_policy", kFree, &Options::non_finite_policy, read_non_finite_policy);
  group.read_by("loss_spike_policy", kCompared, &Options::loss_spike_policy, read_loss_spike_policy);
  group.read_by("class_weights", kCompared, &Options::class_weights, read_class_weights);
  group.number("label_smoothing_factor", kCompared, &Options::label_smoothing_factor, kBelowOne, true);
  group.number("neftune_noise_alpha", kCompared, &Options::neftune_noise_alpha, kNotNegative, true);
  group.flag("bf16", kCompared, &Options::bf16);
  group.flag("fp16", kCompared, &Options::fp16);
  group.auto_flag("gradient_checkpointing", kFree, &Options::gradient_checkpointing);
}

void add_trainer_rhythm_fields(std::vector<Field>& out) {
  using Options = train::Options;
  GroupFields group("trainer_config", &RunConfig::trainer_config, out);
  group.integer("seed", kCompared, &Options::seed, kCount);
  group.integer("data_seed", kCompared, &Options::data_seed, kCount);
  group.flag("dataloader_drop_last", kCompared, &Options::dataloader_drop_last);
  group.text("train_sampling_strategy", kCompared, &Options::train_sampling_strategy,
             {{"random", "sequential", "group_by_length"}, {"batch_rebalance"}}, false);
  group.interval("logging_strategy", kMeasured, &Options::logging_strategy, {{"no", "steps", "epoch"}, {}});
  group.number("logging_steps", kMeasured, &Options::logging_steps, kStepsAboveZero);
  group.flag("logging_first_step", kFree, &Options::logging_first_step);
  group.read_by("report_to", kFree, &Options::report_to, read_report_to);
  group.text("logging_dir", kFree, &Options::logging_dir);
  group.interval("eval_strategy", kMeasured, &Options::eval_strategy, {{"no", "steps", "epoch"}, {}});
  group.number("eval_steps", kMeasured, &Options::eval_steps, kSteps, true);
  group.number("eval_delay", kMeasured, &Options::eval_delay, kNotNegative, true);
  group.flag("eval_on_start", kFree, &Options::eval_on_start, true);
  group.interval("save_strategy", kFree, &Options::save_strategy, {{"no", "steps", "epoch", "best"}, {}});
  group.number("save_steps", kFree, &Options::save_steps, kStepsAboveZero);
  group.limit("save_total_limit", kFree, &Options::save_total_limit);
  group.flag("load_best_model_at_end", kMeasured, &Options::load_best_model_at_end);
  group.text("metric_for_best_model", kMeasured, &Options::metric_for_best_model);
  group.flag("greater_is_better", kMeasured, &Options::greater_is_better);
  group.integer("early_stopping_patience", kMeasured, &Options::early_stopping_patience, kPositive);
  group.number("early_stopping_threshold", kMeasured, &Options::early_stopping_threshold, kNotNegative, true);
  group.flag("calibrate", kFree, &Options::calibrate);
}

void add_data_fields(std::vector<Field>& out) {
  using Options = data::Options;
  GroupFields group("data", &RunConfig::data, out);
  group.read_by("train", kResolved, &Options::train, read_files);
  group.read_by("validation", kMeasured, &Options::validation, read_validation);
  group.number("validation_split", kResolved, &Options::validation_split, kBelowOne);
  group.text("format", kResolved, &Options::format,
             {{"auto", "jsonl", "json", "csv", "tsv", "text", "parquet"}, {"arrow"}}, false);
  group.flag("header", kResolved, &Options::header);
  group.flag("quoting", kResolved, &Options::quoting);
  group.read_by("delimiter", kResolved, &Options::delimiter, read_delimiter);
  group.text("encoding", kResolved, &Options::encoding, {{"utf-8", "latin-1", "cp1252", "utf-8-replace"}, {}}, false);
  group.name("text_column", kResolved, &Options::text_column);
  group.name("text_pair_column", kResolved, &Options::text_pair_column);
  group.name("label_column", kResolved, &Options::label_column);
  group.name("labels_column", kResolved, &Options::labels_column);
  group.name("labels_separator", kResolved, &Options::labels_separator);
  group.name("prompt_column", kResolved, &Options::prompt_column);
  group.name("response_column", kResolved, &Options::response_column);
  group.name("messages_column", kResolved, &Options::messages_column);
  group.text("template", kResolved, &Options::prompt_template);
  group.text("pack", kResolved, &Options::pack, {{"auto", "documents", "samples", "none"}, {}}, true);
  group.names("label_names", kResolved, &Options::label_names);
  group.number("invalid_data_tolerance_percent", kResolved, &Options::invalid_data_tolerance_percent, kPercent);
}

void add_runtime_fields(std::vector<Field>& out) {
  using Options = train::RuntimeOptions;
  GroupFields group("runtime", &RunConfig::runtime, out);
  group.text("device", kResolved, &Options::device, {{"auto", "cpu", "cuda"}, {"mps", "xpu", "rocm"}}, false);
  group.integer("threads_per_rank", kResolved, &Options::threads_per_rank, kCount);
  group.integer("global_batch_size", kResolved, &Options::global_batch_size, kCount);
  group.text("compute_dtype", kResolved, &Options::compute_dtype, {{"auto", "float16", "bfloat16", "float32"}, {}},
             false);
  group.text("cache_dir", kFree, &Options::cache_dir);
  group.flag("trust_cache", kFree, &Options::trust_cache);
  group.text("verify_weights", kFree, &Options::verify_weights, {{"changed", "always"}, {}}, false);
  group.memory_size("memory_budget", kFree, &Options::memory_budget);
  group.integer("logits_chunk_rows", kResolved, &Options::logits_chunk_rows, kCount);
  group.flag("allow_mixed_devices", kFree, &Options::allow_mixed_devices);
  group.flag("deterministic", kResolved, &Options::deterministic);
  group.flag("cuda_graphs", kFree, &Options::cuda_graphs);
  group.text("gradient_sum", kResolved, &Options::gradient_sum, {{"fixed", "float"}, {}}, false);
  group.integer("bucket_bytes", kFree, &Options::bucket_bytes, kCount);
  group.integer("state_check_steps", kFree, &Options::state_check_steps, kCount);
  group.integer("peer_timeout_seconds", kFree, &Options::peer_timeout_seconds, kPositive);
  group.integer("prefetch_batches", kFree, &Options::prefetch_batches, kCount);
  group.integer("profile_from_step", kFree, &Options::profile_from_step, kCount);
  group.integer("profile_steps", kFree, &Options::profile_steps, kPositive);
}

template <typename Entry>
const Entry* find(const std::vector<Entry>& entries, std::string_view group, std::string_view key,
                  std::string_view (*key_of)(const Entry&)) {
  const auto same = [&](const Entry& entry) { return entry.group == group && key_of(entry) == key; };
  const auto found = std::find_if(entries.begin(), entries.end(), same);
  return found == entries.end() ? nullptr : &*found;
}

}  // namespace

std::vector<Field> make_fields() {
  std::vector<Field> out;
  add_model_fields(out);
  add_new_model_fields(out);
  add_peft_fields(out);
  add_tokenizer_fields(out);
  add_trainer_size_fields(out);
  add_trainer_rhythm_fields(out);
  add_data_fields(out);
  add_runtime_fields(out);
  GroupFields("checkpoint", &RunConfig::checkpoint, out).flag("extend", kFree, &train::CheckpointOptions::extend);
  GroupFields logging("logging", &RunConfig::logging, out);
  logging.text("level", kFree, &train::LoggingOptions::level, {{"debug", "info", "warning", "error"}, {}}, false);
  logging.text("progress", kFree, &train::LoggingOptions::progress, {{"auto", "bar", "plain", "off"}, {}}, false);
  return out;
}

Schema::Schema()
    : groups({"model_config", "peft_config", "tokenizer_config", "trainer_config", "data", "runtime", "checkpoint",
              "logging"}),
      fields(make_fields()),
      aliases(make_aliases()),
      foreign(make_foreign_keys()) {}

const Field* Schema::field(std::string_view group, std::string_view key) const {
  return find<Field>(fields, group, key, [](const Field& field) { return std::string_view(field.key); });
}
const Alias* Schema::alias(std::string_view group, std::string_view key) const {
  return find<Alias>(aliases, group, key, [](const Alias& alias) { return alias.old_key; });
}
const ForeignKey* Schema::foreign_key(std::string_view group, std::string_view key) const {
  return find<ForeignKey>(foreign, group, key, [](const ForeignKey& key) { return key.key; });
}

bool Schema::has_group(std::string_view group) const {
  return std::any_of(foreign.begin(), foreign.end(), [&](const ForeignKey& key) { return key.group == group; });
}

}  // namespace neoloom::launch
