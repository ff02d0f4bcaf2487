// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "runtime/core/cache.h"

namespace neoloom::model {

/// What tells, without reading it, that a file is still the one that was hashed.
struct FileStamp {
  std::string path;
  int64_t size_bytes = 0;
  int64_t mtime_nanoseconds = 0;
  bool operator==(const FileStamp&) const = default;
};

/// Throws: Error(kWeights) when there is no such file.
FileStamp stamp_of(const std::string& path);

/// False for a file that changed a moment ago: it could change again within the resolution of its time stamp.
bool settled(const FileStamp& stamp);

/// The remembered SHA-256, or nothing when the record is absent, damaged (it is then named) or of another state of the
/// file. Throws: Error(kUsage): somebody else may have written it.
std::optional<std::string> recall_hash(const core::Cache& cache, const FileStamp& stamp);

/// Remembers the hash of the file at `path`, which was read after `stamp` was taken, if it is settled.
/// Throws: Error(kWeights) when the file is not what it was.
void remember_hash(const core::Cache& cache, const std::string& path, const FileStamp& stamp, const std::string& hash);

/// The remembered hash, else (or with verify_always) that of the file's bytes now.
std::string hash_file(const std::string& path, const core::Cache& cache, bool verify_always);

/// The hash of a model folder from those of its files, in their order; empty when one of them is.
std::string joint_hash(const std::vector<std::string>& hashes);

}  // namespace neoloom::model
