// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "data/files.h"
#include "runtime/core/task.h"

namespace neoloom::data {

using core::Task;

/// Files of one validation set.
struct ValidationFiles {
  std::string name;  // that metrics bear: eval_NAME_loss; empty: the only set
  Files files;
};

/// The configuration group `data`: which files, which columns.
struct Options {
  Files train;
  std::vector<ValidationFiles> validation;
  double validation_split = 0;     // share of the samples of train that validate instead; 0: none
  std::string format = "auto";     // auto (by file name) | jsonl | json | csv | tsv | text
  bool header = true;              // CSV/TSV: the first row names the columns; false: names are "0", "1", ...
  bool quoting = true;             // CSV/TSV: RFC 4180 quotes; false: quote characters are text
  std::string delimiter;           // CSV/TSV: one character; empty: comma or tab, by the format
  std::string encoding = "utf-8";  // utf-8 | latin-1 | cp1252 | utf-8-replace
  std::string text_column = "text";
  std::string text_pair_column;  // classification: second text of a pair; empty: none
  std::string label_column;      // single-label: string or integer; regression: number or list of numbers
  std::string labels_column;     // multi-label: list of names (JSON), or names joined by labels_separator (CSV)
  std::string labels_separator = "|";
  std::string prompt_column;  // with response_column: causal LM, loss on the response only
  std::string response_column;
  std::string messages_column;       // in place of both: column of a chat, a list of {role, content}
  std::string prompt_template;       // in place of both: see PromptTemplate; of a chat: see ChatTemplate; beside both:
                                     // kNewline, or empty: nothing stands between prompt and response
  bool template_is_default = false;  // beside both: nobody gave the template
  std::string pack = "auto";  // causal LM: auto (documents for plain text, else none) | documents | samples | none
  std::vector<std::string> label_names;  // fixes the label map and its order; empty: from the training file
  double invalid_data_tolerance_percent = 0.0;
};

/// data.template beside prompt_column and response_column: a line break between the two, or nothing.
inline constexpr const char* kNewline = "newline";
inline constexpr const char* kJoined = "joined";

/// Whether rows hold a prompt and a response, or a chat.
inline bool has_responses(const Options& options) {
  return !options.prompt_column.empty() || !options.response_column.empty() || !options.prompt_template.empty() ||
         !options.messages_column.empty();
}

/// The configuration group `tokenizer_config`.
struct TokenizerOptions {
  std::string pretrained_tokenizer_name;   // folder; empty: the model's own
  int64_t max_length = 0;                  // tokens; 0: the model's max_position_embeddings
  bool add_eos_token = true;               // causal LM: append eos once after each text
  bool split_special_tokens = false;       // true: "<|endoftext|>" in the data is plain text
  std::string truncation_side = "right";   // right | left: where samples longer than max_length lose tokens
  bool return_overflowing_tokens = false;  // classification: a longer text becomes several windows; see windows.h
  int64_t stride = 0;                      // tokens that a window shares with the one before it
};

}  // namespace neoloom::data
