// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace neoloom::data {

struct PairOptions {
  size_t max_length_tokens = 0;  // of both texts and the special tokens
  bool split_special_tokens = false;
  bool cuts_start = false;  // tokenizer_config.truncation_side: left
};

/// GPT-2 byte-level BPE with the ids of Hugging Face's `tokenizers`. Thread: encoding is const but not thread-safe,
/// since it caches words. Give each thread its own clone().
class Tokenizer {
 public:
  /// Reads tokenizer.json, or vocab.json + merges.txt, and tokenizer_config.json / special_tokens_map.json from a
  /// folder. Throws: Error(kWeights) naming the missing or broken file.
  static Tokenizer from_folder(const std::string& folder);

  ~Tokenizer();
  Tokenizer(Tokenizer&&) noexcept;
  Tokenizer& operator=(Tokenizer&&) noexcept;
  /// Returns a copy that shares the tables and has its own cache.
  Tokenizer clone() const;

  /// `text` should be UTF-8; other bytes are encoded as bytes. Appends nothing (no bos, eos).
  std::vector<int32_t> encode(std::string_view text, bool split_special_tokens = false) const;
  /// Encodes front_ids() and the text, as transformers encodes a single text for a model.
  std::vector<int32_t> encode_input(std::string_view text, bool split_special_tokens = false) const;
  /// Encodes two texts as transformers' tokenizer(text, pair, truncation=True, max_length=...): tokens are cut from the
  /// end (or the start) of the longer text first. Sets `truncated`. Throws: Error(kWeights) when the post-processor's
  /// template for pairs is not supported.
  std::vector<int32_t> encode_pair(std::string_view text, std::string_view pair, const PairOptions& options,
                                   bool& truncated) const;
  /// Bytes of the ids; invalid UTF-8 becomes U+FFFD.
  std::string decode(std::span<const int32_t> ids, bool skip_special_tokens = false) const;
  /// Raw bytes of one id (for streaming).
  std::string token_bytes(int32_t id) const;

  /// 1 + the largest id of vocabulary and added tokens.
  int32_t vocab_size() const;
  int32_t eos_token_id() const;  // -1: none
  int32_t pad_token_id() const;  // -1: none
  /// Ids that the post-processor (without tokenizer.json: add_bos_token) prepends to each text; usually none.
  const std::vector<int32_t>& front_ids() const;
  /// SHA-256 over everything that affects ids.
  const std::string& content_hash() const;
  /// Notes for the log, e.g. on a truncation section in tokenizer.json, which is ignored.
  const std::vector<std::string>& notes() const;
  /// Absolute paths of the folder's tokenizer files, for copying beside an adapter.
  const std::vector<std::string>& files() const;

 private:
  struct Tables;
  struct Cache;
  explicit Tokenizer(std::shared_ptr<const Tables> tables);
  std::shared_ptr<const Tables> tables_;
  std::unique_ptr<Cache> cache_;
};

}  // namespace neoloom::data
