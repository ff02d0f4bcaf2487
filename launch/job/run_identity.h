// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "launch/config/run_config.h"
#include "model/gpt_neo_config.h"
#include "runtime/comm/fingerprint.h"
#include "runtime/train/best_model.h"
#include "runtime/train/step_schedule.h"

namespace neoloom::launch {

// Everything that a training run reads and that can change its bits. A resume with another value throws, and so do
// ranks with different values, unless the table says otherwise. The error names the item.
//
// | item                               | read in                        | covered by                                  |
// |------------------------------------|--------------------------------|---------------------------------------------|
// | numeric keys of the configuration  | launch/config                  | each Identity::kCompared (config/schema.h)  |
// | max_steps, num_train_epochs        | launch/config                  | each; may grow with --extend                |
// | config.json of the base            | model/gpt_neo_config           | base_config, each value as parsed           |
// | weights of the base, its score     | model/weight_cache             | model_hash: SHA-256 of the files            |
// | tokenizer, special tokens, added   | data/tokenizer                 | tokenizer_hash: SHA-256 of what makes ids   |
// | training files, columns, encoding, | data/token_store               | data_hash: SHA-256 of bytes and settings,   |
// | max_length, validation_split       |                                | share and seed                              |
// | order of the labels                | data/token_store               | labels                                      |
// | padding                            | config, tokenizer, config.json | pad_token_id, as resolved                   |
// | peft_config.init_from              | model/checkpoints              | start_hash: SHA-256 of its tensor file, on a|
// |                                    |                                | resume where it is still there              |
// | device, instruction sets           | launch/job, launch/system      | each (allow_mixed_devices waives them)      |
// | variables that choose kernels      | environment                    | kernel_environment (waived with them)       |
// | compute dtype, threads, chunks,    | resolved at the first start    | kept by a resume; equal over ranks          |
// | micro-batches                      |                                |                                             |
// | gradient_sum, deterministic        | launch/config                  | each                                        |
// | neoloom, LibTorch, MPI             | the program                    | equal over ranks; a resume with others says |
// |                                    |                                | so and goes on                              |
// | validation file                    | data/token_store               | validation, equal over ranks; a resume      |
// |                                    |                                | may change it: it decides no step, and the  |
// |                                    |                                | best model is bound to it (train/best_model)|
// | evaluations: when, their metric    | launch/config, data/token_store| evaluations, if the learning rate follows   |
// |                                    |                                | them (reduce_lr_on_plateau, greedy)         |
//
// Not covered, because no step depends on it: paths and names, intervals of logging, saving and evaluating, the
// evaluation batch size, generation_config.json, keys of config.json that neoloom does not read.

/// What affects the bits of a run beside its configuration. Resolved at the first start and kept on resume.
struct ResolvedSettings {
  std::string model_hash;
  std::map<std::string, std::string> base_config;  // base_config_values()
  std::string tokenizer_hash;
  std::string data_hash;
  train::ValidationHashes validation;
  std::vector<std::string> labels;
  int64_t pad_token_id = 0;
  std::string start_hash;   // empty: no peft_config.init_from, or it is missing
  std::string device_kind;  // "cpu", or the GPU's name
  std::string compute_dtype;
  std::string instruction_sets;    // CPUs
  std::string kernel_environment;  // kernel_environment()
  int64_t threads_per_rank = 1;
  int64_t logits_chunk_rows = 0;
  train::Batching batching;
  bool gradient_checkpointing = false;  // does not change bits, but a resume must use as much memory
};

/// Returns the values of a base's config.json that affect numbers, as text by key. Ignores formatting and unknown keys.
std::map<std::string, std::string> base_config_values(const model::GptNeoConfig& base);

/// Compares base_config_values() of the base on which an adapter was trained with those of the base that is loaded now.
/// Throws: Error(kWeights) with every value that differs; `where` names the loaded base.
void require_same_base(const std::map<std::string, std::string>& trained, const model::GptNeoConfig& base,
                       const std::string& where);

/// Returns "NAME=value" of each environment variable that is set and affects the choice of kernels in MKL, oneDNN,
/// OpenMP or cuBLAS.
std::string kernel_environment();

/// Returns the hash of the initial values in peft_config.init_from; empty: not set, or no such file.
std::string start_hash(const RunConfig& config);

/// Returns which evaluations decide the learning rate, by which metric, of which data; empty: none does.
std::string evaluations_that_decide(const RunConfig& config, const ResolvedSettings& resolved);

/// JSON object stored in checkpoints: the numeric configuration keys and `resolved`.
std::string identity_json(const RunConfig& config, const ResolvedSettings& resolved);

/// Copies what a resume must keep (threads, batching) from a checkpoint's identity to `resolved`, and compares the
/// rest. Skips items that an older neoloom did not store. Returns warnings. `path` names the checkpoint in messages.
/// Throws: Error(kUsage) with every differing key and both values.
std::vector<std::string> adopt_identity(const std::string& path, const std::string& identity, const RunConfig& config,
                                        bool extend, ResolvedSettings& resolved);

/// Compares with the configuration that an earlier start left in the output folder, when there is no checkpoint.
/// Throws: Error(kUsage) with every differing key.
void require_same_configuration(const RunConfig& stored, const RunConfig& config, const std::string& folder);

/// What ranks must share of their machines, unless runtime.allow_mixed_devices is true.
comm::Fingerprint machine_fingerprint(const ResolvedSettings& resolved);

/// Fingerprint for comparing ranks once each has read its small files: configuration, config.json, tokenizer.
comm::Fingerprint early_fingerprint(const RunConfig& config, const ResolvedSettings& resolved);

/// Fingerprint of all items, for comparing ranks before the first step.
comm::Fingerprint fingerprint(const std::string& mpi_library, const RunConfig& config,
                              const ResolvedSettings& resolved);

}  // namespace neoloom::launch
