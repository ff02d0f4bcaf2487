// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "runtime/checkpoint/state.h"

namespace neoloom::checkpoint {

/// A checkpoint file by name; not yet verified.
struct Entry {
  int64_t step = 0;
  std::string path;  // .../step-%012d.h5, its hash in .../step-%012d.sha256
};

struct Published {
  std::string path;
  uint64_t bytes = 0;
  double seconds = 0.0;  // building, hashing, writing, syncing, reading back
};

/// The directory protocol of FORMAT.md. Only rank 0 writes; other ranks learn by message.
class Directory {
 public:
  explicit Directory(std::string path) : path_(std::move(path)) {}
  const std::string& path() const { return path_; }

  /// Checkpoints by file name, ascending by step number. A missing directory is an empty list.
  std::vector<Entry> list() const;

  /// Builds the HDF5 image in memory, hashes, writes a temporary file, fsyncs, renames hash then data, fsyncs the
  /// directory, reads back and verifies. Nothing old is touched before that.
  /// Throws: Error(kCheckpoint) naming call and reason; temporary files are removed, old checkpoints stay.
  Published publish(const State& state) const;

  /// Deletes the oldest verified checkpoints beyond `keep` (at least 2 stay; `best_step` >= 0 always stays).
  /// keep <= 0 keeps all. Returns the deleted paths.
  std::vector<std::string> retain(int64_t keep, int64_t best_step) const;

  /// The newest checkpoint that verifies; each bad one on the way is reported through `on_bad(path, reason)` and
  /// skipped. std::nullopt when there is no checkpoint file at all.
  /// Throws: Error(kCheckpoint) when files exist and none is valid.
  struct Loaded {
    Entry entry;
    State state;
  };
  std::optional<Loaded> newest_valid(const std::function<void(const std::string&, const std::string&)>& on_bad) const;

  /// Removes temporary files left by earlier starts of a run in this directory.
  void remove_leftovers() const;

 private:
  std::string path_;
};

/// step-%012d.h5
std::string file_name(int64_t step);

/// Reads one file: compares the bytes with its .sha256, then hands the same bytes to HDF5.
/// Throws: Error(kCheckpoint) with path and reason (no hash file, hash differs, newer format, damaged structure).
State load(const std::string& path);

}  // namespace neoloom::checkpoint
