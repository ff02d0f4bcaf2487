// SPDX-License-Identifier: Apache-2.0
#include "data/readers/input_text.h"

#include <fmt/format.h>

#include <cstring>

#include "runtime/core/error.h"
#include "runtime/core/unnamed_file.h"

namespace neoloom::data {

using core::ErrorKind;

InputFile::InputFile(const std::string& path)
    : path_(path), file_(path, ErrorKind::kData), compression_(compression_of(file_.text())) {}

std::string_view InputFile::head() {
  constexpr size_t kHeadBytes = size_t{4} << 20;
  if (!compressed()) return bytes();
  head_.clear();
  decompress(path_, bytes(), compression_, [this](std::string_view piece) {
    head_ += piece;
    return head_.size() < kHeadBytes;
  });
  return head_;
}

std::string_view InputFile::text(const std::string& directory) {
  if (!compressed()) return bytes();
  const core::UniqueFd file = core::unnamed_file(directory, ErrorKind::kData);
  decompress(path_, bytes(), compression_, [&](std::string_view piece) {
    const int error = core::write_fully(file.get(), piece.data(), piece.size());
    if (error == 0) return true;
    throw core::WriteError(ErrorKind::kData, fmt::format("cannot decompress {} to a temporary file in {}: {}", path_,
                                                         directory, std::strerror(error)));
  });
  unpacked_ = core::MappedFile(fmt::format("/proc/self/fd/{}", file.get()), ErrorKind::kData);
  return unpacked_.text();
}

}  // namespace neoloom::data
