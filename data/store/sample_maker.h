// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "data/chat_template.h"
#include "data/prompt_template.h"
#include "data/readers/rows.h"
#include "data/store/labels.h"
#include "data/token_store.h"

namespace neoloom::data {

/// One tokenised record. Labels are provisional numbers of Labels, translated when all rows are read.
struct Sample {
  std::vector<int32_t> ids;
  int32_t prompt_tokens = 0;
  std::vector<int32_t> target_spans;  // TokenStore::target_spans
  int32_t target_count = 0;
  bool truncated = false;
  std::optional<int64_t> label;
  std::optional<std::vector<int64_t>> multi_labels;
  std::vector<float> values;  // regression; empty: unlabelled
  size_t zeros_and_ones = 0;  // length of a label list whose items are all 0 or 1
};

/// Turns rows into samples by the roles of the columns.
class SampleMaker {
 public:
  /// Throws: Error(kUsage) when the request lacks a column name or an eos token that it needs.
  SampleMaker(const StoreRequest& request, const Tokenizer& tokenizer);

  /// The columns to read, in the order in which make() expects their cells.
  const std::vector<Column>& columns() const { return columns_; }
  /// Converts a row to `sample`. `document`: a text of any length, which is not truncated, nor is one that windows()
  /// cuts. Returns why the row cannot be used; empty on success. Throws: Error(kData) for a label outside a fixed map.
  std::string make(const Row& row, Labels& labels, Sample& sample, bool document = false) const;
  /// Encodes a text of any length, with eos appended if configured.
  std::vector<int32_t> encode_document(std::string_view text) const;
  /// Whether rows hold chats, in Cell::json.
  bool reads_chats() const { return chat_.has_value(); }
  /// Whether a text becomes windows (tokenizer_config.return_overflowing_tokens).
  bool makes_windows() const { return makes_windows_; }
  /// The ids of each window of a sample, with the tokens that stand in front of every text; see windows_of().
  std::vector<std::vector<int32_t>> windows(const std::vector<int32_t>& ids) const;
  /// Says why the model cannot take these ids (one has no row in its embedding); empty when it can.
  std::string complaint_about(const std::vector<int32_t>& ids) const;

 private:
  std::vector<int32_t> ended(std::vector<int32_t> ids) const;
  void prepare_windows(bool causal);
  void make_text(const std::string& text, Sample& sample) const;
  /// Cuts ids that are longer than max_length. Those that stand in front of every text stay.
  void truncate(Sample& sample) const;
  void read_template(const Options& options);
  void make_prompted(const Row& row, Sample& sample) const;
  std::string make_chat(const Cell& cell, Sample& sample) const;
  /// Moves target spans to where truncation left their tokens. `removed`: tokens at the start.
  void fit_spans(int32_t removed, Sample& sample) const;
  void join(const std::string& prompt, const std::string& response, Sample& sample) const;
  void make_pair(const std::string& text, const std::string& pair, Sample& sample) const;
  std::string make_label(const Cell& cell, int64_t line, Labels& labels, Sample& sample) const;
  /// Reads the label of the task.
  std::string make_target(const Cell& cell, int64_t line, Labels& labels, Sample& sample) const;
  std::string make_values(const Cell& cell, Sample& sample) const;
  std::string make_labels(const Cell& cell, int64_t line, Labels& labels, Sample& sample) const;

  const StoreRequest& request_;
  const Tokenizer& tokenizer_;
  std::vector<Column> columns_;
  size_t max_length_tokens_ = 0;
  int32_t eos_id_ = -1;  // appended when not negative
  bool prompted_ = false;
  bool paired_ = false;
  bool cuts_start_ = false;
  bool makes_windows_ = false;
  std::optional<PromptTemplate> template_;
  std::optional<ChatTemplate> chat_;
  bool has_label_column_ = false;
};

}  // namespace neoloom::data
