// SPDX-License-Identifier: Apache-2.0
#include "launch/commands/train.h"

#include <ATen/ops/zeros.h>
#include <fmt/ranges.h>

#include <filesystem>
#include <thread>

#include "launch/commands/plan.h"
#include "launch/commands/report.h"
#include "launch/commands/train_start.h"
#include "launch/config/run_config.h"
#include "launch/job/data_checks.h"
#include "launch/job/device.h"
#include "launch/job/hub.h"
#include "launch/job/initial_values.h"
#include "launch/job/inputs.h"
#include "launch/job/labels.h"
#include "launch/job/model_card.h"
#include "launch/job/run_folder.h"
#include "launch/job/run_identity.h"
#include "launch/job/test_hooks.h"
#include "launch/job/training_job.h"
#include "launch/planning/memory_budget.h"
#include "launch/planning/step_limit.h"
#include "launch/system/cpu_info.h"
#include "launch/system/slurm.h"
#include "launch/version.h"
#include "model/checkpoints/adapter_files.h"
#include "model/lora/adapter_norms.h"
#include "model/lora/target_modules.h"
#include "model/weight_cache/weight_cache.h"
#include "runtime/checkpoint/directory.h"
#include "runtime/comm/collective_error.h"
#include "runtime/comm/fingerprint.h"
#include "runtime/comm/launcher.h"
#include "runtime/comm/signals.h"
#include "runtime/core/error.h"
#include "runtime/core/files.h"
#include "runtime/core/output.h"
#include "runtime/train/trainer.h"

