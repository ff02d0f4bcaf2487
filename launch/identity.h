// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>

#include "launch/config/run_config.h"
#include "runtime/comm/fingerprint.h"
#include "runtime/train/plan.h"

namespace neoloom::launch {

/// What decides the bits of a run beside its configuration; resolved at the first start and kept by resumes.
struct Resolved {
  std::string model_hash;
  std::string tokenizer_hash;
  std::string data_hash;
  std::string device_kind;  // "cpu", or the GPU's name
  std::string compute_dtype;
  std::string instruction_sets;  // CPUs
  int64_t threads_per_rank = 1;
  int64_t logits_chunk_rows = 0;
  train::Batching batching;
  bool gradient_checkpointing = false;  // decides no bits, but a resume wants the memory that the start had
};

/// JSON object stored in checkpoints: the numeric configuration keys and `resolved`.
std::string identity_json(const RunConfig& config, const Resolved& resolved);

/// Takes over what a resume must keep (threads, batching) from a checkpoint's identity into `resolved`, and compares
/// the rest. Returns warnings. `path` names the checkpoint in messages. Throws: Error(kUsage) with every differing key
/// and both values.
std::vector<std::string> adopt_identity(const std::string& path, const std::string& identity, const RunConfig& config,
                                        bool extend, Resolved& resolved);

/// Compares with the configuration an earlier start left in the output folder, where no checkpoint says more.
/// Throws: Error(kUsage) with every differing key.
void require_same_configuration(const RunConfig& stored, const RunConfig& config, const std::string& folder);

/// For comparing the ranks before the first step.
comm::Fingerprint fingerprint(comm::MpiSession& session, const RunConfig& config, const Resolved& resolved);

}  // namespace neoloom::launch
