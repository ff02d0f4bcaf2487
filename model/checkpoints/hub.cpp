// SPDX-License-Identifier: Apache-2.0
#include "model/checkpoints/hub.h"

#include <filesystem>

#include "runtime/core/environment.h"
#include "runtime/core/error.h"
#include "runtime/core/files.h"

namespace neoloom::model {
namespace {

namespace fs = std::filesystem;
using core::ErrorKind;

constexpr size_t kMaxNameBytes = 200;

std::string expand_home(const std::string& path) {
  return path.starts_with("~/") ? core::environment("HOME") + path.substr(1) : path;
}

/// Returns Hugging Face's folder, of its caches and its token.
fs::path hub_home() {
  if (const std::string home = core::environment("HF_HOME"); !home.empty()) return expand_home(home);
  const std::string xdg = core::environment("XDG_CACHE_HOME");
  return fs::path(expand_home(xdg.empty() ? "~/.cache" : xdg)) / "huggingface";
}

/// Returns the cache folder that Hugging Face's own library would use here.
fs::path hub_cache() {
  const std::string hub = core::environment({"HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"});
  return hub.empty() ? hub_home() / "hub" : fs::path(expand_home(hub));
}

/// Returns whether a name has only letters, digits, '.', '_', '-' and `extra`, and no "..", so that it cannot leave the
/// cache.
bool plain_name(const std::string& name, const char* extra) {
  if (name.empty() || name.size() > kMaxNameBytes || name.find("..") != std::string::npos) return false;
  for (const char letter : name) {
    const bool alphanumeric =
        (letter >= 'a' && letter <= 'z') || (letter >= 'A' && letter <= 'Z') || (letter >= '0' && letter <= '9');
    const bool allowed = alphanumeric || letter == '.' || letter == '_' || letter == '-' ||
                         std::string_view(extra).find(letter) != std::string_view::npos;
    if (!allowed) return false;
  }
  return name.front() != '/' && name.front() != '.' && name.front() != '-' && name.back() != '/';
}

bool is_hub_id(const std::string& name) {
  const size_t slash = name.find('/');
  if (slash == std::string::npos) return plain_name(name, "");
  return plain_name(name.substr(0, slash), "") && plain_name(name.substr(slash + 1), "");
}

std::string trimmed(std::string text) {
  while (!text.empty() && (text.back() == '\n' || text.back() == '\r' || text.back() == ' ')) text.pop_back();
  return text;
}

}  // namespace

bool is_local_path(const std::string& name) {
  return name.starts_with('/') || name.starts_with('.') || name.find('/') != name.rfind('/');
}

std::string hub_token_path() {
  const std::string path = core::environment("HF_TOKEN_PATH");
  return path.empty() ? (hub_home() / "token").string() : expand_home(path);
}

std::string hub_folder(const std::string& name) {
  core::require(is_hub_id(name), ErrorKind::kWeights,
                "model '{}': there is no such folder, and it is not the id of a hub model (organisation/name)", name);
  std::string folder_name = "models--" + name;
  if (const size_t slash = folder_name.find('/'); slash != std::string::npos) folder_name.replace(slash, 1, "--");
  return (hub_cache() / folder_name).string();
}

void require_revision(const std::string& name, const std::string& revision) {
  core::require(plain_name(revision, "/"), ErrorKind::kWeights,
                "model '{}': the revision '{}' is not a branch, tag or commit", name, revision);
}

std::string find_snapshot(const std::string& name, const std::string& revision) {
  const fs::path root = hub_folder(name);
  require_revision(name, revision);
  std::string commit = revision;
  if (const fs::path reference = root / "refs" / revision; fs::is_regular_file(reference)) {
    commit = trimmed(core::read_file(reference.string(), ErrorKind::kWeights, kMaxNameBytes + 2));
    core::require(plain_name(commit, ""), ErrorKind::kWeights, "{}: expected a commit hash", reference.string());
  }
  const fs::path snapshot = root / "snapshots" / commit;
  return plain_name(commit, "") && fs::is_directory(snapshot) ? snapshot.string() : "";
}

std::string resolve_model_folder(const std::string& name, const std::string& revision) {
  if (fs::is_directory(name)) return name;
  if (std::string snapshot = find_snapshot(name, revision); !snapshot.empty()) return snapshot;
  core::fail(ErrorKind::kWeights,
             "model '{0}' (revision {1}) was not found. Searched: the folder {0}, and {2} (from HF_HUB_CACHE, HF_HOME, "
             "XDG_CACHE_HOME). Fetch it where there is a network, with\n  neoloom download {0}{3}",
             name, revision, hub_folder(name), revision == "main" ? "" : " --revision " + revision);
}

}  // namespace neoloom::model