namespace neoloom::launch {
namespace {

using core::ErrorKind;
using nlohmann::ordered_json;

constexpr int64_t kFullTrainingLimit = 500'000'000;  // parameters, above which model_config.train_all is needed

// Looks at the data once: those of a resumed run are the same.
void inspect_data(comm::MpiSession& session, TrainingJob& s) {
  const auto phase = session.phase("inspecting the data");
  session.run_on_root([&]() -> std::string {
    s.findings = findings(s, *s.train, s.validation);
    return "";
  });
}

model::ModelSetup model_setup(const TrainingJob& s, const Device& device) {
  model::ModelSetup setup;
  setup.config = s.base.config;
  setup.head = s.task.value;
  setup.num_labels = s.task.classifies() ? static_cast<int64_t>(s.labels.size()) : 0;
  setup.lora = s.config.peft_config;
  setup.compute_dtype = model::dtype_from_name(s.resolved.compute_dtype);
  setup.logits_chunk_rows = s.resolved.logits_chunk_rows;
  setup.label_smoothing = s.config.trainer_config.label_smoothing_factor;
  setup.neftune_noise_alpha = s.config.trainer_config.neftune_noise_alpha;
  setup.gradient_checkpointing = s.resolved.gradient_checkpointing;
  setup.device = device.traits();
  return setup;
}

int64_t logits_chunk_rows(const RunConfig& config, const Device& device) {
  model::ModelSetup setup;
  setup.logits_chunk_rows = config.runtime.logits_chunk_rows;
  setup.device = device.traits();
  return model::logits_chunk_rows(setup);
}

MemoryPlanInput memory_question(const comm::MpiSession& session, const TrainingJob& s, const Device& device) {
  MemoryPlanInput question = memory_plan_input(s.config, s.task, s.base, *s.train, s.validation, device.traits());
  question.setup.threads = s.resolved.threads_per_rank;
  question.setup.model.logits_chunk_rows = s.resolved.logits_chunk_rows;
  question.batching = s.resolved.batching;
  question.ranks = session.size();
  question.ranks_per_node = session.local_size();
  return question;
}

// Decides whether backward recomputes blocks: compares the plan of the largest micro-batch with the memory that ranks
// may take.
MemoryNote settle_memory(comm::MpiSession& session, TrainingJob& s, const Device& device, const MemoryBudget& budget) {
  return resolve_memory(session, s.config, memory_question(session, s, device), budget, s.resolved);
}

// Returns what this rank's GEMMs need at least, at rates that `plan --measure` has measured. Measures nothing.
train::StepLimit step_limit(comm::MpiSession& session, const TrainingJob& s, const Device& device) {
  train::StepLimit limit;
  limit.advice = device.is_cpu() ? kHowToMeasure : kNoGpuRates;
  if (!device.is_cpu()) return limit;
  core::Cache cache = cache_directory(session, s.config);
  if (!session.is_root()) cache.say = nullptr;
  const GemmRates rates(cache);
  if (rates.empty()) return limit;
  MemoryPlanInput question = memory_question(session, s, device);
  question.setup.model.gradient_checkpointing = s.resolved.gradient_checkpointing;
  if (const auto known = known_limit(question.setup, *s.train, train::mean_rows(*s.train, question.batching), rates)) {
    limit.seconds_per_token = known->seconds_per_token();
    limit.rates = known->rates;
  }
  return limit;
}

void require_reasonable_size(const TrainingJob& s) {
  if (s.config.peft_config) return;
  const int64_t parameters = s.base.config.body_parameters();
  core::require(parameters <= kFullTrainingLimit || s.config.model_config.train_all, ErrorKind::kUsage,
                "without peft_config all {} parameters are trained ({} GB of training state per rank): "
                "add peft_config for LoRA, or set model_config.train_all: true",
                parameters, parameters * 28 / 1'000'000'000);
}

void require_ranks(const comm::MpiSession& session, int64_t expected) {
  if (expected == 0 || expected == session.size()) return;
  throw comm::CollectiveError(ErrorKind::kUsage,
                              fmt::format("--expect_ranks is {}, but this job has {} rank{}: check how it was started",
                                          expected, session.size(), session.size() == 1 ? "" : "s"));
}

// Refuses a folder with a result but no checkpoint: the run would start over and overwrite that result.
void require_nothing_to_lose(const TrainingJob& s) {
  const std::string& folder = s.config.trainer_config.output_dir;
  const std::string result = result_of(folder);
  core::require(result.empty(), ErrorKind::kUsage,
                "{} is a result, but {} holds no checkpoint to resume from: starting over would overwrite it. "
                "Choose another trainer_config.output_dir, or move or delete the folder",
                result, folder);
}

// Looks for a checkpoint. Adopts its settings that decide bits, or refuses an output folder of another configuration.
std::optional<train::Resumed> find_resume(comm::MpiSession& session, TrainingJob& s, const TrainArguments& arguments) {
  const auto phase = session.phase("looking for a checkpoint");
  session.run_on_all_or_fail([&] {
    core::require(arguments.resume != "none" || checkpoint::Directory(s.checkpoints()).list().empty(),
                  ErrorKind::kUsage,
                  "{} holds checkpoints, and --resume none would mix two runs in it: "
                  "choose another trainer_config.output_dir, or delete the folder",
                  s.checkpoints());
  });
  std::optional<train::Resumed> resumed = train::load_for_all(session, s.checkpoints(), arguments.resume);
  session.run_on_all_or_fail([&] {
    if (resumed) {
      try {
        for (std::string& warning :
             adopt_identity(resumed->path, resumed->state.identity, s.config, s.config.checkpoint.extend, s.resolved)) {
          s.config.warnings.push_back(std::move(warning));
        }
      } catch (const nlohmann::json::exception& error) {
        core::fail(ErrorKind::kCheckpoint, "{}: its run identity cannot be read: {}", resumed->path, error.what());
      }
      return;
    }
    require_nothing_to_lose(s);
    const std::string stored = s.config.trainer_config.output_dir + "/config.yaml";
    if (std::filesystem::exists(stored)) {
      require_same_configuration(read_config(stored, {}), s.config, s.config.trainer_config.output_dir);
    }
  });
  return resumed;
}

// Puts the rows of init_from's head into the order of this run's labels, by name.
void order_head_of_adapter(const TrainingJob& s, const model::AdapterFolder& adapter, const model::Model& model,
                           at::Tensor& values) {
  if (!s.task.classifies()) return;
  const std::string& from = s.config.peft_config->init_from;
  std::vector<std::string> names = adapter.labels;
  if (!rows_by_name(names, s.labels)) {
    names = name_head_rows(from, adapter.score_rows, names, s.base.config.labels, s.config.data.label_names).names;
  }
  const std::optional<std::vector<int64_t>> rows = rows_by_name(names, s.labels);
  core::require(rows.has_value(), ErrorKind::kUsage,
                "peft_config.init_from: {} has the labels [{}], but this run has [{}]; "
                "correct the labels, or list the adapter's in data.label_names",
                from, fmt::join(names, ", "), fmt::join(s.labels, ", "));
  reorder_head(model, *rows, values);
}

// Returns the values of the adapter peft_config.init_from, which must compute the same function here as where it was
// made. Undefined without the key.
at::Tensor values_to_start_from(const TrainingJob& s, const model::Model& model) {
  if (!s.start_adapter) return {};
  const model::LoraOptions& ours = *s.config.peft_config;
  const model::AdapterFolder& theirs = *s.start_adapter;
  core::require(!theirs.lora.init_lora_weights.splits_weights(), ErrorKind::kUsage,
                "peft_config.init_from: {} belongs to base weights that its init_lora_weights, {}, changed; make a "
                "plain LoRA of it first: neoloom export --model {} --adapter {} --output FOLDER",
                ours.init_from, model::init_name(theirs.lora.init_lora_weights), s.base.folder, ours.init_from);
  core::require(theirs.lora.lora_alpha == ours.lora_alpha && theirs.lora.use_rslora == ours.use_rslora,
                ErrorKind::kUsage,
                "peft_config.init_from: {} was made with lora_alpha {} and use_rslora {}, but this run has {} and {}; "
                "set them to the adapter's values",
                ours.init_from, theirs.lora.lora_alpha, theirs.lora.use_rslora, ours.lora_alpha, ours.use_rslora);
  core::require(theirs.lora.trainable_token_indices == ours.trainable_token_indices, ErrorKind::kUsage,
                "peft_config.init_from: {} was made with trainable_token_indices [{}], but this run has [{}]; set them "
                "to the adapter's values, in its order",
                ours.init_from, fmt::join(theirs.lora.trainable_token_indices, ", "),
                fmt::join(ours.trainable_token_indices, ", "));
  model::LoraOptions taken = ours;
  model::take_embedding(ours.init_from, s.base.config, *s.base.weights, taken);
  core::require(taken.trainable_token_indices == ours.trainable_token_indices, ErrorKind::kUsage,
                "peft_config.init_from: {} brings an embedding of its own, in which rows of {} tokens are not the "
                "base's; make one base of both first: neoloom export --model {} --adapter {} --format merged --output "
                "FOLDER",
                ours.init_from, taken.trainable_token_indices.size() - ours.trainable_token_indices.size(),
                s.base.folder, ours.init_from);
  at::Tensor values = at::zeros({model.layout().total_elements}, at::kFloat);
  model::load_adapter_values(ours.init_from, model, values);
  const int64_t blocks = s.base.config.num_layers;
  core::require(model::adapter_map(theirs.lora, blocks) == model::adapter_map(ours, blocks), ErrorKind::kUsage,
                "peft_config.init_from: {} was made with another lora_alpha for some modules; "
                "set peft_config.alpha_pattern to the adapter's",
                ours.init_from);
  order_head_of_adapter(s, theirs, model, values);
  return values;
}

train::TrainerSetup trainer_setup(comm::MpiSession& session, const TrainingJob& s, Device& device,
                                  const model::Model& model, const comm::StopSignal& stop) {
  train::TrainerSetup setup;
  setup.options = s.config.trainer_config;
  setup.runtime = s.config.runtime;
  setup.batching = s.resolved.batching;
  setup.train = s.train;
  setup.validation = s.validation;
  setup.class_weights = s.class_weights;
  setup.pad_id = s.pad_id;
  setup.device = device.name();
  setup.device_step = !device.is_cpu() || device_step_from_environment();
  if (model.setup().compute_dtype == model::Dtype::kFloat16) setup.initial_loss_scale = train::LossScale::kLargest;
  setup.result_folder = result_folder(s.config);
  setup.config_yaml = to_yaml(s.config);
  setup.config_file = run_config_text(s.config);
  setup.label_map_json = nlohmann::json(s.labels).dump();
  setup.progress = s.config.logging.progress;
  setup.run_start = {
      {"task", s.task.name()},
      {"task_reason", s.task.reason},
      {"labels", s.labels},
      {"class_weights", s.class_weights},
      {"frozen_parameters", s.config.peft_config ? s.base.config.body_parameters() : 0},
      {"frozen_dtype", model::dtype_name(stored_dtype(s.config))},
      {"compute_dtype", s.resolved.compute_dtype},
      {"threads_per_rank", s.resolved.threads_per_rank},
      {"gradient_checkpointing", s.resolved.gradient_checkpointing},
      {"device", s.resolved.device_kind},
      {"instruction_sets", s.resolved.instruction_sets},
      {"attention", model.kernels()},
      {"communicator", device.communicator().description()},
      {"versions", {{"neoloom", version()}, {"libraries", version_text()}, {"mpi", session.library_version()}}}};
  setup.run_start.update(slurm_ids());
  setup.hooks.stop_requested = [&stop] { return stop.requested(); };
  setup.hooks.identity = [&s](const train::Batching& batching) {
    ResolvedSettings resolved = s.resolved;
    resolved.batching = batching;
    return identity_json(s.config, resolved);
  };
  setup.hooks.write_adapter = [&s, &model](const at::Tensor& params, const std::string& folder, int64_t step,
                                           const nlohmann::json& evaluation, const std::string& calibration) {
    const CardFacts facts{s.config,        s.task, s.labels, s.reference, s.config.peft_config.has_value(),
                          s.train->size(), step};
    model::write_adapter_folder(folder, model, params, s.reference.name,
                                {s.labels, s.task.problem_type_name(), s.pad_id, s.reference.revision,
                                 model_card(facts, evaluation), calibration},
                                files_beside_weights(s));
  };
  if (s.config.peft_config) {
    setup.hooks.histograms = [&model](const at::Tensor& params) -> nlohmann::ordered_json {
      const model::AdapterNorms norms = model::adapter_norms(model, params);
      return {{"adapter/norm_A", norms.a}, {"adapter/norm_B", norms.b}, {"adapter/norm_update", norms.update}};
    };
  }
  setup.hooks.decode = [&s](std::span<const int32_t> ids) {
    constexpr size_t kShownTokens = 100;
    const std::string text =
        s.tokenizer->decode(ids.first(std::min(ids.size(), kShownTokens)), /*skip_special_tokens=*/true);
    return ids.size() > kShownTokens ? text + "..." : text;
  };
  setup.hooks.run_ended = [&s] { return write_report_of(s.config.trainer_config.output_dir); };
  setup.hooks.peak_memory_bytes = [&device] { return device.peak_memory_bytes(); };
  setup.hooks.device_readback = device.readback();
  setup.hooks.run_micro_step = device.micro_step_runner();
  const auto forbid_waits = [&device, steps = 0](bool begins) mutable {
    device.forbid_waits(begins && steps > 0);
    steps += begins ? 0 : 1;
  };
  if (waits_are_forbidden()) setup.hooks.enqueues_step = forbid_waits;
  setup.hooks.before_micro_batch = micro_batch_hook_from_environment(session.rank());
  return setup;
}

}  // namespace

void require_one_world() {
  const int64_t tasks = comm::slurm_step_tasks();
  core::require(comm::started_by_launcher() || tasks <= 1, ErrorKind::kUsage,
                "srun started {} tasks, but they are not ranks of one job: each would train the same run by itself. "
                "Use srun --mpi=pmix, or mpirun inside the allocation (cluster/slurm/train.sbatch)",
                tasks);
}

int run_train(comm::MpiSession& session, const TrainArguments& arguments) {
  require_ranks(session, arguments.expect_ranks);
  TrainingJob s;
  const auto phase = session.phase("start-up");
  session.run_on_all_or_fail([&] {
    s.config = read_config(arguments.config, arguments.overrides);
    if (!arguments.level.empty()) s.config.logging.level = arguments.level;
    s.config.checkpoint.extend |= arguments.extend;
    session.log().set_level(core::log_level_from_name(s.config.logging.level));
    session.set_peer_timeout(static_cast<double>(s.config.runtime.peer_timeout_seconds));
  });
  keep_joined(session, s.config);
  if (session.is_root() && (arguments.print_config || arguments.dry_run)) {
    for (const std::string& warning : s.config.warnings) session.log().warning(warning);
  }
  if (arguments.print_config) {
    session.run_on_root([&]() -> std::string {
      core::print_output(to_yaml(s.config));
      return "";
    });
    return 0;
  }
  if (!arguments.dry_run) fetch_from_hub(session, s.config);
  session.run_on_all_or_fail([&] { read_everything_small(arguments.config.text(), s); });
  if (arguments.dry_run) {
    session.run_on_root([&]() -> std::string {
      print_plan(s, {.ranks = session.size(),
                     .ranks_per_node = session.local_size(),
                     .cores = static_cast<int64_t>(std::thread::hardware_concurrency()),
                     .show = cache_directory(session, s.config).show});
      return "";
    });
    return 0;
  }
  const comm::StopSignal stop;  // from here on: a request during set-up stops the run after its first step
  // Comes before the ranks do anything together: with unlike configurations they would wait for each other in different
  // calls.
  comm::require_equal_fingerprints(session, early_fingerprint(s.config, s.resolved));
  const std::unique_ptr<checkpoint::RunLock> lock = lock_run_folder(session, s.config.trainer_config.output_dir);
  Device device(session, s.config);
  session.run_on_all_or_fail([&] {
    require_reasonable_size(s);
    s.resolved.device_kind = device.kind();
    s.resolved.compute_dtype = model::dtype_name(resolve_compute_dtype(s.config, device.name()));
    s.resolved.instruction_sets = instruction_sets();
    s.resolved.threads_per_rank = device.threads();
    s.resolved.batching = train::resolve_batching(s.config.trainer_config, s.config.runtime, session.size());
    s.resolved.logits_chunk_rows = logits_chunk_rows(s.config, device);
  });
  open_stores(session, s);
  MemoryBudget budget;
  session.run_on_all_or_fail([&] {
    s.untrained = target_warnings(s, *s.train, s.validation);
    budget = measure_budget(s.config, {!device.is_cpu(), device.free_memory_bytes()}, session.local_size());
  });
  load_weights(session, s.config, device.name(), s.base);
  if (s.task.classifies()) s.base.weights = model::with_score_rows(s.base.weights, s.head.rows);
  s.resolved.model_hash = s.base.weights_hash;
  s.resolved.data_hash = s.train->content_hash();
  s.resolved.validation = train::hashes_of(s.validation);
  s.resolved.labels = s.labels;

  std::optional<train::Resumed> resumed = find_resume(session, s, arguments);
  set_threads(s.resolved.threads_per_rank);
  comm::require_equal_fingerprints(session, fingerprint(session.library_version(), s.config, s.resolved));
  const MemoryNote memory = settle_memory(session, s, device, budget);
  // Refuses what can be refused before config.yaml is written to the output folder.
  std::unique_ptr<model::Model> model;
  at::Tensor first_values;
  session.run_on_all_or_fail([&] {
    model = model::Model::create(model_setup(s, device), s.base.weights);
    if (!resumed) first_values = values_to_start_from(s, *model);
  });
  if (!resumed && !first_values.defined()) {
    first_values = initial_values(session, *model, static_cast<uint64_t>(s.config.trainer_config.seed));
  }
  if (!resumed) inspect_data(session, s);
  train::StepLimit limit;
  session.run_on_all_or_fail([&] { limit = step_limit(session, s, device); });
  if (session.is_root()) {
    print_start({s, device, *model, limit, session.size(), resumed ? resumed->state.step : 0}, session.log());
    memory.remarkable ? session.log().info(memory.text) : session.log().detail(memory.text);
  }
  if (!resumed) {  // the trainer of a resume writes it
    session.run_on_root([&]() -> std::string {
      core::publish_file(s.config.trainer_config.output_dir + "/config.yaml", run_config_text(s.config),
                         ErrorKind::kUsage);
      return "";
    });
  }

  train::TrainerSetup setup = trainer_setup(session, s, device, *model, stop);
  setup.initial_values = first_values;
  setup.limit = limit;
  train::Trainer trainer(session, device.communicator(), *model, std::move(setup), resumed);
  resumed.reset();  // the trainer holds its values
  return trainer.run() == train::RunStatus::kStopped ? core::kExitStopped : 0;
}

}  // namespace neoloom::launch
