// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "data/options.h"
#include "data/store/split.h"
#include "data/token_store.h"
#include "data/tokenizer/tokenizer.h"
#include "launch/config/mistakes.h"
#include "launch/config/run_config.h"
#include "launch/job/labels.h"
#include "launch/job/task_choice.h"
#include "model/checkpoints/adapter_files.h"
#include "model/gpt_neo_config.h"
#include "model/model.h"
#include "runtime/comm/mpi_session.h"
#include "runtime/core/cache.h"

namespace neoloom::launch {

/// Returns the cache in runtime.cache_dir, else $XDG_CACHE_HOME/neoloom, else ~/.cache/neoloom. Its lines go to
/// session.log().
/// Throws: Error(kUsage) when runtime.cache_dir is not set and neither default is an absolute path.
core::Cache cache_directory(comm::MpiSession& session, const RunConfig& config);

/// A run's checkpoint folder.
inline std::string checkpoints_of(const RunConfig& config) { return config.trainer_config.output_dir + "/checkpoints"; }

/// Type of the stored weights: model_config.frozen_dtype, but float32 for full-parameter training.
model::Dtype stored_dtype(const RunConfig& config);

/// Resolves runtime.compute_dtype: `auto` to the frozen dtype, and on a CPU to cpu_compute_dtype() of that.
model::Dtype resolve_compute_dtype(const RunConfig& config, const std::string& device);

/// A model folder and its mapped weights.
struct Base {
  std::string folder;  // of a new model: empty until load_weights has written it
  model::GptNeoConfig config;
  std::vector<std::string> head_labels;  // for training: label of each row of the base's head; empty: no head
  std::string weights_hash;
  std::shared_ptr<const model::Weights> weights;
};

/// Finds the folder and reads config.json, or makes the configuration of a new model. Comes without weights.
/// Throws: Error(kWeights), Error(kUsage).
Base find_base(const RunConfig& config);

/// Files in the cache.
struct WeightFiles {
  std::string converted;  // all weights, in the stored type
  std::string packed;     // copies for this CPU's GEMMs; empty: not used
};

/// Verifies the shared cache files of the weights, and builds them where they are missing or damaged (rank 0 first,
/// then one rank of each other node). `device`: cpu or cuda. Collective: every rank.
/// Throws: Error(kUsage) with runtime.cache_dir when the cache cannot be written or trusted.
WeightFiles prepare_weights(comm::MpiSession& session, const RunConfig& config, const std::string& device, Base& base);

/// The same, then maps the files on every rank and moves the weights to the device. Collective: every rank.
/// Throws: as prepare_weights.
void load_weights(comm::MpiSession& session, const RunConfig& config, const std::string& device, Base& base);

/// The base model's name in an adapter's configuration.
struct BaseReference {
  std::string name;
  std::string revision;  // empty: the default
};

/// Returns the base's name for an adapter to be written: model_config's name and revision. Prefers those of the adapter
/// `read` (init_from, or the exported one) if it names the same base, or a hub id where model_config names a folder.
BaseReference base_reference(const RunConfig& config, const model::AdapterFolder& read);

/// Loads the tokenizer of tokenizer_config, or the model folder's own. Checks it against the model's vocabulary: only
/// special tokens, such as a padding token added later, may have ids without a row in the embedding.
data::Tokenizer load_tokenizer(const RunConfig& config, const Base& base);

/// Lists the special tokens without a row in the embedding, for the log; empty: none.
std::string note_on_vocabulary(const Base& base, const data::Tokenizer& tokenizer);

/// Returns model_config.pad_token_id, else the tokenizer's if the embedding has a row for it, else the model's, else
/// eos.
int64_t resolve_pad_id(const RunConfig& config, const Base& base, const data::Tokenizer& tokenizer);

/// Returns tokenizer_config.max_length. Throws: Error(kUsage) when the model has fewer positions.
int64_t resolve_max_length(const RunConfig& config, const Base& base);

/// Inputs of training, without weights and data.
struct Inputs {
  RunConfig config;
  TaskChoice task;
  Base base;                                          // without weights
  std::optional<model::AdapterFolder> start_adapter;  // peft_config.init_from; nullopt: not set, or missing at a resume
  std::optional<data::Tokenizer> tokenizer;
  int64_t pad_id = 0;
};

/// Fills `inputs` from inputs.config; `name` names the configuration in messages.
/// Throws: Error(kUsage), Error(kWeights), and Error(kCheckpoint) when init_from is missing and no checkpoint is valid.
void read_inputs(const std::string& name, Inputs& inputs);
/// Its two parts. The first settles the task and finds the base, and notes what is wrong with keys for these. Returns
/// whether the task is known.
bool settle_inputs(const std::string& name, Inputs& inputs, Mistakes& found);
void read_files_of_inputs(Inputs& inputs);

/// Returns the files that go beside the weights of a result: the tokenizer's and, with a whole language model, the
/// base's settings of generation.
std::vector<std::string> files_beside_weights(const Inputs& inputs);

/// Returns the initial head of a run with these labels. Throws: Error(kUsage) as start_head.
HeadStart head_to_start_from(const Inputs& inputs, const std::vector<std::string>& labels);

/// Returns the request for the token store of the files.
data::StoreRequest store_request(const RunConfig& config, const TaskChoice& task, const Base& base,
                                 const data::Files& files);

/// Splits the samples of data.train by data.validation_split, seeded by trainer_config's data_seed or seed.
data::Split split_for_validation(const RunConfig& config, const std::shared_ptr<const data::TokenStore>& store);

/// Puts the samples into packs if data.pack says so for the files of `request`.
std::shared_ptr<const data::TokenStore> in_packs(std::shared_ptr<const data::TokenStore> store,
                                                 const data::StoreRequest& request);

/// Splits the samples of data.train if the configuration asks for it; else all of them train and validation is null.
/// Both parts are in packs. Windows train as samples of their own, and validate by row.
data::Split split_in_packs(const RunConfig& config, const std::shared_ptr<const data::TokenStore>& rows,
                           const data::StoreRequest& request);

/// Names the data of a validation set for a message.
std::string validation_name(const RunConfig& config, const std::string& set);

/// Opens a token store on every rank. Before that, rank 0 and then one rank of each other node verify it, and build it
/// when it is missing or damaged. Collective: every rank. Throws: as load_weights.
std::shared_ptr<const data::TokenStore> open_store(comm::MpiSession& session, const data::StoreRequest& request,
                                                   const data::Tokenizer& tokenizer, const core::Cache& cache);

/// Describes a store's invalid rows: "2 of `rows` rows `fate` (the first: line 7: reason)".
std::string unusable_rows(const data::TokenStore& store, int64_t rows, std::string_view fate);

}  // namespace neoloom::launch
