// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>

#include "runtime/cuda/api.h"

namespace neoloom::cuda {

/// Work that enqueues the same kernels on the same memory whenever its shape is the same.
struct RepeatedWork {
  std::string shape;              // empty: never recorded
  std::function<void()> begin;    // before each run, outside of what is recorded: sets seeds
  std::function<void()> enqueue;  // the kernels
  /// Remembers the results; the returned function says whether they still have the same bits (it waits for the device).
  std::function<std::function<bool()>()> snapshot;
};

/// CUDA graphs, one per shape. The first runs of a shape are eager: they load kernels and fill pools. Then its kernels
/// are recorded, played once on the same inputs, and kept if every bit of the results repeats. A shape that cannot be
/// recorded or does not repeat stays eager, which the log says once; its results are always those of an eager run.
/// Thread: one thread at a time.
class GraphCache {
 public:
  static constexpr int64_t kEagerRuns = 3;
  static constexpr size_t kMostGraphs = 64;  // further shapes stay eager

  GraphCache(DeviceApi device, std::function<void(const std::string& text)> log);
  ~GraphCache();
  GraphCache(const GraphCache&) = delete;
  GraphCache& operator=(const GraphCache&) = delete;

  void run(const RepeatedWork& work);

  /// Runs that were played, not enqueued.
  int64_t replays() const { return replays_; }

 private:
  struct Entry {
    int64_t eager_runs = 0;
    bool hopeless = false;
    GraphHandle graph = nullptr;
  };

  void record(Entry& entry, const RepeatedWork& work);
  void capture(Entry& entry, const RepeatedWork& work);
  void give_up(Entry& entry, const std::string& shape, const std::string& reason);

  DeviceApi device_;
  std::function<void(const std::string&)> log_;
  std::map<std::string, Entry> entries_;
  size_t graphs_ = 0;
  int64_t replays_ = 0;
};

}  // namespace neoloom::cuda
