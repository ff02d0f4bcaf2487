// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <optional>
#include <vector>

#include "model/pretrained/loader.h"
#include "model/pretrained/strict_json.h"
#include "model/pretrained/weight_files.h"
#include "runtime/core/error.h"
#include "runtime/core/files.h"
#include "runtime/core/hash.h"
#include "runtime/core/unique_handle.h"

namespace neoloom::model {
namespace {

namespace fs = std::filesystem;
using core::ErrorKind;

struct FileStamp {
  std::string path;
  int64_t size_bytes = 0;
  int64_t mtime_nanoseconds = 0;
  bool operator==(const FileStamp&) const = default;
};

FileStamp stamp_of(const std::string& path) {
  struct stat status {};
  core::require(::stat(path.c_str(), &status) == 0, ErrorKind::kWeights, "cannot stat {}: {}", path,
                std::strerror(errno));
  return {fs::canonical(path).string(), status.st_size,
          int64_t{status.st_mtim.tv_sec} * 1'000'000'000 + status.st_mtim.tv_nsec};
}

/// A file that changed a moment ago could change again within the resolution of its time stamp.
bool settled(const FileStamp& stamp) {
  constexpr int64_t kSettleSeconds = 2;
  return stamp.mtime_nanoseconds / 1'000'000'000 + kSettleSeconds < static_cast<int64_t>(std::time(nullptr));
}

/// The remembered hash, or nothing when the record is absent, damaged or of another state of the file: it is a cache.
std::optional<std::string> recall(const std::string& record_path, const FileStamp& stamp) {
  try {
    if (!fs::exists(record_path)) return std::nullopt;
    const nlohmann::json record = read_strict_json(record_path);
    const FileStamp seen{record.at("path").get<std::string>(), record.at("size_bytes").get<int64_t>(),
                         record.at("mtime_nanoseconds").get<int64_t>()};
    if (seen == stamp) return record.at("sha256").get<std::string>();
  } catch (const std::exception&) {
  }
  return std::nullopt;
}

/// Read in pieces: a mapping of the whole file would count as memory of the process.
std::string hash_bytes(const std::string& path) {
  const auto reason = [] { return std::strerror(errno); };
  const core::UniqueFd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  core::require(file.valid(), ErrorKind::kWeights, "cannot open {}: {}", path, reason());
  std::vector<char> piece(size_t{1} << 20);
  core::Sha256 hash;
  while (true) {
    const ssize_t count = ::read(file.get(), piece.data(), piece.size());
    if (count < 0 && errno == EINTR) continue;
    core::require(count >= 0, ErrorKind::kWeights, "cannot read {}: {}", path, reason());
    if (count == 0) return hash.hex();
    hash.add(piece.data(), static_cast<size_t>(count));
  }
}

std::string hash_file(const std::string& path, const std::string& cache_dir, bool verify_always) {
  const FileStamp stamp = stamp_of(path);
  const std::string record_path =
      (fs::path(cache_dir) / "hashes" / (core::sha256_hex(stamp.path).substr(0, 32) + ".json")).string();
  if (!verify_always) {
    if (const std::optional<std::string> known = recall(record_path, stamp)) return *known;
  }
  std::string hash = hash_bytes(path);
  core::require(stamp_of(path) == stamp, ErrorKind::kWeights, "{} changed while it was read", path);
  if (settled(stamp)) {
    const nlohmann::json record = {{"path", stamp.path},
                                   {"size_bytes", stamp.size_bytes},
                                   {"mtime_nanoseconds", stamp.mtime_nanoseconds},
                                   {"sha256", hash}};
    core::publish_file(record_path, record.dump(2) + "\n", ErrorKind::kWeights);
  }
  return hash;
}

}  // namespace

std::string weights_hash(const std::string& folder, const std::string& cache_dir, bool verify_always) {
  const std::vector<std::string> paths = weight_file_paths(folder);
  if (paths.size() == 1) return hash_file(paths.front(), cache_dir, verify_always);
  core::Sha256 whole;
  for (const std::string& path : paths) whole.add_field(hash_file(path, cache_dir, verify_always));
  return whole.hex();
}

}  // namespace neoloom::model
