// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

namespace neoloom::launch {

/// Makes a folder for temporary files, which is deleted with this object. Throws: Error(kData).
class ScratchFolder {
 public:
  ScratchFolder();
  ~ScratchFolder();
  ScratchFolder(const ScratchFolder&) = delete;
  ScratchFolder& operator=(const ScratchFolder&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

}  // namespace neoloom::launch
