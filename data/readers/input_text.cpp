// SPDX-License-Identifier: Apache-2.0
#include "data/readers/input_text.h"

#include <fmt/format.h>

#include <cstring>
#include <utility>

#include "data/readers/encoding.h"
#include "data/readers/rows.h"
#include "runtime/core/error.h"
#include "runtime/core/unnamed_file.h"

namespace neoloom::data {

using core::ErrorKind;

InputFile::InputFile(const std::string& path, const std::string& encoding)
    : path_(path),
      file_(path, ErrorKind::kData),
      encoding_(file_.text().starts_with(kParquetMagic) ? "utf-8" : encoding),
      compression_(compression_of(file_.text())) {}

void InputFile::convert(const TakePiece& take, core::ByteProgress progress) const {
  if (encoding_ == "utf-8") return decompress(path_, bytes(), compression_, take, std::move(progress));
  Recoder recoder(path_, encoding_, take);
  const auto recode = [&](std::string_view piece) { return recoder.add(piece); };
  decompress(path_, bytes(), compression_, recode, std::move(progress));
  recoder.finish();
}

std::string_view InputFile::head() {
  constexpr size_t kHeadBytes = size_t{4} << 20;
  if (!converted()) return bytes();
  head_.clear();
  convert([this](std::string_view piece) {
    head_ += piece;
    return head_.size() < kHeadBytes;
  });
  return head_;
}

std::string_view InputFile::text(const std::string& directory, const core::BeginWork& begin) {
  if (!converted()) return bytes();
  const core::UniqueFd file = core::unnamed_file(directory, ErrorKind::kData);
  const auto write = [&](std::string_view piece) {
    const int error = core::write_fully(file.get(), piece.data(), piece.size());
    if (error == 0) return true;
    throw core::WriteError(ErrorKind::kData, fmt::format("cannot convert {} to a temporary file in {}: {}", path_,
                                                         directory, std::strerror(error)));
  };
  convert(write, {core::begin_work(begin, compressed() ? "unpacking data" : "converting data", "kB"), bytes().size()});
  unpacked_ = core::MappedFile(fmt::format("/proc/self/fd/{}", file.get()), ErrorKind::kData);
  return unpacked_.text();
}

}  // namespace neoloom::data
