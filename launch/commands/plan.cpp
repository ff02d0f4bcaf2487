// SPDX-License-Identifier: Apache-2.0
#include "launch/commands/plan.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "data/batching/step_list.h"
#include "data/hygiene.h"
#include "launch/job/data_checks.h"
#include "launch/job/labels.h"
#include "launch/job/run_folder.h"
#include "launch/planning/memory_budget.h"
#include "launch/planning/scratch_folder.h"
#include "launch/planning/step_limit.h"
#include "launch/system/placement.h"
#include "model/lora/trainable_count.h"
#include "runtime/core/error.h"
#include "runtime/core/output.h"
#include "runtime/metrics/text_width.h"
#include "runtime/train/gradient_sum.h"
#include "runtime/train/step_schedule.h"
#include "runtime/train/token_budget.h"

namespace neoloom::launch {
namespace {

constexpr int64_t kGpusOfAMachine = 8;  // of a planned one

/// Prints lines of a name and a value.
class Report {
 public:
  void line(const char* name, const std::string& value) { output_.print("{:<24}{}\n", name, value); }
  void text(const std::string& text) { output_.write(text); }
  void flush() { output_.flush(); }
  void finish() { output_.finish(); }

 private:
  core::Output output_;
};

void print_lengths(const data::TokenStore& store, Report& report) {
  report.line("samples", fmt::format("{} ({} rows left out, {} cut)", store.size(), store.invalid_rows().size(),
                                     store.truncated_samples()));
  const auto lengths = store.lengths();
  report.line("tokens", std::to_string(std::accumulate(lengths.begin(), lengths.end(), int64_t{0})));
}

void print_labels(const data::TokenStore& store, core::Task task, Report& report) {
  if (task == core::Task::kRegression) return report.line("values", value_summary(store));
  const std::vector<std::string>& names = store.label_names();
  const std::vector<int64_t> counts = data::label_counts(store, task);
  report.line("labels", std::to_string(names.size()));
  for (size_t k = 0; k < names.size(); ++k) {
    const auto width = static_cast<size_t>(40.0 * static_cast<double>(counts[k]) / static_cast<double>(store.size()));
    report.text(fmt::format("  {:<20} {:>8}  {}\n", names[k], counts[k], std::string(width, '#')));
  }
  if (const std::string text = label_warning(names, counts); !text.empty()) report.line("warning", text);
}

/// Prints what training would warn of, and refuses what it would refuse.
void print_hygiene(const Inputs& inputs, const data::TokenStore& store,
                   const std::vector<train::ValidationSet>& validation, Report& report) {
  const auto warn = [&](const std::string& text) { report.line("warning", text); };
  for (const std::string& text : target_warnings(inputs, store, validation)) warn(text);
  for (const data::Finding& finding : findings(inputs, store, validation)) {
    finding.warning ? warn(finding.name + ": " + finding.text) : report.line(finding.name.c_str(), finding.text);
  }
}

int64_t threads_of_a_rank(const RunConfig& config, const PlanRequest& request) {
  if (config.runtime.threads_per_rank > 0) return config.runtime.threads_per_rank;
  return std::max<int64_t>(1, request.cores / request.ranks_per_node);
}

/// Holds the plan of the run beside its data. Everything that is printed follows from it.
struct RunPlan {
  train::Batching batching;
  train::StepSchedule steps;
  model::TrainableCount trainable;
  double micro_batches = 0.0;              // of a step, on average
  std::optional<train::BudgetUse> budget;  // of max_tokens_per_micro_batch
  std::string waste;                       // what train would warn of
};

RunPlan plan_steps(const Inputs& inputs, const data::TokenStore& store, int64_t ranks) {
  const RunConfig& config = inputs.config;
  const int64_t labels = inputs.task.classifies() ? static_cast<int64_t>(store.label_names().size()) : 0;
  RunPlan plan;
  plan.trainable = model::count_trainable(inputs.base.config, config.peft_config, labels);
  plan.batching = train::resolve_batching(config.trainer_config, config.runtime, static_cast<int>(ranks));
  const int64_t steps_per_epoch =
      data::steps_per_epoch(store.packs(), train::step_list_options(config.trainer_config, plan.batching));
  plan.micro_batches = static_cast<double>(plan.batching.micro_batches_per_step);
  plan.waste = train::idle_ranks_warning(plan.batching, store.packs(), ranks);
  if (plan.batching.max_tokens > 0) {
    plan.budget = train::measure_budget_use(store, config.trainer_config, plan.batching);
    plan.micro_batches = plan.budget->micro_batches;
    plan.waste = train::warning_of(*plan.budget, ranks);
  }
  plan.steps = train::resolve_schedule(config.trainer_config, steps_per_epoch);
  return plan;
}

void print_machines(const RunConfig& config, const PlanRequest& request, Report& report) {
  const StatedDevice& device = request.device;
  const int64_t each = request.ranks_per_node;
  const int64_t machines = (request.ranks + each - 1) / each;
  report.line("machines", fmt::format("{}, {}, with {} rank{} each (--ranks_per_node changes this)", machines,
                                      device.gpu ? "with a GPU for each rank"
                                                 : fmt::format("assumed to be like this one ({} cores)", request.cores),
                                      each, each == 1 ? "" : "s"));
  const int64_t threads = threads_of_a_rank(config, request);
  if (!device.gpu && each * threads > request.cores) {
    report.line("warning",
                fmt::format("{} ranks of {} thread{} need {} cores, and this machine has {}: times are those "
                            "of ranks with cores of their own",
                            each, threads, threads == 1 ? "" : "s", each * threads, request.cores));
  }
  if (device.sheet != nullptr) {
    report.line("device",
                fmt::format("{} ({}): {} GB, {} GB/s, {} TFLOP/s in fp32 and {} in bf16 and fp16, as its data "
                            "sheet states",
                            device.sheet->name, device.sheet->product, device.sheet->memory_gb,
                            device.sheet->gigabytes_per_s, device.sheet->fp32_tflops, device.sheet->half_tflops));
  }
}

/// `rows`: what a batch counts.
void print_steps(const Inputs& inputs, const RunPlan& plan, const PlanRequest& request, const char* rows,
                 Report& report) {
  const int64_t ranks = request.ranks;
  const int64_t parameters = inputs.base.config.body_parameters();
  const train::Batching& batching = plan.batching;
  report.line("trainable parameters",
              fmt::format("{} ({:.3f} %)", plan.trainable.parameters,
                          100.0 * static_cast<double>(plan.trainable.parameters) / static_cast<double>(parameters)));
  const std::string micro_batches =
      plan.budget ? train::describe(*plan.budget)
                  : fmt::format("{} micro-batches of {}", batching.micro_batches_per_step, batching.micro_batch_size);
  report.line("global batch", fmt::format("{} {}: {}, on {} rank{}", batching.global_batch_size(), rows, micro_batches,
                                          ranks, ranks == 1 ? "" : "s"));
  if (!plan.waste.empty()) report.line("warning", plan.waste);
  if (request.planned) print_machines(inputs.config, request, report);
  report.line("steps", fmt::format("{} ({} per epoch, {} of warm-up)", plan.steps.total_steps,
                                   plan.steps.steps_per_epoch, plan.steps.warmup_steps));
  if (const std::string text = train::eval_delay_warning(plan.steps); !text.empty()) report.line("warning", text);
  if (inputs.base.config.attention_dropout > 0.0) {
    report.line("attention_dropout",
                fmt::format("{}: attention computes whole matrices of scores, on GPUs without flash attention and CUDA "
                            "graphs; steps of long samples take longer than this plan says",
                            inputs.base.config.attention_dropout));
  }
  report.line("bytes per all-reduce", std::to_string(train::gradient_sum_bytes(inputs.config.runtime.gradient_sum,
                                                                               plan.trainable.flat_elements)));
}

/// Says how large a micro-batch could be on this device.
void print_largest(const MemoryPlanInput& question, bool checkpointing, int64_t budget_bytes, Report& report) {
  const bool by_tokens = question.batching.max_tokens > 0;
  const bool packs = !question.train->pack_begins().empty();
  const int64_t all = by_tokens ? 0 : question.train->packs();
  const auto count = [&](bool recomputes) {
    const int64_t largest = largest_micro_batch(question, recomputes, budget_bytes);
    return largest == all ? fmt::format("all {}", all) : std::to_string(largest);
  };
  report.line("largest micro-batch",
              fmt::format("{} {} fit in the budget{}", count(checkpointing),
                          by_tokens ? "tokens"
                          : packs   ? "packs"
                                    : "samples",
                          checkpointing ? ", with gradient checkpointing"
                                        : fmt::format("; {} with gradient checkpointing", count(true))));
}

model::DeviceTraits traits_of(const RunConfig& config, const PlanRequest& request) {
  model::DeviceTraits traits = planned_device(config);
  if (!request.planned) return traits;
  traits.cuda = request.device.gpu;
  if (request.device.sheet != nullptr) {
    traits.capability_major = request.device.sheet->capability_major;
    traits.capability_minor = request.device.sheet->capability_minor;
  } else if (traits.cuda) {
    traits.capability_major = 8;
  }
  return traits;
}

/// Returns whether backward would recompute blocks.
bool print_memory(const Inputs& inputs, const MemoryPlanInput& question, const PlanRequest& request, Report& report) {
  const bool gpu = question.setup.model.device.cuda;
  const double stated_gb = request.device.memory_gb;
  const auto stated_bytes = static_cast<int64_t>(1e9 * stated_gb);
  MemoryBudget budget =
      measure_budget(inputs.config, {gpu, gpu ? stated_bytes : 0, gpu ? 0 : stated_bytes}, question.ranks_per_node);
  MemoryPlanInput whole = question;
  whole.process_bytes = budget.process_bytes;
  const MemoryDecision decision =
      decide_memory(whole, inputs.config.trainer_config.gradient_checkpointing, budget.bytes);
  const std::string share = stated_gb == 0.0 ? "a rank's share of the memory that is free here now"
                            : gpu            ? fmt::format("80 % of {} GB", stated_gb)
                                             : fmt::format("a rank's share of 80 % of {} GB", stated_gb);
  const std::string limit = budget.bytes == 0 ? ""
                                              : fmt::format(", budget {}{}", metrics::memory_text(budget.bytes),
                                                            budget.chosen ? "" : ", " + share);
  report.line("memory of a rank",
              fmt::format("{}{}; gradient checkpointing {}", metrics::memory_text(decision.memory.total_bytes), limit,
                          decision.gradient_checkpointing ? "on" : "off"));
  report.text(describe(decision.memory, whole));
  if (!decision.fits) {
    report.flush();
    const std::string problem = does_not_fit(whole, decision, budget.bytes);
    core::require(!budget.chosen && stated_gb == 0.0, core::ErrorKind::kDevice, "{}", problem);
    report.line("here", "too large: " + problem);
  } else if (request.planned && budget.bytes > 0) {
    print_largest(whole, decision.gradient_checkpointing, budget.bytes, report);
  }
  return decision.gradient_checkpointing;
}

std::optional<MicroStepTime> micro_step_time(const MemoryPlanInput& question, int64_t rows,
                                             const PlanRequest& request) {
  const bool gpu = question.setup.model.device.cuda;
  if (!gpu) return cpu_micro_step(question.setup, *question.train, rows, request.device, *request.rates);
  if (request.device.sheet == nullptr && request.device.gflops == 0.0) return std::nullopt;
  return gpu_micro_step(question.setup, *question.train, rows, request.device);
}

/// The steps of a run at some number of ranks, in seconds.
struct StepTimes {
  double gemms = 0.0, rest = 0.0, all_reduce = 0.0;
  double run = 0.0;           // all steps
  double tokens_per_s = 0.0;  // of all ranks
  double step() const { return gemms + rest + all_reduce; }
};

StepTimes step_times(const Inputs& inputs, const RunPlan& plan, const MicroStepTime& micro, int64_t ranks,
                     const data::TokenStore& store, const Network& network) {
  // The rank with the most micro-batches sets the pace. A step has no more of them than the data fill.
  const double filled =
      std::ceil(static_cast<double>(store.packs()) / static_cast<double>(train::mean_rows(store, plan.batching)));
  const double most = std::ceil(std::min(plan.micro_batches, filled) / static_cast<double>(ranks));
  StepTimes times;
  times.gemms = most * micro.gemm_seconds;
  times.rest = most * micro.rest_seconds;
  times.all_reduce = all_reduce_seconds(
      train::gradient_sum_bytes(inputs.config.runtime.gradient_sum, plan.trainable.flat_elements), ranks, network);
  times.run = times.step() * static_cast<double>(plan.steps.total_steps);
  times.tokens_per_s = tokens_of_epochs(store, plan.steps.epoch_after(plan.steps.total_steps)) / times.run;
  return times;
}

/// Prints the parts of a step, where they come from, and the run at several numbers of ranks.
void print_steps_times(const Inputs& inputs, const MemoryPlanInput& question, const MicroStepTime& micro,
                       const PlanRequest& request, Report& report) {
  const data::TokenStore& store = *question.train;
  const auto at = [&](int64_t ranks) {
    const RunPlan plan = plan_steps(inputs, store, ranks);
    return std::pair(plan, step_times(inputs, plan, micro, ranks, store, request.network));
  };
  const StepTimes asked = at(request.ranks).second;
  if (question.setup.model.device.cuda) {
    report.line("expected time",
                fmt::format("{} for all steps, at {:.0f} tokens/s", readable_seconds(asked.run), asked.tokens_per_s));
  }
  const auto ms = [](double seconds) {
    const double value = 1e3 * seconds;
    return fmt::format("{:.{}f}", value, value < 1.0 ? 4 : value < 100.0 ? 2 : 0);
  };
  report.line("expected step", fmt::format("{} ms: GEMMs {}, everything else {}, all-reduce {}", ms(asked.step()),
                                           ms(asked.gemms), ms(asked.rest), ms(asked.all_reduce)));
  report.line("  GEMMs", micro.gemm_source);
  report.line("  everything else", micro.rest_source);
  report.line("  all-reduce", fmt::format("stated: links of {} Gbit/s with {} us (--link_gbps, --latency_us); not "
                                          "hidden behind backward, and ranks of one machine are often nearer",
                                          request.network.link_gbps, request.network.latency_us));
  report.line("other ranks", "the same micro-batches; evaluations, checkpoints and the start come on top");
  report.text(fmt::format("  {:>5}  {:>7}  {:>7}  {:>10}  {:>10}  {:>10}  {:>10}  {:>10}  {:>8}\n", "ranks", "batch",
                          "steps", "step ms", "GEMMs", "else", "all-reduce", "tokens/s", "run"));
  for (const int64_t ranks : std::set<int64_t>{1, 8, 64, 512, request.ranks}) {
    const auto [plan, times] = at(ranks);
    report.text(fmt::format("  {:>5}  {:>7}  {:>7}  {:>10}  {:>10}  {:>10}  {:>10}  {:>10.0f}  {:>8}\n", ranks,
                            plan.batching.global_batch_size(), plan.steps.total_steps, ms(times.step()),
                            ms(times.gemms), ms(times.rest), ms(times.all_reduce), times.tokens_per_s,
                            readable_seconds(times.run)));
  }
}

/// Prints how long the run takes: on CPUs at least the time of the GEMMs of all steps at rates measured before.
void print_time(const Inputs& inputs, const MemoryPlanInput& question, const RunPlan& plan, const PlanRequest& request,
                Report& report) {
  const bool gpu = question.setup.model.device.cuda;
  const data::TokenStore& store = *question.train;
  const int64_t rows = train::mean_rows(store, plan.batching);
  core::require(!request.measures || !gpu, core::ErrorKind::kUsage,
                "--measure: {}; set runtime.device to cpu to plan a run on CPUs", kNoGpuRates);
  if (request.measures) measure_rates(question.setup, store, rows, *request.rates);
  const std::optional<MicroStepTime> micro = micro_step_time(question, rows, request);
  if (!micro) {
    const std::string advice = gpu ? fmt::format("{}; --device NAME states them: {}", kNoGpuRates, device_names())
                                   : std::string(kHowToMeasure);
    return report.line("expected time", fmt::format("unknown ({})", advice));
  }
  if (!gpu) {
    const double most = std::ceil(plan.micro_batches / static_cast<double>(request.ranks));
    const double step_seconds = most * micro->gemm_seconds;
    const double step_tokens = plan.micro_batches * micro->tokens;
    const double tokens = tokens_of_epochs(store, plan.steps.epoch_after(plan.steps.total_steps));
    report.line("expected time",
                fmt::format("more than {}: GEMMs take {:.1f} ms of a step, which allows {:.0f} tokens/s",
                            readable_seconds(tokens / step_tokens * step_seconds), 1e3 * step_seconds,
                            step_tokens / step_seconds));
    report.line("GEMM rates", micro->gemm_source);
  }
  print_steps_times(inputs, question, *micro, request, report);
}

}  // namespace

void print_plan(const Inputs& inputs, const PlanRequest& request) {
  const RunConfig& config = inputs.config;
  const TaskChoice& task = inputs.task;
  const ScratchFolder scratch;
  const auto open = [&](const std::string& name, const data::Files& files, const std::vector<std::string>* labels) {
    data::StoreRequest asked = store_request(config, task, inputs.base, files);
    if (labels != nullptr && task.classifies()) asked.label_names = *labels;
    const std::string file = fmt::format("{}/{}.h5", scratch.path(), name);
    data::TokenStore::build(asked, *inputs.tokenizer, file, request.show);
    return data::TokenStore::open(file);
  };
  const auto asked_for = [&](const data::Files& files) { return store_request(config, task, inputs.base, files); };
  const auto rows = open("train", config.data.train, nullptr);
  const data::Split parts = split_in_packs(config, rows, asked_for(config.data.train));
  const std::shared_ptr<const data::TokenStore>& store = parts.train;
  std::vector<train::ValidationSet> validation;
  if (parts.validation) validation.push_back({"", parts.validation});
  for (const auto& [name, files] : config.data.validation) {
    validation.push_back({name, in_packs(open("validation-" + name, files, &rows->label_names()), asked_for(files))});
  }
  if (task.classifies()) head_to_start_from(inputs, store->label_names());  // refuses other labels
  const RunPlan plan = plan_steps(inputs, *store, request.ranks);

  Report report;
  report.line("model", fmt::format("{} ({} parameters)", inputs.base.folder.empty() ? "new" : inputs.base.folder,
                                   inputs.base.config.body_parameters()));
  report.line("task", fmt::format("{} ({})", task.classifies() ? task.problem_type_name() : "causal_lm", task.reason));
  if (!task.advice.empty()) report.line("", task.advice);
  print_lengths(*rows, report);
  if (config.data.validation_split > 0)
    report.line("", fmt::format("{} of them validate (data.validation_split)", validation.front().store->size()));
  if (task.classifies()) print_labels(*store, task.value, report);
  for (const data::Finding& fact : sample_facts(inputs, *store)) report.line(fact.name.c_str(), fact.text);
  print_hygiene(inputs, *store, validation, report);
  print_steps(inputs, plan, request, store->pack_begins().empty() ? "samples" : "packs", report);
  MemoryPlanInput question =
      memory_plan_input(config, task, inputs.base, *store, validation, traits_of(config, request));
  question.batching = plan.batching;
  question.ranks = request.ranks;
  question.ranks_per_node = request.ranks_per_node;
  question.setup.threads = threads_of_a_rank(config, request);
  question.setup.model.gradient_checkpointing = print_memory(inputs, question, request, report);
  if (request.rates != nullptr) print_time(inputs, question, plan, request, report);
  report.finish();
}

int run_plan(comm::MpiSession& session, const PlanArguments& arguments) {
  const Placement here = assign_devices(session, "cpu", /*threads_option=*/0);
  const auto phase = session.phase("planning");
  session.run_on_root([&]() -> std::string {
    Inputs inputs;
    inputs.config = read_config(arguments.config, arguments.overrides);
    keep_joined(inputs.config);
    for (const std::string& warning : inputs.config.warnings) session.log().warning(warning);
    read_inputs(arguments.config.text(), inputs);
    const StatedDevice device =
        stated_device(arguments.device, arguments.gflops, arguments.memory_gb, planned_device(inputs.config).cuda);
    const int64_t cores = int64_t{here.threads} * session.local_size();
    const int64_t room =
        device.gpu ? kGpusOfAMachine
                   : std::max<int64_t>(1, cores / std::max<int64_t>(1, inputs.config.runtime.threads_per_rank));
    const int64_t per_node = arguments.ranks_per_node > 0 ? arguments.ranks_per_node : std::min(arguments.ranks, room);
    core::require(per_node <= arguments.ranks, core::ErrorKind::kUsage, "--ranks_per_node {} is more than --ranks {}",
                  per_node, arguments.ranks);
    GemmRates rates(cache_directory(session, inputs.config));
    if (arguments.measure)
      session.log().info("measuring the GEMMs of this configuration: about half a second for each shape");
    print_plan(inputs, {.ranks = arguments.ranks,
                        .ranks_per_node = per_node,
                        .cores = cores,
                        .planned = true,
                        .rates = &rates,
                        .measures = arguments.measure,
                        .device = device,
                        .network = {arguments.link_gbps, arguments.latency_us},
                        .show = cache_directory(session, inputs.config).show});
    return "";
  });
  return 0;
}

}  // namespace neoloom::launch
