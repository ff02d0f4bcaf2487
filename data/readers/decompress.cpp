// SPDX-License-Identifier: Apache-2.0
#include "data/readers/decompress.h"

#include <zlib.h>
#include <zstd.h>

#include <algorithm>
#include <limits>
#include <vector>

#include "runtime/core/error.h"
#include "runtime/core/unique_handle.h"

namespace neoloom::data {
namespace {

using core::ErrorKind;
using core::fail;
using core::require;

constexpr size_t kPieceBytes = size_t{1} << 20;
constexpr std::string_view kGzipMagic = "\x1F\x8B";
constexpr std::string_view kZstdMagic = "\x28\xB5\x2F\xFD";

[[noreturn]] void fail_cut(const std::string& path, std::string_view format, size_t bytes, uint64_t text_bytes) {
  fail(ErrorKind::kData,
       "{}: the {} stream has no end: the file stops after {} bytes, in the middle of the data ({} bytes of text so "
       "far); it was cut, or is still being written: copy it again",
       path, format, bytes, text_bytes);
}

[[noreturn]] void fail_damaged(const std::string& path, std::string_view format, size_t at, std::string_view what) {
  fail(ErrorKind::kData, "{}: the {} data before byte {} are damaged: {}; copy the file again", path, format, at, what);
}

/// Reads gzip members one after another.
class Gunzip {
 public:
  Gunzip(const std::string& path, std::string_view bytes) : path_(path), bytes_(bytes), piece_(kPieceBytes) {
    constexpr int kGzipOnly = 16;
    require(inflateInit2(&stream_, MAX_WBITS + kGzipOnly) == Z_OK, ErrorKind::kData, "{}: inflateInit2 failed", path);
  }
  ~Gunzip() { inflateEnd(&stream_); }
  Gunzip(const Gunzip&) = delete;
  Gunzip& operator=(const Gunzip&) = delete;

  void run(const TakePiece& take, core::ByteProgress& progress) {
    do {
      for (bool ended = false; !ended;) {
        ended = fill_piece();
        const size_t size = kPieceBytes - stream_.avail_out;
        text_bytes_ += size;
        progress.set(at_);
        if (size > 0 && !take({piece_.data(), size})) return;
      }
    } while (next_member());
  }

 private:
  /// Returns whether the member has ended.
  bool fill_piece() {
    stream_.next_out = reinterpret_cast<Bytef*>(piece_.data());
    stream_.avail_out = kPieceBytes;
    while (stream_.avail_out > 0) {
      const size_t most = std::min<size_t>(bytes_.size() - at_, std::numeric_limits<uInt>::max());
      stream_.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(bytes_.data() + at_));  // zlib does not write there
      stream_.avail_in = static_cast<uInt>(most);
      const int result = inflate(&stream_, Z_NO_FLUSH);
      at_ += most - stream_.avail_in;
      if (result == Z_STREAM_END) return true;
      if (result == Z_OK) continue;
      if (result == Z_BUF_ERROR && at_ == bytes_.size()) fail_cut(path_, "gzip", bytes_.size(), text_bytes_);
      fail_damaged(path_, "gzip", at_, complaint(result));
    }
    return false;
  }
  std::string complaint(int result) const {
    const std::string_view said = stream_.msg != nullptr ? stream_.msg : zError(result);
    if (said == "incorrect data check") return "the checksum (CRC-32) in the file is not that of the text";
    if (said == "incorrect length check") return "the length in the file is not that of the text";
    return std::string(said);
  }
  /// Moves to the next member. Zeros at the end are padding, as for gzip.
  bool next_member() {
    const std::string_view rest = bytes_.substr(at_);
    if (rest.find_first_not_of('\0') == std::string_view::npos) return false;
    require(rest.starts_with(kGzipMagic.substr(0, std::min(kGzipMagic.size(), rest.size()))), ErrorKind::kData,
            "{}: the gzip data end before byte {}, and {} bytes follow that are no gzip data (the first is 0x{:02X}); "
            "remove them, or copy the file again",
            path_, at_ + 1, rest.size(), static_cast<unsigned char>(rest.front()));
    inflateReset(&stream_);
    return true;
  }

  const std::string& path_;
  std::string_view bytes_;
  std::vector<char> piece_;
  z_stream stream_{};
  size_t at_ = 0;  // in bytes_
  uint64_t text_bytes_ = 0;
};

void free_stream(ZSTD_DStream* stream) { ZSTD_freeDStream(stream); }

void run_zstd(const std::string& path, std::string_view bytes, const TakePiece& take, core::ByteProgress& progress) {
  const core::UniqueHandle<core::PointerTraits<ZSTD_DStream*, free_stream>> stream(ZSTD_createDStream());
  require(stream.valid(), ErrorKind::kData, "{}: ZSTD_createDStream failed", path);
  std::vector<char> piece(kPieceBytes);
  ZSTD_inBuffer in{bytes.data(), bytes.size(), 0};
  uint64_t text_bytes = 0;
  for (;;) {
    ZSTD_outBuffer out{piece.data(), piece.size(), 0};
    const size_t result = ZSTD_decompressStream(stream.get(), &out, &in);
    if (ZSTD_isError(result) != 0) fail_damaged(path, "zstd", in.pos, ZSTD_getErrorName(result));
    text_bytes += out.pos;
    progress.set(in.pos);
    if (out.pos > 0 && !take({piece.data(), out.pos})) return;
    if (result == 0 && in.pos == in.size) return;
    if (in.pos == in.size && out.pos < out.size) fail_cut(path, "zstd", bytes.size(), text_bytes);
  }
}

}  // namespace

Compression compression_of(std::string_view bytes) {
  if (bytes.starts_with(kGzipMagic)) return Compression::kGzip;
  return bytes.starts_with(kZstdMagic) ? Compression::kZstd : Compression::kNone;
}

void decompress(const std::string& path, std::string_view bytes, Compression compression, const TakePiece& take,
                core::ByteProgress progress) {
  if (compression == Compression::kGzip) return Gunzip(path, bytes).run(take, progress);
  if (compression == Compression::kZstd) return run_zstd(path, bytes, take, progress);
  while (!bytes.empty()) {
    const std::string_view piece = bytes.substr(0, kPieceBytes);
    if (!take(piece)) return;
    progress.add(piece.size());
    bytes.remove_prefix(piece.size());
  }
}

}  // namespace neoloom::data
