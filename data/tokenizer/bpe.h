// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

#include "data/tokenizer/tokenizer_files.h"

namespace neoloom::data {

/// Merges the bytes of a word by byte-level BPE: repeatedly merges the leftmost pair of the lowest rank, until none is
/// left. Time: O(n log n) in the length of a word.
class BytePairMerger {
 public:
  /// Throws: Error(kWeights) when a merge names a token that is not in the vocabulary.
  explicit BytePairMerger(const TokenizerFiles& files);

  /// Appends the ids of one word.
  void append_ids(std::string_view word, std::vector<int32_t>& ids) const;
  /// Id of a single byte; -1: the byte has no token and is dropped.
  int32_t byte_id(unsigned char byte) const { return byte_ids_[byte]; }

 private:
  struct Merge {
    uint64_t pair = kNoPair;
    int32_t rank = 0;
    int32_t merged_id = -1;
  };
  static constexpr uint64_t kNoPair = ~uint64_t{0};
  static uint64_t pair_of(int32_t left, int32_t right) {
    return uint64_t{static_cast<uint32_t>(left)} << 32 | static_cast<uint32_t>(right);
  }
  size_t slot_of(uint64_t pair) const;
  void insert(uint64_t pair, int32_t rank, int32_t merged_id);
  const Merge* find(int32_t left, int32_t right) const;
  void merge_short(std::vector<int32_t>& ids, size_t begin) const;
  void merge_long(std::vector<int32_t>& ids, size_t begin) const;

  std::array<int32_t, 256> byte_ids_{};
  std::vector<Merge> table_;  // open addressing, a power of two, at most half full
};

}  // namespace neoloom::data
