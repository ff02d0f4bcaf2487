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
#include "runtime/core/progress.h"

namespace neoloom::data {

/// Inputs of a token store. The content hash covers the bytes of the files in their order, the tokenizer and these
/// settings.
struct StoreRequest {
  Files files;      // input files; read in the order of Files::expand, each in the format of its own name
  Options options;  // columns, format
  TokenizerOptions tokenizer_options;
  Task task = Task::kSingleLabel;
  int64_t max_length_tokens = 2048;  // longer samples are truncated
  bool loss_on_prompt = false;       // causal LM with prompts: all tokens are targets
  bool require_labels = true;        // false: labels may be absent (prediction)
  // For prediction: sample i is row i (pack i, where rows have windows). A row that cannot be used, or whose text has
  // no tokens, becomes a sample of one token and is listed in invalid_rows(), whatever the tolerance.
  bool every_row = false;
  // Fixed map (validation, resume): a label outside it is an error. Overrides options.label_names.
  std::optional<std::vector<std::string>> label_names;
  std::optional<int64_t> num_labels;  // integer labels 0..num_labels-1 without names
  // Without a fixed map: the order of the labels, if the file has exactly these.
  std::vector<std::string> preferred_label_names;
  int64_t embedding_rows = 0;  // a row with a token id >= this cannot be used; 0: no limit
};

struct InvalidRow {
  int64_t line = 0;     // 1-based line of the input file where the row starts
  std::string reason;   // of several files, it begins with the name of this one
  int64_t sample = -1;  // with StoreRequest::every_row: the row's sample; where rows have windows: its pack
};

/// Tokenised samples in one HDF5 file, whose contiguous datasets are mapped read-only. Ranks of a node share the pages,
/// and no reader waits for HDF5's lock. See data/FORMAT.md.
/// Thread: reading is safe from any thread.
class TokenStore {
 public:
  /// Returns the store's path in the cache, which contains the content hash. Reads all input files once.
  static std::string path_for(const StoreRequest& request, const Tokenizer& tokenizer, const core::Cache& cache);
  /// Reads and tokenises the input, writes a temporary file, and publishes it by rename.
  /// Throws: Error(kData) for a pattern without a file, an empty file, one that is not UTF-8, a missing column (listing
  /// those found), a label outside the map, or more unreadable rows than the tolerance (listing line numbers).
  static void build(const StoreRequest& request, const Tokenizer& tokenizer, const std::string& store_path,
                    const core::BeginWork& begin = {});
  /// Maps a store without checking its checksum (is_whole() does). Throws: Error(kData) when its layout is wrong.
  static std::shared_ptr<const TokenStore> open(const std::string& store_path);
  /// Whether the cache holds this store, undamaged and not renamed. Otherwise the caller should build it; tells the
  /// user about a damaged one.
  /// Throws: Error(kUsage) when another user may have written it (core::Cache::require_own).
  static bool is_whole(const std::string& store_path, const core::Cache& cache);

  virtual ~TokenStore() = default;
  virtual int64_t size() const = 0;  // samples
  virtual std::span<const int32_t> ids(int64_t sample) const = 0;
  /// Tokens at the front that carry no loss (the prompt); 0 for plain text.
  virtual int32_t prompt_tokens(int64_t sample) const = 0;
  /// Of a chat: the tokens that carry loss, begin and end of each span in turn, [2 spans]. Empty: all after the prompt.
  virtual std::span<const int32_t> target_spans(int64_t) const { return {}; }
  /// Single-label: class index; -1 when unlabelled.
  virtual int64_t label(int64_t sample) const = 0;
  /// Multi-label: [num_labels] of 0 or 1.
  virtual std::span<const uint8_t> multi_label(int64_t sample) const = 0;
  /// Regression: [num_labels]; NaN when unlabelled.
  virtual std::span<const float> values(int64_t sample) const = 0;
  /// Whether every sample is labelled; always true for causal LM.
  virtual bool labelled() const = 0;
  virtual const std::vector<std::string>& label_names() const = 0;
  /// Lengths in tokens, [size()].
  virtual std::span<const int32_t> lengths() const = 0;
  /// Targets of each sample, [size()]. Causal LM: supervised tokens after the first token; classification: 1, or 0 if
  /// unlabelled.
  virtual std::span<const int32_t> target_counts() const = 0;
  /// The first 10,000 rows that could not be read and were skipped (StoreRequest::every_row: all).
  virtual const std::vector<InvalidRow>& invalid_rows() const = 0;
  virtual int64_t invalid_row_count() const { return static_cast<int64_t>(invalid_rows().size()); }
  virtual bool truncated(int64_t) const { return false; }
  virtual int64_t truncated_samples() const = 0;
  /// Where the samples of each pack begin, then size(): [packs() + 1]. Empty: every sample is a pack of its own. In a
  /// store of windows a pack is a row, and its samples are the windows of this row.
  virtual std::span<const int64_t> pack_begins() const { return {}; }
  /// The same samples as the files have them, in their order, with the count of rows left out: without data.pack, and
  /// windows by row.
  virtual const TokenStore& unpacked() const { return *this; }
  /// Number of packs. Batch sizes count these.
  int64_t packs() const;
  /// The first sample of a pack in [0, packs()); size() for packs().
  int64_t pack_begin(int64_t pack) const;
  /// Number of packs whose first sample has no target (unlabelled, or truncated before the response).
  int64_t packs_without_target() const;
  /// SHA-256 that identifies inputs, tokenizer and settings.
  virtual const std::string& content_hash() const = 0;
};

}  // namespace neoloom::data
