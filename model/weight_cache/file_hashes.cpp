// SPDX-License-Identifier: Apache-2.0
#include "model/weight_cache/file_hashes.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <ctime>
#include <filesystem>

#include "model/checkpoints/strict_json.h"
#include "model/checkpoints/weight_files.h"
#include "model/weight_cache/weight_cache.h"
#include "runtime/core/error.h"
#include "runtime/core/files.h"
#include "runtime/core/hash.h"
#include "runtime/core/unique_handle.h"
#include "runtime/core/utf8.h"

namespace neoloom::model {
namespace {

namespace fs = std::filesystem;
using core::ErrorKind;

std::string record_path(const std::string& cache_dir, const FileStamp& stamp) {
  return (fs::path(cache_dir) / "hashes" / (core::sha256_hex(stamp.path).substr(0, 32) + ".json")).string();
}

/// Returns the checksum of what a record says.
std::string record_checksum(const FileStamp& stamp, const std::string& hash) {
  const std::string content = fmt::format("{} {} {} {}", stamp.size_bytes, stamp.mtime_nanoseconds, hash, stamp.path);
  return fmt::format("{:016x}", core::xxh3(content.data(), content.size()));
}

/// Hashes a file piece by piece: a mapping of the whole file would count as memory of the process.
std::string hash_bytes(const std::string& path, core::ByteProgress& progress) {
  const auto reason = [] { return std::strerror(errno); };
  const core::UniqueFd file = core::open_regular(path, ErrorKind::kWeights);
  std::vector<char> piece(size_t{1} << 20);
  core::Sha256 hash;
  while (true) {
    const ssize_t count = ::read(file.get(), piece.data(), piece.size());
    if (count < 0 && errno == EINTR) continue;
    core::require(count >= 0, ErrorKind::kWeights, "cannot read {}: {}", path, reason());
    if (count == 0) return hash.hex();
    hash.add(piece.data(), static_cast<size_t>(count));
    progress.add(static_cast<uint64_t>(count));
  }
}

}  // namespace

FileStamp stamp_of(const std::string& path) {
  struct stat status {};
  core::require(::stat(path.c_str(), &status) == 0, ErrorKind::kWeights, "cannot stat {}: {}", path,
                std::strerror(errno));
  return {fs::canonical(path).string(), status.st_size,
          int64_t{status.st_mtim.tv_sec} * 1'000'000'000 + status.st_mtim.tv_nsec};
}

bool settled(const FileStamp& stamp) {
  constexpr int64_t kSettleSeconds = 2;
  return stamp.mtime_nanoseconds / 1'000'000'000 + kSettleSeconds < static_cast<int64_t>(std::time(nullptr));
}

std::optional<std::string> recall_hash(const core::Cache& cache, const FileStamp& stamp) {
  const std::string path = record_path(cache.directory, stamp);
  std::optional<std::string> found;
  cache.use(path, [&] {
    const nlohmann::json record = read_strict_json(path);
    const FileStamp seen{record.at("path").get<std::string>(), record.at("size_bytes").get<int64_t>(),
                         record.at("mtime_nanoseconds").get<int64_t>()};
    std::string hash = record.at("sha256").get<std::string>();
    core::require(record.value("checksum", "") == record_checksum(seen, hash), ErrorKind::kWeights,
                  "it was changed, or an older version wrote it: its checksum is not that of its content");
    core::require(seen.path == stamp.path, ErrorKind::kWeights, "it was made for {}", seen.path);
    if (seen == stamp) found = std::move(hash);
  });
  return found;
}

void remember_hash(const core::Cache& cache, const std::string& path, const FileStamp& stamp, const std::string& hash) {
  core::require(stamp_of(path) == stamp, ErrorKind::kWeights, "{} changed while it was read", path);
  // JSON cannot hold a path that is not UTF-8: such a file is hashed each time.
  if (!settled(stamp) || core::utf8_prefix_bytes(stamp.path) != stamp.path.size()) return;
  const nlohmann::json record = {{"path", stamp.path},
                                 {"size_bytes", stamp.size_bytes},
                                 {"mtime_nanoseconds", stamp.mtime_nanoseconds},
                                 {"sha256", hash},
                                 {"checksum", record_checksum(stamp, hash)}};
  core::publish_file(record_path(cache.directory, stamp), record.dump(2) + "\n", ErrorKind::kWeights);
}

std::vector<SourceFile> source_files(const std::string& folder, const core::Cache& cache, bool verify_always) {
  std::vector<SourceFile> files;
  for (const std::string& path : weight_file_paths(folder)) {
    const FileStamp stamp = stamp_of(path);
    files.push_back({path, stamp, verify_always ? "" : recall_hash(cache, stamp).value_or("")});
  }
  return files;
}

void hash_unknown(std::vector<SourceFile>& files, const core::Cache& cache) {
  uint64_t bytes = 0;
  for (const SourceFile& file : files) bytes += file.hash.empty() ? static_cast<uint64_t>(file.stamp.size_bytes) : 0;
  core::ByteProgress progress = cache.begin("hashing weights", bytes);
  for (SourceFile& file : files) {
    if (!file.hash.empty()) continue;
    file.hash = hash_bytes(file.stamp.path, progress);
    remember_hash(cache, file.path, file.stamp, file.hash);
  }
}

std::string joint_hash(const std::vector<SourceFile>& files) {
  if (files.size() == 1) return files.front().hash;
  core::Sha256 whole;
  for (const SourceFile& file : files) {
    if (file.hash.empty()) return "";
    whole.add_field(file.hash);
  }
  return whole.hex();
}

std::string weights_hash(const std::string& folder, const core::Cache& cache, bool verify_always) {
  std::vector<SourceFile> files = source_files(folder, cache, verify_always);
  hash_unknown(files, cache);
  return joint_hash(files);
}

}  // namespace neoloom::model
