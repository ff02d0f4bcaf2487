// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "runtime/cuda/api.h"

namespace neoloom::cuda {

/// Work that enqueues the same kernels on the same memory whenever its shape is the same.
struct RepeatedWork {
  std::string shape;            // empty: never recorded
  std::function<void()> begin;  // before each run, outside of what is recorded: sets seeds
  /// The kernels, in parts: calls `pause` between two of them, equally often in every run of a shape.
  std::function<void(const std::function<void()>& pause)> enqueue;
  /// What this run does behind part i (0, 1, ...; not behind the last), outside of what is recorded. May be empty.
  std::function<void(size_t i)> between;
  /// Remembers the results; the returned function says whether they still have the same bits (it waits for the device).
  std::function<std::function<bool()>()> snapshot;
};

/// Runs the kernels one by one.
void run_eagerly(const RepeatedWork& work);

/// CUDA graphs, one per shape and part. The first runs of a shape are eager: they load kernels and fill pools. Then its
/// kernels are recorded, played once on the same inputs, and kept if every bit of the results repeats. A shape that
/// cannot be recorded or does not repeat stays eager, which the log says once; its results are always those of an eager
/// run. Work that must begin while a run goes on (sums over ranks) goes between parts: the graphs of a shape are played
/// in the order they were recorded in, so what one part leaves in the pool's memory is there for the next.
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
    std::vector<GraphHandle> parts;  // empty: not recorded
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
