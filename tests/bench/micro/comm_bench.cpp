// SPDX-License-Identifier: Apache-2.0
// Measures the all-reduce of gradient buffers between ranks:
//
//   mpirun -np 2 comm_bench [--benchmark_...]     rank 0 reports
//
// Numbers of iterations are fixed, so that every rank makes the same calls.
#include <benchmark/benchmark.h>
#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <vector>

#include "runtime/comm/mpi_session.h"
#include "runtime/core/process.h"

namespace {

using neoloom::comm::Communicator;
using neoloom::comm::Element;
using neoloom::comm::MpiSession;

constexpr int kIterations = 100;

class Silence : public benchmark::BenchmarkReporter {
 public:
  bool ReportContext(const Context&) override { return true; }
  void ReportRuns(const std::vector<Run>&) override {}
};

template <typename T>
void all_reduce(benchmark::State& state, const MpiSession& session, Communicator& communicator, Element element,
                size_t n) {
  std::vector<T> values(n, static_cast<T>(session.rank() + 1));
  communicator.all_reduce_sum(values.data(), n, element);
  const int sum = session.size() * (session.size() + 1) / 2;
  const auto expected = static_cast<T>(sum);
  if (std::count(values.begin(), values.end(), expected) != static_cast<int64_t>(n)) {
    state.SkipWithError("the sum is wrong");
    return;
  }
  std::fill(values.begin(), values.end(), T{0});
  for (auto _ : state) communicator.all_reduce_sum(values.data(), n, element);
  state.counters["bytes_per_second"] =
      benchmark::Counter(static_cast<double>(n * sizeof(T)), benchmark::Counter::kIsIterationInvariantRate);
}

}  // namespace

int main(int argc, char** argv) {
  neoloom::core::settle_process();
  MpiSession session(&argc, &argv);
  benchmark::Initialize(&argc, argv);
  const auto communicator = session.make_host_communicator();
  for (const size_t n : {size_t{294'912}, size_t{2'654'208}}) {
    for (const bool exact : {true, false}) {
      benchmark::RegisterBenchmark(fmt::format("all_reduce/{}/{}", n, exact ? "int64" : "float32").c_str(),
                                   [&session, &communicator, exact, n](benchmark::State& state) {
                                     if (exact) {
                                       all_reduce<int64_t>(state, session, *communicator, Element::kInt64, n);
                                     } else {
                                       all_reduce<float>(state, session, *communicator, Element::kFloat32, n);
                                     }
                                   })
          ->Iterations(kIterations)
          ->UseRealTime()
          ->Unit(benchmark::kMicrosecond);
    }
  }
  Silence silence;
  if (session.is_root()) {
    benchmark::RunSpecifiedBenchmarks();
  } else {
    benchmark::RunSpecifiedBenchmarks(&silence);
  }
  benchmark::Shutdown();
  return 0;
}
