// SPDX-License-Identifier: Apache-2.0
#include "launch/identity.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <string_view>

#include "launch/version.h"
#include "runtime/core/error.h"

namespace neoloom::launch {
namespace {

using core::ErrorKind;
using nlohmann::ordered_json;

// Keys that say where, how often and on what a run works, not what it computes. Paths and names are covered by hashes.
bool is_free(const std::string& key) {
  static constexpr std::array<std::string_view, 19> kFree = {"trainer_config.output_dir",
                                                             "trainer_config.logging_",
                                                             "trainer_config.save_",
                                                             "trainer_config.eval_",
                                                             "trainer_config.load_best_model",
                                                             "trainer_config.metric_for_best",
                                                             "trainer_config.greater_is",
                                                             "trainer_config.gradient_checkpointing",
                                                             "trainer_config.per_device_eval",
                                                             "trainer_config.max_steps",
                                                             "trainer_config.num_train_epochs",
                                                             "runtime.",
                                                             "checkpoint.",
                                                             "logging.",
                                                             "data.",
                                                             "model_config.pretrained_model_name",
                                                             "model_config.revision",
                                                             "tokenizer_config.",
                                                             "peft_config.init_from"};
  return std::any_of(kFree.begin(), kFree.end(), [&](std::string_view prefix) { return key.starts_with(prefix); });
}

ordered_json numeric_keys(const RunConfig& config) {
  ordered_json keys = ordered_json::object();
  for (const auto& [key, value] : flatten(config)) {
    if (!is_free(key)) keys[key] = value;
  }
  return keys;
}

using Differences = std::vector<std::string>;

void compare(const std::string& key, const std::string& before, const std::string& now, Differences& differences) {
  if (before != now) differences.push_back(fmt::format("  {}: was {}, is {}", key, before, now));
}

Differences compare_keys(const ordered_json& before, const ordered_json& now) {
  Differences differences;
  for (const auto& [key, value] : now.items())
    compare(key, before.value(key, "(unset)"), value.get<std::string>(), differences);
  for (const auto& [key, value] : before.items()) {
    if (!now.contains(key)) compare(key, value.get<std::string>(), "(unset)", differences);
  }
  return differences;
}

// The planned length of a run may grow with --extend only: it bends the schedule.
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

}  // namespace

std::string identity_json(const RunConfig& config, const Resolved& resolved) {
  return ordered_json{
      {"config", numeric_keys(config)},
      {"length",
       {{"num_train_epochs", config.trainer_config.num_train_epochs}, {"max_steps", config.trainer_config.max_steps}}},
      {"model", resolved.model_hash},
      {"tokenizer", resolved.tokenizer_hash},
      {"data", resolved.data_hash},
      {"device", resolved.device_kind},
      {"compute_dtype", resolved.compute_dtype},
      {"gradient_sum", config.runtime.gradient_sum},
      {"deterministic", config.runtime.deterministic},
      {"instruction_sets", resolved.instruction_sets},
      {"threads_per_rank", resolved.threads_per_rank},
      {"logits_chunk_rows", resolved.logits_chunk_rows},
      {"gradient_checkpointing", resolved.gradient_checkpointing},
      {"micro_batch_size", resolved.batching.micro_batch_size},
      {"micro_batches_per_step", resolved.batching.micro_batches_per_step}}
      .dump();
}

std::vector<std::string> adopt_identity(const std::string& path, const std::string& identity, const RunConfig& config,
                                        bool extend, Resolved& resolved) {
  const ordered_json before = ordered_json::parse(identity);
  Differences differences = compare_keys(before.at("config"), numeric_keys(config));
  compare_length(before.at("length"), config, extend, differences);
  compare("model weights (SHA-256)", before.at("model"), resolved.model_hash, differences);
  compare("tokenizer (SHA-256)", before.at("tokenizer"), resolved.tokenizer_hash, differences);
  compare("training data and its settings (SHA-256)", before.at("data"), resolved.data_hash, differences);
  compare("runtime.compute_dtype", before.at("compute_dtype"), resolved.compute_dtype, differences);
  compare("runtime.deterministic", fmt::format("{}", before.value("deterministic", true)),
          fmt::format("{}", config.runtime.deterministic), differences);
  compare("runtime.gradient_sum", before.value("gradient_sum", "fixed"), config.runtime.gradient_sum, differences);
  const train::Batching kept{before.at("micro_batch_size"), before.at("micro_batches_per_step")};
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
  for (const auto& [key, now] :
       {std::pair{"device", resolved.device_kind}, {"instruction_sets", resolved.instruction_sets}}) {
    if (before.at(key) == now) continue;
    if (config.runtime.allow_mixed_devices) {
      warnings.push_back(fmt::format("{} was {}, is {}: the bits of this run are no longer promised", key,
                                     before.at(key).get<std::string>(), now));
    } else {
      compare(std::string(key) + " (runtime.allow_mixed_devices: true goes on, without the promise of equal bits)",
              before.at(key), now, differences);
    }
  }
  refuse(path, differences);
  resolved.batching = kept;
  resolved.logits_chunk_rows = kept_rows;
  resolved.gradient_checkpointing = before.value("gradient_checkpointing", false);
  const int64_t threads = before.at("threads_per_rank");
  if (config.runtime.threads_per_rank > 0 && config.runtime.threads_per_rank != threads) {
    warnings.push_back(
        fmt::format("runtime.threads_per_rank changes from {} to {}: the bits of this run change with it", threads,
                    config.runtime.threads_per_rank));
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
  refuse(folder, compare_keys(numeric_keys(stored), numeric_keys(config)));
}

comm::Fingerprint fingerprint(comm::MpiSession& session, const RunConfig& config, const Resolved& resolved) {
  comm::Fingerprint fields = {{"neoloom", version_text()}, {"MPI library", session.library_version()}};
  if (!config.runtime.allow_mixed_devices) {
    fields.emplace_back("device", resolved.device_kind);
    fields.emplace_back("CPU instruction sets", resolved.instruction_sets);
  }
  for (const auto& [key, value] : flatten(config)) fields.emplace_back(key, value);
  fields.emplace_back("model weights (SHA-256)", resolved.model_hash);
  fields.emplace_back("tokenizer (SHA-256)", resolved.tokenizer_hash);
  fields.emplace_back("training data (SHA-256)", resolved.data_hash);
  fields.emplace_back("compute_dtype", resolved.compute_dtype);
  fields.emplace_back("threads per rank", std::to_string(resolved.threads_per_rank));
  fields.emplace_back("rows of logits held at once", std::to_string(resolved.logits_chunk_rows));
  return fields;
}

}  // namespace neoloom::launch
