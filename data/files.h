// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace neoloom::data {

/// The files of one data set, as a user names them: paths, and patterns with * ? [ ] as glob(7) has them.
struct Files {
  Files() = default;
  /// An empty path is no file.
  Files(std::string path) {  // NOLINT: a path is a list of one file
    if (!path.empty()) names.push_back(std::move(path));
  }
  Files(std::vector<std::string> paths) : names(std::move(paths)) {}  // NOLINT

  bool empty() const { return names.empty(); }
  /// The names for a message, joined by commas; more than four: "a, b, c and 5 more".
  std::string text() const;
  /// Returns the files, each once, in the order of their names (by bytes). A name that is a path of a file is no
  /// pattern.
  /// Throws: Error(kData) for a pattern that matches no file.
  std::vector<std::string> expand() const;
  /// Whether all paths are there and all patterns match something.
  bool exist() const;

  std::vector<std::string> names;
};

}  // namespace neoloom::data
