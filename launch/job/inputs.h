// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "data/options.h"
#include "data/token_store.h"
#include "data/tokenizer/tokenizer.h"
#include "launch/config/run_config.h"
#include "launch/job/labels.h"
#include "launch/job/task_choice.h"
#include "model/checkpoints/adapter_files.h"
#include "model/gpt_neo_config.h"
#include "model/model.h"
#include "runtime/comm/mpi_session.h"
#include "runtime/core/cache.h"

namespace neoloom::launch {

/// The cache in runtime.cache_dir, else $XDG_CACHE_HOME/neoloom, else ~/.cache/neoloom; its lines go to stderr.
/// Throws: Error(kUsage) when none of them is an absolute path, or runtime.cache_dir.
core::Cache cache_directory(comm::MpiSession& session, const RunConfig& config);

/// The folder of the checkpoints of a run.
inline std::string checkpoints_of(const RunConfig& config) { return config.trainer_config.output_dir + "/checkpoints"; }

/// How weights are stored: model_config.frozen_dtype, but float32 for full-parameter training, which starts from them.
model::Dtype stored_dtype(const RunConfig& config);

/// runtime.compute_dtype with `auto` resolved to the frozen type; on a CPU, what that computes in instead.
model::Dtype resolve_compute_dtype(const RunConfig& config, const std::string& device);

/// A model folder and its mapped weights.
struct Base {
  std::string folder;
  model::GptNeoConfig config;
  std::vector<std::string> head_labels;  // of training: names of the rows of the head that it starts from; empty: none
  std::string weights_hash;
  std::shared_ptr<const model::Weights> weights;
};

/// Folder and config.json only. Throws: Error(kWeights).
Base find_base(const RunConfig& config);

/// Verifies the shared cache files of the weights, and builds them where they are missing or damaged (rank 0 first,
/// then one rank of each other node), maps them on every rank and moves them to the device. Collective: every rank.
/// Throws: Error(kUsage) with runtime.cache_dir when the cache cannot be written or trusted.
void load_weights(comm::MpiSession& session, const RunConfig& config, const std::string& device, Base& base);

/// How an adapter's configuration names its base model.
struct BaseReference {
  std::string name;
  std::string revision;  // empty: the default
};

/// The base as an adapter that is written names it: model_config's name and revision; those of the adapter `read`
/// (init_from, or what is exported) where that names the same base, or a hub id of which a folder was given here.
BaseReference base_reference(const RunConfig& config, const model::AdapterFolder& read);

/// The tokenizer of tokenizer_config, or the model folder's own; checked against the model's vocabulary: only special
/// tokens, such as a padding token that was added later, may have ids that the embedding has no row for.
data::Tokenizer load_tokenizer(const RunConfig& config, const Base& base);

/// For the log: the special tokens without a row in the embedding; empty: none.
std::string note_on_vocabulary(const Base& base, const data::Tokenizer& tokenizer);

/// model_config.pad_token_id, else the tokenizer's when the embedding has it, else the model's, else eos.
int64_t resolve_pad_id(const RunConfig& config, const Base& base, const data::Tokenizer& tokenizer);

/// tokenizer_config.max_length, at most the model's positions. Throws: Error(kUsage) when it is larger.
int64_t resolve_max_length(const RunConfig& config, const Base& base);

/// The small things that training starts from.
struct Inputs {
  RunConfig config;
  TaskChoice task;
  Base base;                                          // without weights
  std::optional<model::AdapterFolder> start_adapter;  // peft_config.init_from; none: not given, or gone before a resume
  std::optional<data::Tokenizer> tokenizer;
  int64_t pad_id = 0;
};

/// Everything of `inputs` from its config; `name` stands for the configuration in messages.
/// Throws: Error(kUsage), Error(kWeights), and Error(kCheckpoint) where init_from is gone and no checkpoint is valid.
void read_inputs(const std::string& name, Inputs& inputs);

/// The head that a run with these labels starts from. Throws: Error(kUsage) as start_head.
HeadStart head_to_start_from(const Inputs& inputs, const std::vector<std::string>& labels);

/// The request for the token store of `path`.
data::StoreRequest store_request(const RunConfig& config, const TaskChoice& task, const Base& base,
                                 const std::string& path);

/// Opens a token store; rank 0 verifies it, and builds it when it is missing or damaged, then one rank of each other
/// node. Collective: every rank. Throws: as load_weights.
std::shared_ptr<const data::TokenStore> open_store(comm::MpiSession& session, const data::StoreRequest& request,
                                                   const data::Tokenizer& tokenizer, const core::Cache& cache);

/// "2 of `rows` rows `fate` (the first: line 7: reason)", of a store with invalid rows.
std::string unusable_rows(const data::TokenStore& store, int64_t rows, std::string_view fate);

}  // namespace neoloom::launch
