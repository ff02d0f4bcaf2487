// SPDX-License-Identifier: Apache-2.0
#include "launch/job/inputs.h"

#include <algorithm>
#include <array>
#include <filesystem>

#include "data/store/labels.h"
#include "data/store/packs.h"
#include "data/store/windows.h"
#include "launch/job/hub.h"
#include "launch/job/new_model.h"
#include "launch/job/shown_progress.h"
#include "launch/job/trainer_checkpoint.h"
#include "model/checkpoints/adapter_files.h"
#include "model/checkpoints/hub.h"
#include "model/checkpoints/weight_files.h"
#include "model/cpu_traits.h"
#include "model/lora/target_modules.h"
#include "model/weight_cache/packed_weights_file.h"
#include "model/weight_cache/weight_cache.h"
#include "runtime/checkpoint/directory.h"
#include "runtime/core/environment.h"
#include "runtime/core/error.h"
#include "runtime/core/json.h"
#include "runtime/core/text.h"

namespace neoloom::launch {
namespace {

using core::ErrorKind;

// Verifies a shared cache file, or builds it: rank 0 first, then one rank of each other node. Their file system may be
// another one, and their page cache certainly is.
template <typename Build>
void build_where_missing(comm::MpiSession& session, const core::Cache& cache, const std::string& what,
                         const Build& build) {
  const auto phase = session.phase(what, comm::MpiSession::kBuilding);
  const auto build_or_say_where = [&] {
    try {
      build();
    } catch (const core::WriteError& error) {
      core::fail(ErrorKind::kUsage,
                 "{}; this is the cache ({}): make it writable, "
                 "make room there, or set runtime.cache_dir to another folder",
                 error.what(), cache.directory);
    }
  };
  session.run_on_root([&]() -> std::string {
    build_or_say_where();
    return "";
  });
  session.run_on_all_or_fail([&] {
    if (session.local_rank() == 0 && !session.is_root()) build_or_say_where();
  });
  session.sleeping_barrier();
}

std::string start_folder(const RunConfig& config) { return config.peft_config ? config.peft_config->init_from : ""; }

// Reads the adapter to start from. A run that has checkpoints resumes from these instead, so that adapter may be gone.
std::optional<model::AdapterFolder> read_start_adapter(const RunConfig& config) {
  const std::string folder = start_folder(config);
  if (folder.empty()) return std::nullopt;
  std::error_code ignored;
  if (!std::filesystem::exists(folder, ignored) && !checkpoint::Directory(checkpoints_of(config)).list().empty()) {
    return std::nullopt;
  }
  return model::read_adapter_folder(folder);
}

// Tells of folders of transformers' Trainer that the run starts from. A run that has checkpoints starts from these.
void note_trainer_checkpoints(Inputs& inputs) {
  const std::string checkpoints = checkpoints_of(inputs.config);
  std::error_code ignored;  // what is wrong with output_dir is told where the run locks it
  if (std::filesystem::is_directory(checkpoints, ignored) && !checkpoint::Directory(checkpoints).list().empty()) return;
  for (const std::string& folder : {start_folder(inputs.config), inputs.base.folder}) {
    const std::string note = note_on_trainer_checkpoint(folder);
    if (!note.empty()) inputs.config.warnings.push_back(note);
  }
}

// Puts the dropouts of model_config into the base's config.json, as from_pretrained(resid_dropout=...) does.
void override_dropouts(const model::Options& ours, const std::string& name, model::GptNeoConfig& config) {
  auto json = core::parse_json<nlohmann::ordered_json>(config.json, name, ErrorKind::kWeights);
  bool changed = false;
  for (const auto& [key, value] : {std::pair{"embed_dropout", ours.embed_dropout},
                                   {"resid_dropout", ours.resid_dropout},
                                   {"attention_dropout", ours.attention_dropout}}) {
    if (!value) continue;
    json[key] = *value;
    changed = true;
  }
  if (changed) config = model::GptNeoConfig::from_text(name, json.dump(2) + "\n");
}

void check_dropouts(const Base& base) {
  const model::GptNeoConfig& config = base.config;
  core::require(config.embed_dropout < 1.0 && config.resid_dropout < 1.0 && config.attention_dropout < 1.0,
                ErrorKind::kUsage,
                "{}/config.json: embed_dropout {}, resid_dropout {}, attention_dropout {}: nothing is left to train "
                "on; expected numbers below 1, or other values in model_config",
                base.folder, config.embed_dropout, config.resid_dropout, config.attention_dropout);
}

std::vector<std::string> labels_of_newest_checkpoint(const RunConfig& config) {
  const auto newest = checkpoint::Directory(checkpoints_of(config)).newest_valid([](const auto&, const auto&) {});
  return newest ? core::parse_json(newest->state.label_map, newest->entry.path, ErrorKind::kCheckpoint)
                      .get<std::vector<std::string>>()
                : std::vector<std::string>{};
}

void check_pad_id(const RunConfig& config, const Base& base) {
  const int64_t id = config.model_config.pad_token_id.value_or(0);
  core::require(id >= 0 && id < base.config.vocab_size, ErrorKind::kUsage,
                "model_config.pad_token_id {} is outside the vocabulary of {} entries", id, base.config.vocab_size);
}

// Returns the names of the rows of the head that training starts from: the adapter's to go on from, or the base's.
std::vector<std::string> starting_labels(const Inputs& inputs) {
  const std::vector<std::string>& base = inputs.base.config.labels;
  if (const std::string from = start_folder(inputs.config); !from.empty()) {
    if (!inputs.start_adapter) return labels_of_newest_checkpoint(inputs.config);
    const model::AdapterFolder& adapter = *inputs.start_adapter;
    if (adapter.score_rows == 0) return {};
    return name_head_rows(from, adapter.score_rows, adapter.labels, base, {}).names;
  }
  const int64_t rows = inputs.base.folder.empty() ? 0 : model::stored_head_rows(inputs.base.folder);
  if (rows == 0) return {};
  return static_cast<int64_t>(base.size()) == rows ? base : data::default_label_names(rows);
}

}  // namespace

core::Cache cache_directory(comm::MpiSession& session, const RunConfig& config) {
  const std::string& chosen = config.runtime.cache_dir;
  const std::string home = core::environment("HOME");
  const std::string xdg = core::environment("XDG_CACHE_HOME");
  std::string folder = home + "/.cache/neoloom";
  if (!chosen.empty()) {
    folder = chosen.starts_with("~/") ? home + chosen.substr(1) : chosen;
  } else if (xdg.starts_with("/")) {  // its specification says to ignore a relative one
    folder = xdg + "/neoloom";
  } else {
    core::require(home.starts_with("/"), ErrorKind::kUsage,
                  "no cache directory: HOME is \"{}\"; set runtime.cache_dir, "
                  "or XDG_CACHE_HOME or HOME to an absolute path",
                  home);
  }
  core::Cache cache(folder);
  cache.trusts_everybody = config.runtime.trust_cache;
  cache.say = [&session](const std::string& line) { session.log().info(line); };
  cache.show = [&session, progress = config.logging.progress](const std::string& what, const std::string& unit) {
    return shown_progress(session, progress, what, unit);
  };
  return cache;
}

model::Dtype stored_dtype(const RunConfig& config) {
  return config.peft_config ? config.model_config.frozen_dtype : model::Dtype::kFloat32;
}

model::Dtype resolve_compute_dtype(const RunConfig& config, const std::string& device) {
  const std::string& chosen = config.runtime.compute_dtype;
  const model::Dtype wanted = chosen == "auto" ? config.model_config.frozen_dtype : model::dtype_from_name(chosen);
  return device == "cpu" ? model::cpu_compute_dtype(wanted) : wanted;
}

Base find_base(const RunConfig& config) {
  Base base;
  if (is_new_model(config.model_config)) {
    base.config = new_model_config(config.model_config, data::Tokenizer::from_folder(tokenizer_folder(config)));
    return base;
  }
  core::require(!config.model_config.pretrained_model_name.empty(), ErrorKind::kUsage,
                "model_config.pretrained_model_name is missing: a folder, or a hub id; or leave it out on purpose and "
                "give the shape of a new model (model_config.hidden_size, num_layers, num_heads)");
  base.folder = model::resolve_model_folder(config.model_config.pretrained_model_name, config.model_config.revision);
  base.config = model::GptNeoConfig::from_file(base.folder + "/config.json");
  override_dropouts(config.model_config, base.folder + "/config.json", base.config);
  return base;
}

WeightFiles prepare_weights(comm::MpiSession& session, const RunConfig& config, const std::string& device, Base& base) {
  core::Cache cache = cache_directory(session, config);
  WeightFiles files;
  const auto prepare = [&](bool verify) {
    if (is_new_model(config.model_config)) {
      base.folder = new_model_folder(base.config, static_cast<uint64_t>(config.trainer_config.seed), cache);
    }
    files.converted = model::prepare_weights(base.folder, base.config, stored_dtype(config), cache, verify);
    if (config.peft_config && device == "cpu") {
      files.packed = model::prepare_packed_weights(files.converted, base.config, resolve_compute_dtype(config, device),
                                                   cache, verify);
    }
  };
  build_where_missing(session, cache, "converting weights",
                      [&] { prepare(config.runtime.verify_weights == "always"); });
  cache.verified = true;
  session.run_on_all_or_fail([&] {
    if (files.converted.empty()) prepare(/*verify=*/false);
  });
  return files;
}

void load_weights(comm::MpiSession& session, const RunConfig& config, const std::string& device, Base& base) {
  const WeightFiles files = prepare_weights(session, config, device, base);
  core::Cache cache = cache_directory(session, config);
  cache.verified = true;
  const model::Dtype compute_dtype = resolve_compute_dtype(config, device);
  const auto phase = session.phase("loading weights");
  session.run_on_all_or_fail([&] {
    base.weights_hash = model::weights_hash(base.folder, cache, /*verify_always=*/false);
    const std::shared_ptr<model::Weights> weights = model::map_weights(files.converted, base.config);
    model::map_packed_weights(files.packed, compute_dtype, *weights);
    // Without adapters training starts from the weights, so they keep the source's values.
    base.weights = device == "cpu"
                       ? weights
                       : model::to_device(weights, device, config.peft_config ? compute_dtype : stored_dtype(config),
                                          core::begin_work(cache.show, "loading weights", "blocks"));
  });
}

data::Tokenizer load_tokenizer(const RunConfig& config, const Base& base) {
  const std::string folder = tokenizer_folder(config);
  data::Tokenizer tokenizer = data::Tokenizer::from_folder(folder.empty() ? base.folder : folder);
  for (int64_t id = base.config.vocab_size; id < tokenizer.vocab_size(); ++id) {
    const std::array<int32_t, 1> one = {static_cast<int32_t>(id)};
    core::require(tokenizer.decode(one, /*skip_special_tokens=*/true).empty(), ErrorKind::kWeights,
                  "the tokenizer of {} has ids up to {} ({} is {}), but the model's embedding has {} rows: use the "
                  "model's own tokenizer, or resize the embedding (transformers: model.resize_token_embeddings)",
                  folder.empty() ? base.folder : folder, tokenizer.vocab_size() - 1, id,
                  core::quoted(tokenizer.token_bytes(one[0])), base.config.vocab_size);
  }
  return tokenizer;
}

std::string note_on_vocabulary(const Base& base, const data::Tokenizer& tokenizer) {
  const int64_t rows = base.config.vocab_size;
  if (tokenizer.vocab_size() <= rows) return "";
  return fmt::format(
      "{} (id {}) has no row in the model's embedding of {} rows: "
      "padding does not need it, and a text that contains it is refused",
      core::quoted(tokenizer.token_bytes(static_cast<int32_t>(rows))), rows, rows);
}

BaseReference base_reference(const RunConfig& config, const model::AdapterFolder& read) {
  const model::Options& ours = config.model_config;
  BaseReference reference{ours.pretrained_model_name, ours.revision == "main" ? "" : ours.revision};
  const std::string& theirs = read.base_model_name_or_path;
  std::error_code ignored;
  const bool same = theirs == ours.pretrained_model_name;
  const bool copy_of_hub_model = std::filesystem::is_directory(ours.pretrained_model_name, ignored) &&
                                 !theirs.empty() && !model::is_local_path(theirs) &&
                                 !std::filesystem::exists(theirs, ignored);
  if (same || copy_of_hub_model) {
    reference.name = theirs;
    if (!read.revision.empty()) reference.revision = read.revision;
  }
  return reference;
}

int64_t resolve_pad_id(const RunConfig& config, const Base& base, const data::Tokenizer& tokenizer) {
  check_pad_id(config, base);
  if (config.model_config.pad_token_id) return *config.model_config.pad_token_id;
  const int64_t pad = tokenizer.pad_token_id();
  if (pad >= 0 && pad < base.config.vocab_size) return pad;
  if (base.config.pad_token_id >= 0) return base.config.pad_token_id;
  return std::clamp<int64_t>(base.config.eos_token_id, 0, base.config.vocab_size - 1);
}

int64_t resolve_max_length(const RunConfig& config, const Base& base) {
  const int64_t asked = config.tokenizer_config.max_length;
  core::require(asked <= base.config.max_position_embeddings, ErrorKind::kUsage,
                "tokenizer_config.max_length {} is larger than the model's max_position_embeddings {}", asked,
                base.config.max_position_embeddings);
  return asked > 0 ? asked : base.config.max_position_embeddings;
}

void read_inputs(const std::string& name, Inputs& inputs) {
  Mistakes found(inputs.config.places);
  settle_inputs(name, inputs, found);
  found.refuse_any(name);
  read_files_of_inputs(inputs);
}

bool settle_inputs(const std::string& name, Inputs& inputs, Mistakes& found) {
  const RunConfig& config = inputs.config;
  bool has_task = false, has_base = false;
  if (found.require(!config.data.train.empty(), "{}: data.train is missing: the file to train on", name)) {
    found.attempt([&] {
      inputs.task = choose_training_task(inputs.config);
      has_task = true;
    });
  }
  found.attempt([&] {
    inputs.base = find_base(config);
    has_base = true;
  });
  if (!has_base) return has_task;
  found.attempt([&] { check_dropouts(inputs.base); });
  found.attempt([&] { resolve_max_length(config, inputs.base); });
  found.attempt([&] { check_pad_id(config, inputs.base); });
  if (!config.peft_config) return has_task;
  found.attempt([&] {
    for (const std::string& text : model::mismatches(*config.peft_config, inputs.base.config.num_layers)) {
      found.note(text);
    }
  });
  found.attempt([&] { model::require_tokens(*config.peft_config, inputs.base.config); });
  return has_task;
}

void read_files_of_inputs(Inputs& inputs) {
  inputs.start_adapter = read_start_adapter(inputs.config);
  note_trainer_checkpoints(inputs);
  if (inputs.task.classifies()) inputs.base.head_labels = starting_labels(inputs);
  inputs.tokenizer.emplace(load_tokenizer(inputs.config, inputs.base));
  inputs.pad_id = resolve_pad_id(inputs.config, inputs.base, *inputs.tokenizer);
}

std::vector<std::string> files_beside_weights(const Inputs& inputs) {
  std::vector<std::string> files = inputs.tokenizer->files();
  const std::string generation = inputs.base.folder + "/generation_config.json";
  if (!inputs.config.peft_config && !inputs.task.classifies() && std::filesystem::exists(generation))
    files.push_back(generation);
  return files;
}

HeadStart head_to_start_from(const Inputs& inputs, const std::vector<std::string>& labels) {
  const RunConfig& config = inputs.config;
  if (!start_folder(config).empty()) return {};  // it brings a head of its own
  std::vector<std::string> base = inputs.base.head_labels;
  if (!base.empty() && !config.data.label_names.empty() && base.size() == labels.size() &&
      base == data::default_label_names(static_cast<int64_t>(base.size()))) {
    base = config.data.label_names;  // the names that the base lacks
  }
  return start_head(inputs.base.folder, base, labels, config.model_config.ignore_mismatched_sizes);
}

data::StoreRequest store_request(const RunConfig& config, const TaskChoice& task, const Base& base,
                                 const data::Files& files) {
  data::StoreRequest request;
  request.files = files;
  request.options = config.data;
  request.tokenizer_options = config.tokenizer_config;
  request.task = task.value;
  request.max_length_tokens = resolve_max_length(config, base);
  request.loss_on_prompt = !config.trainer_config.completion_only_loss;
  request.preferred_label_names = base.head_labels;
  request.embedding_rows = base.config.vocab_size;
  if (!config.data.label_names.empty()) request.label_names = config.data.label_names;
  if (config.model_config.num_labels) request.num_labels = *config.model_config.num_labels;
  return request;
}

data::Split split_for_validation(const RunConfig& config, const std::shared_ptr<const data::TokenStore>& store) {
  const train::Options& trainer = config.trainer_config;
  return data::split_store(store, config.data.validation_split, trainer.data_seed.value_or(trainer.seed));
}

std::shared_ptr<const data::TokenStore> in_packs(std::shared_ptr<const data::TokenStore> store,
                                                 const data::StoreRequest& request) {
  return data::uses_packs(request) ? data::pack_samples(std::move(store), request.max_length_tokens) : store;
}

data::Split split_in_packs(const RunConfig& config, const std::shared_ptr<const data::TokenStore>& rows,
                           const data::StoreRequest& request) {
  const auto for_training = [&](const std::shared_ptr<const data::TokenStore>& part) {
    const bool windows = request.tokenizer_options.return_overflowing_tokens;
    return windows ? data::windows_apart(part) : in_packs(part, request);
  };
  if (config.data.validation_split == 0) return {for_training(rows), nullptr};
  const data::Split parts = split_for_validation(config, rows);
  return {for_training(parts.train), in_packs(parts.validation, request)};
}

std::string validation_name(const RunConfig& config, const std::string& set) {
  for (const auto& [name, files] : config.data.validation) {
    if (name == set) return files.text();
  }
  return "the validation split of " + config.data.train.text();
}

std::shared_ptr<const data::TokenStore> open_store(comm::MpiSession& session, const data::StoreRequest& request,
                                                   const data::Tokenizer& tokenizer, const core::Cache& cache) {
  std::string path;
  build_where_missing(session, cache, "building the token store", [&] {
    path = data::TokenStore::path_for(request, tokenizer, cache);
    if (data::TokenStore::is_whole(path, cache)) return;
    data::TokenStore::build(request, tokenizer, path, cache.show);
  });
  std::shared_ptr<const data::TokenStore> store;
  const auto phase = session.phase("opening the token store");
  session.broadcast_on_host(path);  // the input was hashed once per host
  session.run_on_all_or_fail([&] { store = data::TokenStore::open(path); });
  return store;
}

std::string unusable_rows(const data::TokenStore& store, int64_t rows, std::string_view fate) {
  const data::InvalidRow& first = store.invalid_rows().front();
  return fmt::format("{} of {} rows {} (the first: line {}: {})", store.invalid_row_count(), rows, fate, first.line,
                     first.reason);
}

}  // namespace neoloom::launch
