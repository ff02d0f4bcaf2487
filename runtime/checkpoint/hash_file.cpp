// SPDX-License-Identifier: Apache-2.0
#include "runtime/checkpoint/hash_file.h"

#include <unistd.h>

#include <filesystem>
#include <string_view>

#include "runtime/checkpoint/disk_file.h"
#include "runtime/core/error.h"
#include "runtime/core/files.h"

namespace neoloom::checkpoint {
namespace {

namespace fs = std::filesystem;
constexpr auto kCheckpoint = core::ErrorKind::kCheckpoint;
constexpr size_t kHexDigits = 64;
constexpr uintmax_t kLongestBytes = 4096;

std::string hash_line(const std::string& checkpoint_path, const std::string& sha256) {
  return fmt::format("{}  {}\n", sha256, fs::path(checkpoint_path).filename().string());
}

void publish_line(const std::string& checkpoint_path, const std::string& sha256) {
  const fs::path target = hash_path(checkpoint_path);
  const std::string line = hash_line(checkpoint_path, sha256);
  TemporaryFile file(core::parent_directory(target.string()), target.filename().string());
  file.write(std::as_bytes(std::span(line)));
  file.rename_to(target.string());
}

std::optional<std::string> stored_hash(const std::string& checkpoint_path) {
  try {
    return read_hash(checkpoint_path);
  } catch (const core::Error&) {
    return std::nullopt;
  }
}

}  // namespace

std::string hash_path(const std::string& checkpoint_path) {
  return fs::path(checkpoint_path).replace_extension(".sha256").string();
}

std::string read_hash(const std::string& checkpoint_path) {
  const std::string path = hash_path(checkpoint_path);
  std::error_code problem;
  const uintmax_t size = fs::file_size(path, problem);
  core::require(!problem, kCheckpoint, "cannot read its hash file {}: {}", path, problem.message());
  core::require(size < kLongestBytes, kCheckpoint, "{} is too long for a hash file: {} bytes", path, size);
  const FileBytes content = read_whole_file(path);
  const std::string_view text(reinterpret_cast<const char*>(content.data.get()), content.size);
  std::string hash(text.substr(0, kHexDigits));
  const bool hex = hash.find_first_not_of("0123456789abcdef") == std::string::npos;
  core::require(hex && text == hash_line(checkpoint_path, hash), kCheckpoint,
                "{} is not a hash file: expected 64 hex digits, two spaces and the name of the checkpoint", path);
  return hash;
}

void require_hash(const std::string& found, const std::string& expected) {
  core::require(found == expected, kCheckpoint,
                "its content was changed or truncated: SHA-256 is {}, its hash file says {}", found, expected);
}

HashPublication::HashPublication(const std::string& checkpoint_path, const std::string& sha256)
    : checkpoint_path_(checkpoint_path), previous_(stored_hash(checkpoint_path)) {
  publish_line(checkpoint_path, sha256);
}

HashPublication::~HashPublication() {
  if (kept_) return;
  try {
    if (previous_.has_value()) {
      publish_line(checkpoint_path_, *previous_);
    } else {
      ::unlink(hash_path(checkpoint_path_).c_str());
    }
  } catch (const core::Error&) {
    // The disk takes no more writes. Readers then skip the older file of this step as damaged.
  }
}

}  // namespace neoloom::checkpoint
