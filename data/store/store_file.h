// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "data/token_store.h"
#include "runtime/core/unique_handle.h"

namespace neoloom::data {

inline constexpr int64_t kStoreFormatVersion = 1;

/// Buffers token ids in an unnamed file beside the store, so that building it takes bounded memory.
class IdSpool {
 public:
  /// Throws: Error(kData) when no file can be created in `directory`.
  explicit IdSpool(const std::string& directory);
  void append(std::span<const int32_t> ids);
  int64_t size_tokens() const { return size_tokens_; }
  /// Calls `each(begin, ids)` over all ids in order, in pieces.
  template <typename Each>
  void for_pieces(Each each) {
    flush();
    std::vector<int32_t> piece;
    for (int64_t begin = 0; begin < size_tokens_; begin += static_cast<int64_t>(piece.size())) {
      read_piece(begin, piece);
      each(begin, std::span<const int32_t>(piece));
    }
  }

 private:
  void flush();
  void read_piece(int64_t begin_tokens, std::vector<int32_t>& piece) const;
  std::string directory_;
  core::UniqueFd file_;
  std::vector<int32_t> buffer_;
  int64_t size_tokens_ = 0;
};

/// All of a store but its ids.
struct StoreContent {
  std::string content_hash;
  std::vector<int64_t> offsets = {0};  // [n + 1] in tokens
  std::vector<int32_t> prompt_tokens;  // [n]
  std::vector<int32_t> target_counts;  // [n]
  std::vector<int64_t> labels;         // [n]
  std::vector<uint8_t> multi_labels;   // [n, k]; empty unless multi-label
  std::vector<float> values;           // [n, k]; empty unless regression
  std::vector<std::string> label_names;
  std::vector<InvalidRow> invalid_rows;  // the first 10,000, or all
  int64_t invalid_row_count = 0;
  std::vector<uint8_t> truncated;     // [n]: 0 or 1
  std::vector<int64_t> row_begins;    // windows: TokenStore::pack_begins; empty: other samples
  std::vector<int64_t> span_offsets;  // chats: [n + 1] in numbers of target_spans; empty: other samples
  std::vector<int32_t> target_spans;  // chats: TokenStore::target_spans of all samples, one after another
  bool labelled = false;
};

/// Writes a store and publishes it by rename. Throws: WriteError(kData); the temporary file is removed.
void publish_store(const StoreContent& content, IdSpool& ids, const std::string& store_path);

/// A line of 64 bytes follows the HDF5 data: this text, 32 hex digits (runtime/core/checksum.h), blanks, a newline.
inline constexpr std::string_view kChecksumLine = "neoloom xxh3-128 ";
inline constexpr size_t kChecksumLineBytes = 64;

/// Throws: Error(kData) unless the file's checksum line matches its bytes.
void verify_checksum(const std::string& store_path, const core::Cache& cache);

/// Maps a store after checking its layout. Throws: Error(kData).
std::shared_ptr<const TokenStore> map_store(const std::string& store_path);

}  // namespace neoloom::data
