// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>

#include "data/readers/decompress.h"
#include "runtime/core/files.h"
#include "runtime/core/progress.h"

namespace neoloom::data {

/// An input file: its bytes, and the text in them. A compressed file is recognised by its first bytes, whatever its
/// name. A text in another encoding than UTF-8 is converted.
/// Parquet stays as it is: here it is its own text.
class InputFile {
 public:
  /// Maps the file. Throws: Error(kData) when it cannot be read.
  InputFile(const std::string& path, const std::string& encoding);

  const std::string& path() const { return path_; }
  /// The file as it lies on the disk.
  std::string_view bytes() const { return file_.text(); }
  /// Returns the first bytes of the text: a few MiB of a converted one, all of another.
  std::string_view head();
  bool compressed() const { return compression_ != Compression::kNone; }
  /// Whether the text is not simply the bytes.
  bool converted() const { return compressed() || encoding_ != "utf-8"; }
  /// Returns the whole text, valid as long as this object. Converts into an unnamed file in `directory`, which
  /// is mapped, so that it takes disk space and not memory.
  /// Throws: Error(kData) as decompress and Recoder, WriteError(kData).
  std::string_view text(const std::string& directory, const core::BeginWork& begin = {});

 private:
  /// Hands over the text in pieces.
  void convert(const TakePiece& take, core::ByteProgress progress = {}) const;

  std::string path_;
  core::MappedFile file_;
  core::MappedFile unpacked_;
  std::string head_;  // of a converted file
  std::string encoding_;
  Compression compression_;
};

}  // namespace neoloom::data
