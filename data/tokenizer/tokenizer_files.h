// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

namespace neoloom::data {

/// A token that is matched literally before the text is split into words.
struct AddedToken {
  int32_t id = -1;
  std::string content;      // UTF-8
  bool special = false;     // skipped by decode on request, split as text on request
  bool normalized = false;  // matched after those that are not normalized
  bool lstrip = false;      // also matches the white space on its left
  bool rstrip = false;
};

/// Content of the files of a tokenizer folder. Tokens are written in byte symbols.
struct TokenizerFiles {
  std::unordered_map<std::string, int32_t> vocab;
  std::vector<std::pair<std::string, std::string>> merges;  // by rank
  std::vector<AddedToken> added_tokens;                     // by id
  std::unordered_set<int32_t> added_ids;                    // of them
  std::unordered_set<std::string> added_contents;           // of them
  bool add_prefix_space = false;
  bool ignore_merges = false;  // a word that is in the vocabulary is not merged
  int32_t unk_id = -1;         // for bytes without a token; -1: they are dropped
  int32_t eos_id = -1;
  int32_t pad_id = -1;
  std::vector<int32_t> front_ids;   // that transformers prepends to each text
  std::vector<int32_t> middle_ids;  // and to the second text of a pair
  std::string pair_complaint;       // why pairs are not supported; empty: they are
  std::vector<std::string> notes;
  std::vector<std::string> files;  // absolute paths
};

/// Reads tokenizer.json, or vocab.json + merges.txt, and the configuration files beside them.
/// Throws: Error(kWeights) naming the missing or broken file, or the feature that is not supported.
TokenizerFiles read_tokenizer_files(const std::string& folder);

}  // namespace neoloom::data
