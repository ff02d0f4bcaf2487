// SPDX-License-Identifier: Apache-2.0
#include "launch/planning/scratch_folder.h"

#include <cstdlib>
#include <filesystem>

#include "runtime/core/error.h"

namespace neoloom::launch {

ScratchFolder::ScratchFolder() {
  std::string pattern = std::filesystem::temp_directory_path() / "neoloom-dry-run-XXXXXX";
  core::require(::mkdtemp(pattern.data()) != nullptr, core::ErrorKind::kData, "cannot make a temporary folder {}",
                pattern);
  path_ = pattern;
}

ScratchFolder::~ScratchFolder() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

}  // namespace neoloom::launch
