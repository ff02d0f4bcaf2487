// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "data/options.h"
#include "data/tokenizer/tokenizer.h"
#include "runtime/core/cache.h"

namespace neoloom::data {

/// What a token store is made from. Its content hash covers the file's bytes, the tokenizer and these settings.
struct StoreRequest {
  std::string path;  // input file
  Options options;   // columns, format
  TokenizerOptions tokenizer_options;
  Task task = Task::kSingleLabel;
  int64_t max_length_tokens = 2048;  // samples are cut to this many tokens (front kept)
  bool require_labels = true;        // false: prediction input, labels may be absent
  // Prediction: sample i is row i. A row that cannot be used, or whose text has no tokens, is a sample of one token
  // that invalid_rows() names, whatever the tolerance; all of them are kept.
  bool every_row = false;
  // Fixed map (validation, resume): a label outside it is an error. Overrides options.label_names.
  std::optional<std::vector<std::string>> label_names;
  std::optional<int64_t> num_labels;  // integer labels 0..num_labels-1 without names
  // Without a fixed map: the order of the labels when those of the file are just these (in any order).
  std::vector<std::string> preferred_label_names;
  int64_t embedding_rows = 0;  // a text with a token id from here on is no usable row; 0: any id is good
};

struct InvalidRow {
  int64_t line = 0;  // 1-based line of the input file where the row starts
  std::string reason;
  int64_t sample = -1;  // StoreRequest::every_row: the sample that stands for the row
};

/// Tokenised samples in one HDF5 file, contiguous datasets mapped read-only: ranks of a node share the pages and no
/// reader waits for HDF5's lock. See data/FORMAT.md.
/// Thread: reading is safe from any thread.
class TokenStore {
 public:
  /// Path that `request` maps to inside `cache_dir` (hashes the inputs; reads the whole input file once).
  static std::string path_for(const StoreRequest& request, const Tokenizer& tokenizer, const std::string& cache_dir);
  /// Reads, tokenises, writes a temporary file, publishes it by rename.
  /// Throws: Error(kData): empty file, not UTF-8, missing column (with the columns found), label outside the map,
  /// more unreadable rows than the tolerance (listing line numbers).
  static void build(const StoreRequest& request, const Tokenizer& tokenizer, const std::string& store_path);
  /// Throws: Error(kData) when the file is not a complete store. Its checksum is is_whole()'s business.
  static std::shared_ptr<const TokenStore> open(const std::string& store_path);
  /// Whether the cache holds the store of that path, whole, with the right checksum and made for this name. A damaged
  /// one is named and is to be built again. Throws: Error(kUsage): somebody else may have written it.
  static bool is_whole(const std::string& store_path, const core::Cache& cache);

  virtual ~TokenStore() = default;
  virtual int64_t size() const = 0;  // samples
  virtual std::span<const int32_t> ids(int64_t sample) const = 0;
  /// Tokens at the front that carry no loss (the prompt); 0 for plain text.
  virtual int32_t prompt_tokens(int64_t sample) const = 0;
  /// Single-label: class index; -1 when unlabelled.
  virtual int64_t label(int64_t sample) const = 0;
  /// Multi-label: [num_labels] of 0 or 1.
  virtual std::span<const uint8_t> multi_label(int64_t sample) const = 0;
  /// Every sample has its targets; always true for causal LM.
  virtual bool labelled() const = 0;
  virtual const std::vector<std::string>& label_names() const = 0;
  /// Lengths in tokens, [size()].
  virtual std::span<const int32_t> lengths() const = 0;
  /// Targets that count for the loss: causal LM max(0, supervised tokens after the first); classification 1, 0 for an
  /// unlabelled sample.
  virtual std::span<const int32_t> target_counts() const = 0;
  /// Rows that could not be read and were skipped, the first 10,000 of them (StoreRequest::every_row: all).
  virtual const std::vector<InvalidRow>& invalid_rows() const = 0;
  virtual int64_t invalid_row_count() const { return static_cast<int64_t>(invalid_rows().size()); }
  virtual int64_t truncated_samples() const = 0;
  /// Samples without any target for the loss (a response that truncation cut off, an unlabelled row).
  int64_t samples_without_target() const;
  /// SHA-256 that identifies inputs, tokenizer and settings.
  virtual const std::string& content_hash() const = 0;
};

}  // namespace neoloom::data
