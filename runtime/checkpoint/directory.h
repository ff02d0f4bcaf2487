// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <set>
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

/// The directory protocol of FORMAT.md. Only rank 0 writes; it sends the outcome to the other ranks.
/// Thread: one thread at a time.
class Directory {
 public:
  static constexpr uint64_t kLargestImageBytes = uint64_t{2} << 30;

  /// States above `largest_image_bytes` are built straight in the mapped temporary file instead of in memory.
  explicit Directory(std::string path, uint64_t largest_image_bytes = kLargestImageBytes)
      : path_(std::move(path)), largest_image_bytes_(largest_image_bytes) {}
  const std::string& path() const { return path_; }

  /// Checkpoints by file name, ascending by step number. A missing directory is an empty list.
  /// Throws: Error(kCheckpoint) when the directory exists and cannot be read.
  std::vector<Entry> list() const;

  /// Builds the HDF5 image in memory, hashes, writes a temporary file, fsyncs, renames hash then data, fsyncs the
  /// directory, reads the file back and verifies it. Existing checkpoints stay untouched until then. A step that
  /// already exists with the same bytes is not rewritten.
  /// Throws: Error(kCheckpoint) naming call and reason; temporary files are removed, old checkpoints stay.
  Published publish(const State& state) const;

  /// Keeps the `keep` newest checkpoints that verify, at least 2, and the one of `best_step` if that is >= 0. Deletes
  /// all older ones. keep <= 0 keeps all. A file that does not verify does not count towards `keep`.
  /// Returns the deleted paths. Throws: Error(kCheckpoint) when a file cannot be deleted.
  std::vector<std::string> retain(int64_t keep, int64_t best_step) const;

  /// Returns the newest checkpoint that verifies, or std::nullopt when there is no checkpoint file at all. Calls
  /// `on_bad(path, reason)` for each newer one that does not verify, and skips it.
  /// Throws: Error(kCheckpoint) when files exist and none is valid, or when one is of a newer format.
  struct Loaded {
    Entry entry;
    State state;
  };
  std::optional<Loaded> newest_valid(const std::function<void(const std::string&, const std::string&)>& on_bad) const;

  /// Removes temporary files that earlier starts of a run left in this directory, and hash files without their
  /// checkpoint. Keeps files of a process that is alive on this host. Ignores errors, since leftovers do no harm.
  void remove_leftovers() const;

 private:
  bool verifies(const std::string& path) const;

  std::string path_;
  uint64_t largest_image_bytes_;
  // Files that this object has verified and not written since; retain() does not read them again.
  mutable std::set<std::string> verified_;
};

/// step-%012d.h5
std::string file_name(int64_t step);

/// Reads one file: compares the bytes with its .sha256, then hands the same bytes to HDF5.
/// Throws: Error(kCheckpoint) with path and reason (no hash file, hash differs, newer format, damaged structure).
State load(const std::string& path);

/// Why load() would refuse this file; empty for a valid checkpoint.
std::string problem_with(const std::string& path);

}  // namespace neoloom::checkpoint
