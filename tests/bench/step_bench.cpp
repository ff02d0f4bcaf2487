// SPDX-License-Identifier: Apache-2.0
// Training steps one at a time, as the trainer takes them: data, forward, backward, exact sum, all-reduce, clipping,
// AdamW, a line of metrics.
//
//   step_bench REQUEST.json     prints "ready"; answers each line "step" with that step's seconds, any other line with
//                               the memory, then ends. Under mpirun every rank takes part and rank 0 speaks.
//
// The request: model (folder), cache, output (folder), head (causal_lm | single_label), frozen, compute, ids (rows of
// equal length), micro_batches, threads, lora_r; gradient_checkpointing may be left out.
#include <ATen/Parallel.h>

#include <ctime>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>

#include "model/model.h"
#include "model/pretrained/loader.h"
#include "model/pretrained/panel_file.h"
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

struct Ended {};  // no error: the other side has seen enough

/// A line of /proc/self/status in KiB, e.g. VmHWM.
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

/// Stops every rank between steps until rank 0 is asked for the next one.
class Turns {
 public:
  explicit Turns(comm::MpiSession& session) : session_(session) {}

  void operator()(int64_t step) {
    if (step == step_) return;  // another micro-batch of the same step
    const double seconds = core::now_seconds() - begin_;
    const double cpu_seconds = static_cast<double>(std::clock() - cpu_begin_) / CLOCKS_PER_SEC;
    const std::string word = session_.on_root([&] {
      if (step_ == 0) {
        std::cout << "ready" << std::endl;
      } else {
        std::cout << json{{"seconds", seconds}, {"cpu_seconds", cpu_seconds}}.dump() << std::endl;
      }
      std::string line;
      std::getline(std::cin, line);
      return line;
    });
    if (word != "step") {
      if (session_.is_root()) std::cout << memory().dump() << std::endl;
      throw Ended();
    }
    step_ = step;
    std::array<int64_t, 1> together = {0};
    session_.all_reduce_max(together);  // the ranks that slept are awake
    cpu_begin_ = std::clock();
    begin_ = core::now_seconds();
  }

 private:
  comm::MpiSession& session_;
  int64_t step_ = 0;
  double begin_ = 0.0;
  std::clock_t cpu_begin_ = 0;
};

std::unique_ptr<model::Model> open_model(comm::MpiSession& session, const json& request, model::Head head) {
  model::ModelSetup setup;
  const std::string folder = request.at("model");
  setup.config = model::GptNeoConfig::from_file(folder + "/config.json");
  setup.head = head;
  setup.num_labels = head == model::Head::kCausalLm ? 0 : 2;
  setup.compute_dtype = model::dtype_from_name(request.at("compute"));
  setup.lora.emplace();
  setup.lora->r = request.at("lora_r");
  setup.lora->lora_alpha = 16;
  setup.gradient_checkpointing = request.value("gradient_checkpointing", false);
  std::string converted;
  std::string panels;
  const auto prepare = [&] {
    converted = model::prepare_weights(folder, setup.config, model::dtype_from_name(request.at("frozen")),
                                       request.at("cache"), false);
    panels = model::prepare_panels(converted, setup.config, setup.compute_dtype, false);
    return std::string();
  };
  session.on_root(prepare);
  prepare();
  const auto weights = model::map_weights(converted, setup.config);
  model::map_panels(panels, setup.compute_dtype, *weights);
  return model::Model::create(setup, weights);
}

void run(comm::MpiSession& session, const json& request) {
  at::set_num_threads(request.at("threads"));
  const bool causal = request.at("head") == "causal_lm";
  const auto model = open_model(session, request, causal ? model::Head::kCausalLm : model::Head::kSingleLabel);
  const auto store =
      std::make_shared<support::FixedStore>(request.at("ids").get<std::vector<std::vector<int32_t>>>(), causal);
  const int64_t micro_batches = request.at("micro_batches");

  train::TrainerSetup setup;
  setup.options.output_dir = request.at("output");
  setup.options.max_steps = int64_t{1} << 40;
  setup.options.logging_steps = 1;
  setup.options.save_strategy = train::Interval::kNo;
  setup.batching = {store->size() / micro_batches, micro_batches};
  setup.train = store;
  setup.task = causal ? data::Task::kCausalLm : data::Task::kSequenceClassification;
  setup.progress = "off";
  setup.run_start = nlohmann::ordered_json::object();
  setup.hooks.stop_requested = [] { return false; };
  setup.hooks.peak_memory_bytes = [] { return int64_t{0}; };
  Turns turns(session);
  setup.hooks.before_micro_batch = [&turns](int64_t step, const std::vector<int64_t>&) { turns(step); };
  comm::Watchdog watchdog(session.rank(), session.host_name());
  setup.watchdog = &watchdog;
  const auto communicator = session.make_host_communicator();
  train::Trainer trainer(session, *communicator, *model, std::move(setup), std::nullopt);
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
