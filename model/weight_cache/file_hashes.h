// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "runtime/core/cache.h"

namespace neoloom::model {

/// Identifies the state of a file without reading it.
struct FileStamp {
  std::string path;
  int64_t size_bytes = 0;
  int64_t mtime_nanoseconds = 0;
  bool operator==(const FileStamp&) const = default;
};

/// Throws: Error(kWeights) when there is no such file.
FileStamp stamp_of(const std::string& path);

/// False for a file modified so recently that it could change again within the resolution of its mtime.
bool settled(const FileStamp& stamp);

/// Returns the remembered SHA-256, or nothing when the cache entry is absent, of another state of the file, or damaged
/// (then it tells the user).
/// Throws: Error(kUsage) when another user may have written the entry.
std::optional<std::string> recall_hash(const core::Cache& cache, const FileStamp& stamp);

/// Remembers the hash of the file at `path`, which was read after `stamp` was taken, if it is settled().
/// Throws: Error(kWeights) when the file no longer matches `stamp`.
void remember_hash(const core::Cache& cache, const std::string& path, const FileStamp& stamp, const std::string& hash);

/// A file of a model folder, with its stamp from before it was read.
struct SourceFile {
  std::string path;
  FileStamp stamp;
  std::string hash;  // empty: not known
};

/// Returns a model folder's files in the order of weight_file_paths, with the remembered hashes (verify_always: none).
std::vector<SourceFile> source_files(const std::string& folder, const core::Cache& cache, bool verify_always);

/// Hashes now the files whose hash is not known, and remembers the hashes.
void hash_unknown(std::vector<SourceFile>& files, const core::Cache& cache);

/// Returns the hash of a model folder from those of its files, in order; empty when one of them is empty.
std::string joint_hash(const std::vector<SourceFile>& files);

}  // namespace neoloom::model
