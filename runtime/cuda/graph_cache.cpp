// SPDX-License-Identifier: Apache-2.0
#include "runtime/cuda/graph_cache.h"

#include <fmt/format.h>

#include <exception>
#include <utility>

namespace neoloom::cuda {

namespace {

void run_eagerly(const RepeatedWork& work) {
  work.begin();
  work.enqueue();
}

std::string first_line(const std::string& text) { return text.substr(0, text.find('\n')); }

}  // namespace

GraphCache::GraphCache(DeviceApi device, std::function<void(const std::string&)> log)
    : device_(std::move(device)), log_(std::move(log)) {}

GraphCache::~GraphCache() {
  for (auto& [shape, entry] : entries_) {
    if (entry.graph != nullptr) device_.destroy_graph(entry.graph);
  }
}

void GraphCache::run(const RepeatedWork& work) {
  if (work.shape.empty()) {
    run_eagerly(work);
    return;
  }
  Entry& entry = entries_[work.shape];
  if (entry.graph != nullptr) {
    work.begin();
    device_.replay_graph(entry.graph);
    ++replays_;
    return;
  }
  run_eagerly(work);
  ++entry.eager_runs;
  if (!entry.hopeless && entry.eager_runs >= kEagerRuns && graphs_ < kMostGraphs) record(entry, work);
}

/// The results of an eager run on the same inputs are there.
void GraphCache::record(Entry& entry, const RepeatedWork& work) {
  const auto unchanged = work.snapshot();
  std::string reason = "what was recorded gives other bits than the kernels one by one";
  try {
    capture(entry, work);
    work.begin();
    device_.replay_graph(entry.graph);
    if (unchanged()) {
      ++graphs_;
      log_(fmt::format("CUDA graph of micro-steps with {}", work.shape));
      return;
    }
  } catch (const std::exception& error) {
    reason = first_line(error.what());
  }
  give_up(entry, work.shape, reason);
  run_eagerly(work);
}

void GraphCache::capture(Entry& entry, const RepeatedWork& work) {
  work.begin();
  entry.graph = device_.begin_capture();
  try {
    work.enqueue();
  } catch (...) {
    try {
      device_.end_capture(entry.graph);
    } catch (const std::exception&) {  // the first error says more
    }
    throw;
  }
  device_.end_capture(entry.graph);
}

void GraphCache::give_up(Entry& entry, const std::string& shape, const std::string& reason) {
  if (entry.graph != nullptr) device_.destroy_graph(std::exchange(entry.graph, nullptr));
  entry.hopeless = true;
  log_(fmt::format("warning: no CUDA graph of micro-steps with {}: {}; their kernels are launched one by one", shape,
                   reason));
}

}  // namespace neoloom::cuda
