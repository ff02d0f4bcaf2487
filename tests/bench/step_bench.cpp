// SPDX-License-Identifier: Apache-2.0
// Training steps one at a time, as the trainer takes them: data, forward, backward, exact sum, all-reduce, clipping,
// AdamW, a line of metrics.
//
//   step_bench REQUEST.json     prints "ready"; answers each line "step N" with the seconds of N steps together, any
//                               other line with the memory and, if asked for, the limit of a step, then ends. Under
//                               mpirun every rank takes part and rank 0 speaks.
//
// The request: model (folder), start (PEFT folder), cache, output (folder), head (causal_lm | single_label), frozen,
// compute, ids (rows of equal length), micro_batches, threads, learning_rate; may be left out: device (cpu | cuda),
// cuda_graphs, deterministic, logging_steps, gradient_checkpointing, limit (for a CPU and one rank). On a GPU steps are
// enqueued and their results read a step late, so that the seconds of many steps are those of the device, and those of
// one are not.
#include <ATen/ops/zeros.h>

#include <array>
#include <ctime>
#include <fstream>
#include <functional>
#include <iostream>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "launch/config/run_config.h"
#include "launch/job/device.h"
#include "launch/planning/matmul_rate.h"
#include "launch/planning/memory_budget.h"
#include "launch/planning/step_limit.h"
#include "model/checkpoints/adapter_files.h"
#include "model/cpu/packed_weights.h"
#include "model/cpu_traits.h"
#include "model/memory/memory_plan.h"
#include "model/model.h"
#include "model/weight_cache/packed_weights_file.h"
#include "model/weight_cache/weight_cache.h"
#include "runtime/comm/mpi_session.h"
#include "runtime/core/clock.h"
#include "runtime/core/error.h"
#include "runtime/core/files.h"
#include "runtime/core/process.h"
#include "runtime/train/trainer.h"
#include "tests/support/fixed_store.h"

namespace {

using namespace neoloom;
using nlohmann::json;

struct Ended {};  // no error: the caller has seen enough

/// Returns a line of /proc/self/status in KiB, e.g. VmHWM.
int64_t status_kib(const std::string& key) {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with(key + ":")) return std::stoll(line.substr(key.size() + 1));
  }
  return 0;
}

json memory() {
  return {{"peak_kib", status_kib("VmHWM")}, {"mapped_kib", status_kib("RssFile") + status_kib("RssShmem")}};
}

/// Stops every rank where rank 0 waits to be asked for steps.
class Turns {
 public:
  Turns(comm::MpiSession& session, std::function<json()> memory) : session_(session), memory_(std::move(memory)) {}

  void operator()(int64_t step) {
    if (step == step_) return;  // another micro-batch of the same step
    step_ = step;
    if (step < stop_at_) return;
    const double seconds = core::now_seconds() - begin_;
    const double cpu_seconds = static_cast<double>(std::clock() - cpu_begin_) / CLOCKS_PER_SEC;
    const std::string word = session_.run_on_root([&] {
      if (stop_at_ == 0) {
        std::cout << "ready" << std::endl;
      } else {
        std::cout << json{{"seconds", seconds}, {"cpu_seconds", cpu_seconds}}.dump() << std::endl;
      }
      std::string line;
      std::getline(std::cin, line);
      return line;
    });
    if (!word.starts_with("step ")) {
      if (session_.is_root()) std::cout << memory_().dump() << std::endl;
      throw Ended();
    }
    stop_at_ = step + std::stoll(word.substr(5));
    std::array<int64_t, 1> together = {0};
    session_.all_reduce_max(together);  // the ranks that slept are awake
    cpu_begin_ = std::clock();
    begin_ = core::now_seconds();
  }

 private:
  comm::MpiSession& session_;
  std::function<json()> memory_;
  int64_t step_ = 0;
  int64_t stop_at_ = 0;
  double begin_ = 0.0;
  std::clock_t cpu_begin_ = 0;
};

model::ModelSetup model_setup(const json& request, const launch::Device& device) {
  model::ModelSetup setup;
  setup.config = model::GptNeoConfig::from_file(request.at("model").get<std::string>() + "/config.json");
  setup.head = request.at("head") == "causal_lm" ? model::Head::kCausalLm : model::Head::kSingleLabel;
  setup.num_labels = setup.head == model::Head::kCausalLm ? 0 : 2;
  setup.compute_dtype = model::dtype_from_name(request.at("compute"));
  if (device.is_cpu()) setup.compute_dtype = model::cpu_compute_dtype(setup.compute_dtype);  // as the program does
  setup.lora = model::read_adapter_folder(request.at("start")).lora;
  setup.gradient_checkpointing = request.value("gradient_checkpointing", false);
  setup.device = device.traits();
  return setup;
}

std::unique_ptr<model::Model> open_model(comm::MpiSession& session, const json& request, const launch::Device& device,
                                         const model::ModelSetup& setup) {
  std::string converted;
  std::string packed_weights;
  const core::Cache cache(request.at("cache").get<std::string>());
  const auto prepare = [&] {
    converted = model::prepare_weights(request.at("model"), setup.config, model::dtype_from_name(request.at("frozen")),
                                       cache, false);
    if (device.is_cpu())
      packed_weights = model::prepare_packed_weights(converted, setup.config, setup.compute_dtype, cache, false);
    return std::string();
  };
  session.run_on_root(prepare);
  prepare();
  const std::shared_ptr<model::Weights> weights = model::map_weights(converted, setup.config);
  model::map_packed_weights(packed_weights, setup.compute_dtype, *weights);
  if (device.is_cpu()) return model::Model::create(setup, weights);
  return model::Model::create(setup, model::to_device(weights, device.name(), setup.compute_dtype));
}

