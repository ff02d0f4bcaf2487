// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace neoloom::data {

/// GPT-2 byte-level BPE with the ids of Hugging Face's `tokenizers`. Encoding is const but not thread safe on one
/// object (it caches words): give each thread its own copy by clone().
class Tokenizer {
 public:
  /// Reads tokenizer.json, or vocab.json + merges.txt, and tokenizer_config.json / special_tokens_map.json from a
  /// folder. Throws: Error(kWeights) naming the missing or broken file.
  static Tokenizer from_folder(const std::string& folder);

  ~Tokenizer();
  Tokenizer(Tokenizer&&) noexcept;
  Tokenizer& operator=(Tokenizer&&) noexcept;
  /// Shares the tables, has a cache of its own.
  Tokenizer clone() const;

  /// `text` should be UTF-8; other bytes are encoded as bytes. Appends nothing (no bos, eos).
  std::vector<int32_t> encode(std::string_view text, bool split_special_tokens = false) const;
  /// What a model gets: front_ids(), then the text, as transformers encodes a single text.
  std::vector<int32_t> encode_input(std::string_view text, bool split_special_tokens = false) const;
  /// Bytes of the ids; invalid UTF-8 becomes U+FFFD.
  std::string decode(std::span<const int32_t> ids, bool skip_special_tokens = false) const;
  /// Raw bytes of one id (for streaming).
  std::string token_bytes(int32_t id) const;

  /// 1 + the largest id of vocabulary and added tokens.
  int32_t vocab_size() const;
  int32_t eos_token_id() const;  // -1: none
  int32_t pad_token_id() const;  // -1: none
  /// What the post-processor (without tokenizer.json: add_bos_token) puts in front of each text; mostly nothing.
  const std::vector<int32_t>& front_ids() const;
  /// SHA-256 over everything that decides ids.
  const std::string& content_hash() const;
  /// Notes for the log, e.g. a truncation block in tokenizer.json that is not obeyed.
  const std::vector<std::string>& notes() const;
  /// The folder's tokenizer files (absolute paths), to be copied beside an adapter.
  const std::vector<std::string>& files() const;

 private:
  struct Tables;
  struct Cache;
  explicit Tokenizer(std::shared_ptr<const Tables> tables);
  std::shared_ptr<const Tables> tables_;
  std::unique_ptr<Cache> cache_;
};

}  // namespace neoloom::data
