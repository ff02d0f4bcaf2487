// SPDX-License-Identifier: Apache-2.0
#include "launch/job/run_identity.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <filesystem>
#include <string_view>

#include "launch/version.h"
#include "runtime/core/environment.h"
#include "runtime/core/error.h"
#include "runtime/core/hash.h"
#include "runtime/core/json.h"

namespace neoloom::launch {
namespace {

using core::ErrorKind;
using nlohmann::ordered_json;

using Differences = std::vector<std::string>;

void compare(const std::string& key, const std::string& before, const std::string& now, Differences& differences) {
  if (before != now) differences.push_back(fmt::format("  {}: was {}, is {}", key, before, now));
}

using Keys = std::map<std::string, std::string>;  // compared_keys()

// A key that an older neoloom did not know had the effect of today's default.
Keys with_defaults(Keys stored) {
  RunConfig defaults;
  const auto is_of_peft = [](const auto& entry) { return entry.first.starts_with("peft_config."); };
  if (std::any_of(stored.begin(), stored.end(), is_of_peft)) defaults.peft_config.emplace();
  stored.merge(compared_keys(defaults));
  return stored;
}

Differences compare_keys(const Keys& before, const Keys& now) {
  const auto value_in = [](const Keys& keys, const std::string& key) {
    const auto found = keys.find(key);
    return found == keys.end() ? "(unset)" : found->second;
  };
  Differences differences;
  for (const auto& [key, value] : now) compare(key, value_in(before, key), value, differences);
  for (const auto& [key, value] : before) {
    if (!now.contains(key)) compare(key, value, "(unset)", differences);
  }
  return differences;
}

std::string label_text(const std::vector<std::string>& labels) {
  return nlohmann::json(labels).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

// Compares a field if it was stored: older versions of neoloom did not store it.
void compare_stored(const ordered_json& before, const char* field, const std::string& name, const std::string& now,
                    Differences& differences) {
  if (const auto found = before.find(field); found != before.end()) {
    compare(name, found->get<std::string>(), now, differences);
  }
}

void compare_base_config(const ordered_json& before, const std::map<std::string, std::string>& now,
                         Differences& differences) {
  const auto stored = before.find("base_config");
  if (stored == before.end()) return;
  for (const auto& [key, value] : now) {
    // An older neoloom trained without attention_dropout only, and did not store it.
    const std::string before_or_default = stored->value(key, key == "attention_dropout" ? "0" : value);
    compare("config.json of the base: " + key, before_or_default, value, differences);
  }
}

// Compares the planned length of a run. It may grow with --extend only, because the schedule depends on it.
void compare_length(const ordered_json& before, const RunConfig& config, bool extend, Differences& differences) {
  const double epochs = before.at("num_train_epochs");
  const int64_t steps = before.at("max_steps");
  const train::Options& options = config.trainer_config;
  if (extend && options.num_train_epochs >= epochs && options.max_steps >= steps) return;
  const char* hint = " (a longer run needs --extend)";
  compare("trainer_config.num_train_epochs", fmt::format("{}", epochs), fmt::format("{}", options.num_train_epochs),
          differences);
  compare("trainer_config.max_steps", fmt::format("{}", steps), fmt::format("{}", options.max_steps), differences);
  if (!extend && !differences.empty() && (options.num_train_epochs > epochs || options.max_steps > steps)) {
    differences.back() += hint;
  }
}

void refuse(const std::string& where, const Differences& differences) {
  if (differences.empty()) return;
  core::fail(ErrorKind::kUsage,
             "{} belongs to another configuration:\n{}\nUse another trainer_config.output_dir, or the old values",
             where, fmt::join(differences, "\n"));
}

// Compares where a run computes. Where the guarantee of equal bits is waived, a difference is a warning instead.
void compare_machine(const ordered_json& before, const RunConfig& config, const ResolvedSettings& resolved,
                     Differences& differences, std::vector<std::string>& warnings) {
  for (const auto& [key, now] : {std::pair{"device", resolved.device_kind},
                                 {"instruction_sets", resolved.instruction_sets},
                                 {"kernel_environment", resolved.kernel_environment}}) {
    const std::string then = before.value(key, now);
    if (then == now) continue;
    if (config.runtime.allow_mixed_devices) {
      warnings.push_back(
          fmt::format("{} was {}, is {}: equal bits are no longer guaranteed for this run", key, then, now));
    } else {
      compare(std::string(key) + " (runtime.allow_mixed_devices: true continues, without the guarantee of equal bits)",
              then, now, differences);
    }
  }
}

}  // namespace

std::map<std::string, std::string> base_config_values(const model::GptNeoConfig& base) {
  std::vector<std::string_view> layers;
  for (const bool local : base.layer_is_local) layers.emplace_back(local ? "local" : "global");
  return {{"vocab_size", std::to_string(base.vocab_size)},
          {"max_position_embeddings", std::to_string(base.max_position_embeddings)},
          {"hidden_size", std::to_string(base.hidden_size)},
          {"num_layers", std::to_string(base.num_layers)},
          {"num_heads", std::to_string(base.num_heads)},
          {"intermediate_size", std::to_string(base.intermediate_size)},
          {"window_size", std::to_string(base.window_size)},
          {"layer_norm_epsilon", fmt::format("{}", base.layer_norm_epsilon)},
          {"initializer_range", fmt::format("{}", base.initializer_range)},
          {"embed_dropout", fmt::format("{}", base.embed_dropout)},
          {"resid_dropout", fmt::format("{}", base.resid_dropout)},
          {"attention_dropout", fmt::format("{}", base.attention_dropout)},
          {"tie_word_embeddings", fmt::format("{}", base.tie_word_embeddings)},
          {"attention_layers", fmt::format("{}", fmt::join(layers, ", "))},
          {"bos_token_id", std::to_string(base.bos_token_id)},
          {"eos_token_id", std::to_string(base.eos_token_id)},
          {"pad_token_id", std::to_string(base.pad_token_id)},
          {"id2label", label_text(base.labels)},
          {"problem_type", base.problem_type}};
}

void require_same_base(const std::map<std::string, std::string>& trained, const model::GptNeoConfig& base,
                       const std::string& where) {
  const std::map<std::string, std::string> now = base_config_values(base);
  Differences differences;
  for (const char* key : {"num_heads", "window_size", "layer_norm_epsilon", "attention_layers"}) {
    compare(key, trained.at(key), now.at(key), differences);
  }
  core::require(differences.empty(), ErrorKind::kWeights,
                "the base model is no longer the one that this run was trained on: {}/config.json says otherwise:\n{}\n"
                "Restore it, or name the right base with --set model_config.pretrained_model_name=...",
                where, fmt::join(differences, "\n"));
}

std::string kernel_environment() {
  std::vector<std::string> set;
  for (const core::Variable variable : core::Variables{
           "MKL_CBWR", "MKL_ENABLE_INSTRUCTIONS", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA",
           "ONEDNN_DEFAULT_FPMATH_MODE", "DNNL_DEFAULT_FPMATH_MODE", "ATEN_CPU_CAPABILITY", "OMP_THREAD_LIMIT",
           "OMP_DYNAMIC", "CUBLAS_WORKSPACE_CONFIG", "NVIDIA_TF32_OVERRIDE", "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE"}) {
    if (const std::string value = core::environment(variable); !value.empty())
      set.push_back(fmt::format("{}={}", variable.name(), value));
  }
  return fmt::format("{}", fmt::join(set, " "));
}

std::string start_hash(const RunConfig& config) {
  if (!config.peft_config || config.peft_config->init_from.empty()) return "";
  const std::string path = config.peft_config->init_from + "/adapter_model.safetensors";
  std::error_code unknown;
  return std::filesystem::is_regular_file(path, unknown) ? core::sha256_of_file(path) : "";
}

std::string evaluations_that_decide(const RunConfig& config, const ResolvedSettings& resolved) {
  const train::Options& trainer = config.trainer_config;
  if (!optim::follows_metric(trainer.lr_scheduler_type)) return "";
  const train::Judge judge = train::judge_of(trainer, resolved.validation);
  const auto keys = flatten(config);
  const auto value = [&](const std::string& key) { return keys.at("trainer_config." + key); };
  return fmt::format("{}, {} is better, eval_strategy {}, {} steps, eval_delay {}, batches of {}, data {}",
                     judge.metric, judge.greater_is_better ? "greater" : "smaller", value("eval_strategy"),
                     value(trainer.eval_steps > 0 ? "eval_steps" : "logging_steps"), value("eval_delay"),
                     trainer.per_device_eval_batch_size, judge.data);
}

std::string identity_json(const RunConfig& config, const ResolvedSettings& resolved) {
  return ordered_json{
      {"config", compared_keys(config)},
      {"length",
       {{"num_train_epochs", config.trainer_config.num_train_epochs}, {"max_steps", config.trainer_config.max_steps}}},
      {"model", resolved.model_hash},
      {"base_config", resolved.base_config},
      {"tokenizer", resolved.tokenizer_hash},
      {"data", resolved.data_hash},
      {"labels", label_text(resolved.labels)},
      {"pad_token_id", std::to_string(resolved.pad_token_id)},
      {"init_from", resolved.start_hash},
      {"evaluations", evaluations_that_decide(config, resolved)},
      {"program", version_text()},
      {"device", resolved.device_kind},
      {"compute_dtype", resolved.compute_dtype},
      {"gradient_sum", config.runtime.gradient_sum},
      {"deterministic", config.runtime.deterministic},
      {"instruction_sets", resolved.instruction_sets},
      {"kernel_environment", resolved.kernel_environment},
      {"threads_per_rank", resolved.threads_per_rank},
      {"logits_chunk_rows", resolved.logits_chunk_rows},
      {"gradient_checkpointing", resolved.gradient_checkpointing},
      {"micro_batch_size", resolved.batching.micro_batch_size},
      {"micro_batches_per_step", resolved.batching.micro_batches_per_step},
      {"max_tokens_per_micro_batch", resolved.batching.max_tokens}}
      .dump();
}

std::vector<std::string> adopt_identity(const std::string& path, const std::string& identity, const RunConfig& config,
                                        bool extend, ResolvedSettings& resolved) {
  const auto before = core::parse_json<ordered_json>(identity, path, ErrorKind::kCheckpoint);
  Differences differences = compare_keys(with_defaults(before.at("config").get<Keys>()), compared_keys(config));
  compare_length(before.at("length"), config, extend, differences);
  compare("model weights (SHA-256)", before.at("model"), resolved.model_hash, differences);
  compare_base_config(before, resolved.base_config, differences);
  compare("tokenizer (SHA-256)", before.at("tokenizer"), resolved.tokenizer_hash, differences);
  compare("training data and its settings (SHA-256)", before.at("data"), resolved.data_hash, differences);
  compare_stored(before, "labels", "labels, in the order of their ids", label_text(resolved.labels), differences);
  compare_stored(before, "pad_token_id", "pad_token_id", std::to_string(resolved.pad_token_id), differences);
  compare_stored(before, "evaluations", "evaluations that decide the learning rate",
                 evaluations_that_decide(config, resolved), differences);
  const std::string started_from = before.value("init_from", "");
  if (!started_from.empty() && !resolved.start_hash.empty()) {
    compare("peft_config.init_from (SHA-256 of its values)", started_from, resolved.start_hash, differences);
  }
  compare("runtime.compute_dtype", before.at("compute_dtype"), resolved.compute_dtype, differences);
  compare("runtime.deterministic", fmt::format("{}", before.value("deterministic", true)),
          fmt::format("{}", config.runtime.deterministic), differences);
  compare("runtime.gradient_sum", before.value("gradient_sum", "fixed"), config.runtime.gradient_sum, differences);
  const train::Batching kept{before.at("micro_batch_size"), before.at("micro_batches_per_step"),
                             before.value("max_tokens_per_micro_batch", int64_t{0})};
  if (config.runtime.global_batch_size > 0) {
    compare("runtime.global_batch_size", fmt::format("{}", kept.global_batch_size()),
            fmt::format("{}", config.runtime.global_batch_size), differences);
  }
  const int64_t kept_rows = before.value("logits_chunk_rows", resolved.logits_chunk_rows);
  if (config.runtime.logits_chunk_rows > 0) {
    compare("runtime.logits_chunk_rows", fmt::format("{}", kept_rows),
            fmt::format("{}", config.runtime.logits_chunk_rows), differences);
  }
  std::vector<std::string> warnings;
  compare_machine(before, config, resolved, differences, warnings);
  if (const std::string then = before.value("program", version_text()); then != version_text()) {
    warnings.push_back(
        fmt::format("this run was started by {} and continues with {}: "
                    "its bits may differ from those of an uninterrupted run",
                    then, version_text()));
  }
  refuse(path, differences);
  resolved.batching = kept;
  resolved.start_hash = started_from;
  resolved.logits_chunk_rows = kept_rows;
  resolved.gradient_checkpointing = before.value("gradient_checkpointing", false);
  const int64_t threads = before.at("threads_per_rank");
  if (config.runtime.threads_per_rank > 0 && config.runtime.threads_per_rank != threads) {
    warnings.push_back(fmt::format("runtime.threads_per_rank changes from {} to {}: this changes the bits of the run",
                                   threads, config.runtime.threads_per_rank));
    resolved.threads_per_rank = config.runtime.threads_per_rank;
  } else {
    if (threads > resolved.threads_per_rank) {
      warnings.push_back(fmt::format("this run keeps its {} threads per rank; here {} would fit, so cores are shared",
                                     threads, resolved.threads_per_rank));
    }
    resolved.threads_per_rank = threads;
  }
  return warnings;
}

void require_same_configuration(const RunConfig& stored, const RunConfig& config, const std::string& folder) {
  refuse(folder, compare_keys(compared_keys(stored), compared_keys(config)));
}

comm::Fingerprint machine_fingerprint(const ResolvedSettings& resolved) {
  return {{"device", resolved.device_kind},
          {"CPU instruction sets", resolved.instruction_sets},
          {"environment variables that choose kernels", resolved.kernel_environment}};
}

comm::Fingerprint early_fingerprint(const RunConfig& config, const ResolvedSettings& resolved) {
  comm::Fingerprint fields;
  for (const auto& [key, value] : flatten(config)) fields.emplace_back(key, value);
  for (const auto& [key, value] : resolved.base_config) fields.emplace_back("config.json of the base: " + key, value);
  fields.emplace_back("tokenizer (SHA-256)", resolved.tokenizer_hash);
  fields.emplace_back("pad_token_id", std::to_string(resolved.pad_token_id));
  return fields;
}

comm::Fingerprint fingerprint(const std::string& mpi_library, const RunConfig& config,
                              const ResolvedSettings& resolved) {
  comm::Fingerprint fields = {{"neoloom", version_text()}, {"MPI library", mpi_library}};
  if (!config.runtime.allow_mixed_devices) {
    for (auto& field : machine_fingerprint(resolved)) fields.push_back(std::move(field));
  }
  for (auto& field : early_fingerprint(config, resolved)) fields.push_back(std::move(field));
  fields.emplace_back("model weights (SHA-256)", resolved.model_hash);
  fields.emplace_back("training data (SHA-256)", resolved.data_hash);
  for (const auto& [set, hash] : resolved.validation) {
    fields.emplace_back(fmt::format("validation data{} (SHA-256)", set.empty() ? "" : " " + set), hash);
  }
  fields.emplace_back("labels, in the order of their ids", label_text(resolved.labels));
  fields.emplace_back("peft_config.init_from (SHA-256 of its values)", resolved.start_hash);
  fields.emplace_back("compute_dtype", resolved.compute_dtype);
  fields.emplace_back("threads per rank", std::to_string(resolved.threads_per_rank));
  fields.emplace_back("rows of logits held at once", std::to_string(resolved.logits_chunk_rows));
  fields.emplace_back("rows of a micro-batch", std::to_string(resolved.batching.micro_batch_size));
  fields.emplace_back("micro-batches of a step", std::to_string(resolved.batching.micro_batches_per_step));
  fields.emplace_back("tokens of a micro-batch", std::to_string(resolved.batching.max_tokens));
  return fields;
}

}  // namespace neoloom::launch
