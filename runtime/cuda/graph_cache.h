// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "runtime/cuda/api.h"

namespace neoloom::cuda {

/// GPU work that enqueues the same kernels on the same memory each time its `shape` is the same.
struct RepeatedWork {
  std::string shape;            // empty: never captured
  std::function<void()> begin;  // called before each run, never captured: sets seeds
  /// Enqueues the kernels, in parts: calls `pause` between two parts, the same number of times in every run of a shape.
  std::function<void(const std::function<void()>& pause)> enqueue;
  /// Called after part i (0, 1, ...; not after the last), never captured. May be empty.
  std::function<void(size_t i)> between;
  /// Copies the results. The returned function says whether they still have the same bits; it waits for the device.
  std::function<std::function<bool()>()> snapshot;
};

/// Launches the kernels one by one, without a graph.
void run_eagerly(const RepeatedWork& work);

/// CUDA graphs, one per shape and part. The first kEagerRuns runs of a shape are eager: they load kernels and warm the
/// memory pool. Then its kernels are captured, and replayed once on the same inputs. The graphs are kept if every bit
/// of the results repeats. A shape that cannot be captured or does not repeat stays eager, and the log says so once;
/// its results are always those of an eager run.
/// Work that must start during a run (sums over ranks) goes between parts. The graphs of a shape are replayed in the
/// order of their capture, so a part finds in the pool what an earlier one left there.
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

  /// Number of runs that replayed graphs.
  int64_t replays() const { return replays_; }

 private:
  struct Entry {
    int64_t eager_runs = 0;
    bool hopeless = false;
    std::vector<GraphHandle> parts;  // empty: not captured
  };

  void record(Entry& entry, const RepeatedWork& work);
  void capture(Entry& entry, const RepeatedWork& work);
  void play(const Entry& entry, const std::function<void(size_t)>& between);
  void destroy(Entry& entry);
  void give_up(Entry& entry, const std::string& shape, const std::string& reason);

  DeviceApi device_;
  std::function<void(const std::string&)> log_;
  std::map<std::string, Entry> entries_;
  size_t graphs_ = 0;
  int64_t replays_ = 0;
};

}  // namespace neoloom::cuda