model::MemorySetup memory_setup(const json& request, const model::Model& model) {
  model::MemorySetup setup;
  setup.model = model.setup();
  setup.frozen_dtype = model::dtype_from_name(request.at("frozen"));
  setup.packed_weights = !setup.model.device.cuda && model::has_packed_gemm(setup.model.compute_dtype);
  setup.threads = request.at("threads");
  return setup;
}

/// Returns the limit of a step on this CPU, with the rate of each GEMM as measured now.
json limit(const json& request, const model::Model& model, const data::TokenStore& store,
           const train::Batching& batching) {
  constexpr double kSecondsForEach = 0.3;
  const model::MemorySetup setup = memory_setup(request, model);
  json gemms = json::array();
  const auto found =
      launch::micro_step_limit(setup, store, batching.micro_batch_size, [&](const model::StepGemm& gemm) {
        const double rate = gemm.flops() / launch::measure_gemm_seconds(setup, gemm, kSecondsForEach).median;
        gemms.push_back({{"rows", gemm.rows},
                         {"in", gemm.in},
                         {"out", gemm.out},
                         {"backward", gemm.backward},
                         {"count", gemm.count},
                         {"gflops", rate * 1e-9}});
        return std::optional(rate);
      });
  const auto micro_batches = static_cast<double>(batching.micro_batches_per_step);
  return {{"seconds", micro_batches * found->seconds},
          {"flops", micro_batches * found->flops},
          {"mean_gflops", found->flops / found->seconds * 1e-9},
          {"gemms", gemms}};
}

/// Returns what the program's plan says of a rank of this size.
int64_t planned_bytes(const json& request, const model::Model& model, const data::TokenStore& store,
                      const train::Batching& batching) {
  launch::MemoryPlanInput question;
  question.setup = memory_setup(request, model);
  question.flat_elements = model.layout().total_elements;
  question.moment_bytes = 2 * question.flat_elements * static_cast<int64_t>(sizeof(float));
  question.gradient_sum = "fixed";
  question.batching = batching;
  question.train = &store;
  return launch::rank_memory(question, model.setup().gradient_checkpointing).total_bytes;
}

void run(comm::MpiSession& session, const json& request) {
  launch::RunConfig config;
  config.runtime.device = request.value("device", "cpu");
  config.runtime.threads_per_rank = request.at("threads");
  config.runtime.cuda_graphs = request.value("cuda_graphs", true);
  config.runtime.deterministic = request.value("deterministic", true);
  launch::Device device(session, config);
  const model::ModelSetup chosen = model_setup(request, device);
  const auto model = open_model(session, request, device, chosen);
  const bool causal = chosen.head == model::Head::kCausalLm;
  const auto store =
      std::make_shared<support::FixedStore>(request.at("ids").get<std::vector<std::vector<int32_t>>>(), causal);
  const int64_t micro_batches = request.at("micro_batches");

  train::TrainerSetup setup;
  setup.options.output_dir = request.at("output");
  setup.options.max_steps = int64_t{1} << 40;  // the schedule stays where it begins
  setup.options.learning_rate = request.at("learning_rate");
  setup.options.logging_steps = request.value("logging_steps", 1);
  setup.options.save_strategy = train::Interval::kNo;
  const train::Batching batching = {store->size() / micro_batches, micro_batches};
  setup.batching = batching;
  setup.train = store;
  setup.initial_values = at::zeros({model->layout().total_elements}, at::kFloat);
  model::load_adapter_values(request.at("start"), *model, setup.initial_values);
  setup.device = device.name();
  setup.device_step = !device.is_cpu();
  setup.progress = "off";
  setup.run_start = nlohmann::ordered_json::object();
  setup.hooks.stop_requested = [] { return false; };
  setup.hooks.peak_memory_bytes = [&device] { return device.is_cpu() ? 0 : device.peak_memory_bytes(); };
  setup.hooks.device_readback = device.readback();
  setup.hooks.run_micro_step = device.micro_step_runner();
  Turns turns(session, [&] {
    json found = memory();
    if (device.is_cpu()) {
      if (request.value("limit", false)) found["limit"] = limit(request, *model, *store, batching);
      return found;
    }
    found["device_peak_bytes"] = device.peak_memory_bytes();
    found["device_planned_bytes"] = planned_bytes(request, *model, *store, batching);
    return found;
  });
  setup.hooks.before_micro_batch = [&turns](int64_t step, const std::vector<int64_t>&) { turns(step); };
  train::Trainer trainer(session, device.communicator(), *model, std::move(setup), std::nullopt);
  try {
    trainer.run();
  } catch (const Ended&) {
  }
}

}  // namespace

int main(int argc, char** argv) {
  core::settle_process();
  if (argc != 2) {
    std::cerr << "usage: step_bench REQUEST.json\n";
    return 2;
  }
  comm::MpiSession session(&argc, &argv);
  try {
    run(session, json::parse(core::read_file(argv[1])));
  } catch (const core::Error& error) {
    std::cerr << error.what() << '\n';
    if (session.size() > 1) session.abort(error.exit_code());
    return error.exit_code();
  }
  return 0;
}
