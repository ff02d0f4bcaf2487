// SPDX-License-Identifier: Apache-2.0
#include "runtime/cuda/graph_cache.h"

#include <fmt/format.h>

#include <exception>
#include <utility>

namespace neoloom::cuda {

namespace {

void run_parts(const RepeatedWork& work, const std::function<void(size_t)>& between) {
  size_t part = 0;
  work.begin();
  work.enqueue([&] {
    if (between) between(part);
    ++part;
  });
}

std::string first_line(const std::string& text) { return text.substr(0, text.find('\n')); }

}  // namespace

void run_eagerly(const RepeatedWork& work) { run_parts(work, work.between); }

GraphCache::GraphCache(DeviceApi device, std::function<void(const std::string&)> log)
    : device_(std::move(device)), log_(std::move(log)) {}

GraphCache::~GraphCache() {
  for (auto& [shape, entry] : entries_) destroy(entry);
}

void GraphCache::destroy(Entry& entry) {
  for (const GraphHandle part : entry.parts) device_.destroy_graph(part);
  entry.parts.clear();
}

void GraphCache::play(const Entry& entry, const std::function<void(size_t)>& between) {
  for (size_t part = 0; part < entry.parts.size(); ++part) {
    if (part > 0 && between) between(part - 1);
    device_.replay_graph(entry.parts[part]);
  }
}

void GraphCache::run(const RepeatedWork& work) {
  if (work.shape.empty()) {
    run_eagerly(work);
    return;
  }
  Entry& entry = entries_[work.shape];
  if (!entry.parts.empty()) {
    work.begin();
    play(entry, work.between);
    ++replays_;
    return;
  }
  run_eagerly(work);
  ++entry.eager_runs;
  if (!entry.hopeless && entry.eager_runs >= kEagerRuns && graphs_ < kMostGraphs) record(entry, work);
}

/// Captures the graphs after an eager run on the same inputs, whose results are the reference. That run has called
/// between(), so the replay here does not call it again.
void GraphCache::record(Entry& entry, const RepeatedWork& work) {
  const auto unchanged = work.snapshot();
  std::string reason = "the recorded graph gives other bits than its kernels launched one by one";
  try {
    capture(entry, work);
    work.begin();
    play(entry, {});
    if (unchanged()) {
      ++graphs_;
      size_t nodes = 0;
      for (const GraphHandle part : entry.parts) nodes += device_.count_nodes(part);
      log_(fmt::format("CUDA graph of micro-steps with {}: {} kernels, copies and fills", work.shape, nodes));
      return;
    }
  } catch (const std::exception& error) {
    reason = first_line(error.what());
  }
  give_up(entry, work.shape, reason);
  run_parts(work, {});
}

void GraphCache::capture(Entry& entry, const RepeatedWork& work) {
  bool recording = false;
  const auto begin_part = [&] {
    entry.parts.push_back(device_.begin_capture());
    recording = true;
  };
  const auto end_part = [&] {
    recording = false;
    device_.end_capture(entry.parts.back());
  };
  work.begin();
  try {
    begin_part();
    work.enqueue([&] {
      end_part();
      begin_part();
    });
    end_part();
  } catch (...) {
    try {
      if (recording) end_part();
    } catch (const std::exception&) {  // the first error is the cause
    }
    throw;
  }
}

void GraphCache::give_up(Entry& entry, const std::string& shape, const std::string& reason) {
  destroy(entry);
  entry.hopeless = true;
  log_(fmt::format("warning: no CUDA graph of micro-steps with {}: {}; their kernels are launched one by one", shape,
                   reason));
}

}  // namespace neoloom::cuda
