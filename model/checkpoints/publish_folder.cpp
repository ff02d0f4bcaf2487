// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>

#include "model/checkpoints/adapter_folder.h"
#include "runtime/core/atomic_file.h"
#include "runtime/core/error.h"
#include "runtime/core/files.h"

namespace neoloom::model {
namespace {

namespace fs = std::filesystem;
using core::ErrorKind;

/// Removes a folder at the end of the scope, also after an exception.
class FolderRemover {
 public:
  explicit FolderRemover(std::string path) : path_(std::move(path)) {}
  ~FolderRemover() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  FolderRemover(const FolderRemover&) = delete;
  FolderRemover& operator=(const FolderRemover&) = delete;

 private:
  std::string path_;
};

void require_ours(const fs::path& folder) {
  if (!fs::exists(folder)) return;
  core::require(fs::is_directory(folder), ErrorKind::kWeights, "{} is not a folder", folder.string());
  const bool known = fs::exists(folder / kAdapterConfigFile) || fs::exists(folder / kConfigFile);
  core::require(known || fs::is_empty(folder), ErrorKind::kWeights,
                "{} holds other files and no model or adapter: it is not replaced; choose another folder",
                folder.string());
}

[[noreturn]] void give_up(const fs::path& folder, const char* call) {
  core::fail(ErrorKind::kOutput, "cannot publish {}: {}: {}", folder.string(), call, std::strerror(errno));
}

/// Puts `fresh` in the place of `target`. Afterwards `fresh` holds what was in `target`, if anything was.
void swap_in(const std::string& fresh, const std::string& target) {
  if (!fs::exists(target)) {
    if (::rename(fresh.c_str(), target.c_str()) != 0) give_up(target, "rename");
    return;
  }
  if (::renameat2(AT_FDCWD, fresh.c_str(), AT_FDCWD, target.c_str(), RENAME_EXCHANGE) == 0) return;
  if (errno != ENOSYS && errno != EINVAL && errno != ENOTSUP) give_up(target, "renameat2");
  const std::string old = core::temporary_name(target);
  if (::rename(target.c_str(), old.c_str()) != 0) give_up(target, "rename");
  if (::rename(fresh.c_str(), target.c_str()) != 0) give_up(target, "rename");
  if (::rename(old.c_str(), fresh.c_str()) != 0) give_up(target, "rename");
}

}  // namespace

void publish_folder(const std::string& folder, const std::function<void(const std::string&)>& fill) {
  std::string text = folder;
  while (text.size() > 1 && text.back() == '/') text.pop_back();
  const fs::path target = fs::weakly_canonical(text);  // a link stays a link: its target is exchanged
  require_ours(target);
  const std::string parent = core::parent_directory(target.string());
  core::make_directories(parent, ErrorKind::kOutput);
  core::remove_stale_temporaries(target.string());

  const std::string fresh = core::temporary_name(target.string());
  if (::mkdir(fresh.c_str(), 0777) != 0) give_up(target, "mkdir");
  const FolderRemover remover(fresh);
  try {
    fill(fresh);
  } catch (const core::WriteError& error) {
    throw core::WriteError(ErrorKind::kOutput, error.what());
  }
  core::sync_directory(fresh, ErrorKind::kOutput);
  swap_in(fresh, target.string());
  core::sync_directory(parent, ErrorKind::kOutput);
}

void copy_files(const std::vector<std::string>& files, const std::string& folder) {
  for (const std::string& file : files) {
    const fs::path target = fs::path(folder) / fs::path(file).filename();
    core::require(!fs::exists(target), ErrorKind::kInternal, "{} would be written twice", target.string());
    const core::MappedFile source(file, ErrorKind::kWeights);
    core::publish_file(target.string(), source.text(), ErrorKind::kOutput);
  }
}

}  // namespace neoloom::model
