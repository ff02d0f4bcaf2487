// SPDX-License-Identifier: Apache-2.0
#include "runtime/core/cache.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "runtime/core/files.h"

namespace neoloom::core {
namespace {

namespace fs = std::filesystem;

[[noreturn]] void refuse(const std::string& path, const std::string& reason, const std::string& remedy) {
  fail(ErrorKind::kUsage,
       "the cache is not safe to use: {} {}, so other users could change what this run computes. "
       "To go on, {}, or set runtime.cache_dir to another folder, "
       "or set runtime.trust_cache: true if you trust everybody who can write there",
       path, reason, remedy);
}

/// Refuses a folder in which everybody may replace files. With the sticky bit only the owner of a file can.
void require_own_folder(const std::string& path) {
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0) return;
  const bool open_to_all = (status.st_mode & S_IWOTH) != 0 && (status.st_mode & S_ISVTX) == 0;
  if (open_to_all) refuse(path, "is a folder that everybody may write to", fmt::format("chmod o-w {}", path));
}

void require_own_file(const std::string& path) {
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0) return;
  if ((status.st_mode & S_IWOTH) != 0) refuse(path, "can be written by everybody", "remove that file");
  if (status.st_uid == 0 || status.st_uid == ::geteuid()) return;
  refuse(path, fmt::format("belongs to the user with id {}, who is neither you nor root", status.st_uid),
         "remove that file");
}

}  // namespace

void Cache::require_own(const std::string& path) const {
  if (trusts_everybody || verified) return;
  const fs::path root = (fs::path(directory) / "file").lexically_normal().parent_path();  // without a trailing slash
  for (fs::path folder = fs::path(path).lexically_normal().parent_path();; folder = folder.parent_path()) {
    require_own_folder(folder.empty() ? "." : folder.string());
    if (folder == root || folder == folder.parent_path()) break;
  }
  require_own_file(path);
}

bool Cache::use(const std::string& path, const std::function<void()>& read) const {
  require_own(path);
  std::error_code ignored;
  if (!fs::exists(path, ignored)) return false;
  try {
    read();
    return true;
  } catch (const WriteError&) {
    throw;
  } catch (const Error& error) {
    begin_rebuild(path, error.what());
  } catch (const nlohmann::json::exception& error) {
    begin_rebuild(path, error.what());
  }
  return false;
}

void Cache::begin_rebuild(const std::string& path, const std::string& reason) const {
  if (say) say(fmt::format("cache: {} cannot be used and is rebuilt: {}", path, reason));
  std::error_code ignored;
  if (!fs::is_directory(fs::symlink_status(path, ignored))) return;
  const std::string aside = fmt::format("{}.set-aside-{}-{}", path, std::time(nullptr), ::getpid());
  if (::rename(path.c_str(), aside.c_str()) != 0) {
    throw WriteError(ErrorKind::kUsage,
                     fmt::format("cannot move the folder {} out of the way of a file: {}", path, std::strerror(errno)));
  }
}

}  // namespace neoloom::core
