// SPDX-License-Identifier: Apache-2.0
#include "data/files.h"

#include <fmt/ranges.h>
#include <glob.h>

#include <algorithm>
#include <filesystem>

#include "runtime/core/error.h"
#include "runtime/core/text.h"

namespace neoloom::data {
namespace {

namespace fs = std::filesystem;
using core::ErrorKind;

bool is_there(const std::string& path) {
  std::error_code ignored;
  return fs::exists(fs::symlink_status(path, ignored));
}

bool is_pattern(const std::string& name) { return name.find_first_of("*?[") != std::string::npos && !is_there(name); }

/// Returns the files, no folders, that match.
std::vector<std::string> matches_of(const std::string& pattern) {
  glob_t found{};
  const int result = ::glob(pattern.c_str(), GLOB_MARK | GLOB_NOSORT, nullptr, &found);
  std::vector<std::string> paths;
  for (size_t i = 0; result == 0 && i < found.gl_pathc; ++i) {
    paths.emplace_back(found.gl_pathv[i]);
    if (paths.back().ends_with('/')) paths.pop_back();
  }
  ::globfree(&found);
  return paths;
}

}  // namespace

std::string Files::text() const {
  constexpr size_t kMost = 4;
  if (names.size() <= kMost) return fmt::format("{}", fmt::join(names, ", "));
  return fmt::format("{} and {} more", fmt::join(names.begin(), names.begin() + kMost - 1, ", "),
                     names.size() - kMost + 1);
}

std::vector<std::string> Files::expand() const {
  std::vector<std::string> paths;
  for (const std::string& name : names) {
    if (!is_pattern(name)) {
      paths.push_back(name);
      continue;
    }
    core::require(name.find("**") == std::string::npos, ErrorKind::kData,
                  "{}: ** is not supported; name each folder by *, as in data/*/*.jsonl", core::quoted(name));
    const std::vector<std::string> found = matches_of(name);
    core::require(!found.empty(), ErrorKind::kData,
                  "no file matches the pattern {} (looked in {}); correct it, or start neoloom in another folder",
                  core::quoted(name), fs::absolute(name).parent_path().string());
    paths.insert(paths.end(), found.begin(), found.end());
  }
  std::sort(paths.begin(), paths.end());
  paths.erase(std::unique(paths.begin(), paths.end()), paths.end());
  return paths;
}

bool Files::exist() const {
  return std::all_of(names.begin(), names.end(),
                     [](const std::string& name) { return is_there(name) || !matches_of(name).empty(); });
}

}  // namespace neoloom::data
