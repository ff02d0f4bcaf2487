// SPDX-License-Identifier: Apache-2.0
// Measures the parts of a step. Each is checked once against a plain computation of the same thing.
//
//   micro_bench [--threads=N] [--tokenizer=FOLDER --text=FILE] [--benchmark_...]
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Parallel.h>
#include <ATen/ops/randn.h>
#include <fmt/format.h>

#include <memory>
#include <string>
#include <vector>

#include "runtime/core/process.h"
#include "tests/bench/micro/micro.h"

namespace neoloom::bench {

void add_case(Case described) {
  const auto shared = std::make_shared<Case>(std::move(described));
  const auto checked = std::make_shared<bool>(false);
  auto* added = benchmark::RegisterBenchmark(shared->name.c_str(), [shared, checked](benchmark::State& state) {
    if (!*checked) {
      const std::string complaint = shared->check();
      if (!complaint.empty()) {
        state.SkipWithError(complaint.c_str());
        return;
      }
      *checked = true;
    }
    for (auto _ : state) shared->body();
    const auto rate = [](double value) {
      return benchmark::Counter(value, benchmark::Counter::kIsIterationInvariantRate);
    };
    if (shared->operations > 0) state.counters["flops"] = rate(shared->operations);
    if (shared->bytes > 0) state.counters["bytes_per_second"] = rate(shared->bytes);
  });
  added->UseRealTime()->Unit(benchmark::kMicrosecond);
}

std::string difference(const at::Tensor& found, const at::Tensor& expected, double tolerance) {
  const at::Tensor reference = expected.to(at::kDouble);
  const double largest = reference.abs().max().item<double>();
  const double distance = found.to(at::kDouble).sub(reference).abs().max().item<double>();
  if (distance <= tolerance * largest) return {};
  return fmt::format("the result is off by {:.2e} of its largest value, allowed is {:.0e}", distance / largest,
                     tolerance);
}

at::Tensor random_matrix(int64_t rows, int64_t columns, uint64_t seed) {
  return at::randn({rows, columns}, at::detail::createCPUGenerator(seed), at::kFloat);
}

}  // namespace neoloom::bench

int main(int argc, char** argv) {
  neoloom::core::settle_process();
  std::vector<char*> others = {argv[0]};
  std::string tokenizer;
  std::string text;
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    const std::string value = argument.substr(argument.find('=') + 1);
    if (argument.starts_with("--threads=")) {
      at::set_num_threads(std::stoi(value));
    } else if (argument.starts_with("--tokenizer=")) {
      tokenizer = value;
    } else if (argument.starts_with("--text=")) {
      text = value;
    } else {
      others.push_back(argv[i]);
    }
  }
  int count = static_cast<int>(others.size());
  benchmark::Initialize(&count, others.data());
  if (benchmark::ReportUnrecognizedArguments(count, others.data())) return 2;
  neoloom::bench::register_gemms();
  neoloom::bench::register_layers();
  neoloom::bench::register_state();
  if (!tokenizer.empty()) neoloom::bench::register_tokenizer(tokenizer, text);
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return 0;
}
