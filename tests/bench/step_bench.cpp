// SPDX-License-Identifier: Apache-2.0
// Times forward and backward of micro-batches and reports the process's peak memory.
//
//   step_bench REQUEST.json         reads one line from stdin per step, answers with its seconds, then the memory
//
// The request: model (folder), cache, frozen, compute, head (single_label | causal_lm), rows, length, threads, lora_r,
// panels (false: plain matrices).
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/randint.h>

#include <chrono>
#include <ctime>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>

#include "model/model.h"
#include "model/pretrained/loader.h"
#include "model/pretrained/panel_file.h"
#include "runtime/core/error.h"
#include "runtime/core/files.h"
#include "runtime/core/process.h"

namespace {

using namespace neoloom;
using nlohmann::json;

/// A line of /proc/self/status in KiB, e.g. VmHWM.
int64_t status_kib(const std::string& key) {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with(key + ":")) return std::stoll(line.substr(key.size() + 1));
  }
  return 0;
}

model::Batch make_batch(const json& request, int64_t vocab, bool causal) {
  const auto rows = request.at("rows").get<int64_t>();
  const auto length = request.at("length").get<int64_t>();
  model::Batch batch;
  batch.ids = at::randint(vocab, {rows, length}, at::detail::createCPUGenerator(1), at::kLong);
  batch.host_lengths.assign(static_cast<size_t>(rows), length);
  batch.lengths = at::empty({rows}, batch.ids.options()).fill_(length);
  for (int64_t row = 0; row < rows; ++row) batch.sample_ids.push_back(row);
  batch.labels = causal ? batch.ids.clone() : batch.lengths.remainder(2);
  return batch;
}

void run(const json& request) {
  at::set_num_threads(request.at("threads"));
  const bool causal = request.at("head") == "causal_lm";
  model::ModelSetup setup;
  setup.config = model::GptNeoConfig::from_file(request.at("model").get<std::string>() + "/config.json");
  setup.head = causal ? model::Head::kCausalLm : model::Head::kSingleLabel;
  setup.num_labels = causal ? 0 : 2;
  setup.compute_dtype = model::dtype_from_name(request.at("compute"));
  setup.lora.emplace();
  setup.lora->r = request.value("lora_r", int64_t{8});
  setup.lora->lora_alpha = 16;
  const std::string converted = model::prepare_weights(
      request.at("model"), setup.config, model::dtype_from_name(request.at("frozen")), request.at("cache"), false);
  const auto weights = model::map_weights(converted, setup.config);
  if (request.value("panels", true)) {
    model::map_panels(model::prepare_panels(converted, setup.config, setup.compute_dtype, false), setup.compute_dtype,
                      *weights);
  }
  const auto model = model::Model::create(setup, weights);
  at::Tensor params = at::empty({model->layout().total_elements}, at::TensorOptions().dtype(at::kFloat));
  at::Tensor grads = at::empty_like(params);
  model->initialize(params, 1);
  const model::Batch batch = make_batch(request, setup.config.vocab_size, causal);
  std::cout << "ready" << std::endl;
  for (std::string line; std::getline(std::cin, line) && line == "step";) {
    const auto begin = std::chrono::steady_clock::now();
    const std::clock_t cpu_begin = std::clock();
    const double loss = model->forward_backward(batch, params, grads, {}, 1.0).loss.item<double>();
    const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - begin;
    const double cpu_seconds = static_cast<double>(std::clock() - cpu_begin) / CLOCKS_PER_SEC;
    std::cout << json{{"seconds", elapsed.count()}, {"cpu_seconds", cpu_seconds}, {"loss", loss}}.dump() << std::endl;
  }
  std::cout << json{{"peak_kib", status_kib("VmHWM")}, {"private_kib", status_kib("RssAnon")}}.dump() << std::endl;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::cerr << "usage: step_bench REQUEST.json\n";
    return 2;
  }
  core::settle_process();
  try {
    run(json::parse(core::read_file(argv[1])));
  } catch (const core::Error& error) {
    std::cerr << error.what() << '\n';
    return error.exit_code();
  }
  return 0;
}
