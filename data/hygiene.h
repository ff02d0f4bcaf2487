// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "data/options.h"
#include "data/token_store.h"

namespace neoloom::data {

/// Labels with fewer rows than this are told.
inline constexpr int64_t kFewRows = 10;

/// Two samples with the same tokens, by index.
struct SamplePair {
  int64_t first = 0;
  int64_t second = 0;
};

/// How an empty text, prompt or response looks in tokens. White space alone is empty, too.
struct EmptyTokens {
  int64_t text = 0;              // how many tokens an empty text or prompt has that are not blank
  bool prompts = false;          // the tokens before a response are those of the prompt column, and blank ones
  int32_t response_end = -1;     // the token that ends each response; -1: none, or the store has no responses
  bool loss_on_prompt = false;   // the store does not tell where a response begins
  std::vector<bool> blank = {};  // by token: it is white space; see blank_tokens()
};

/// Says of each token of the vocabulary whether it is white space.
std::vector<bool> blank_tokens(const Tokenizer& tokenizer);

/// Counts the rows of a classification whose text is empty.
int64_t empty_texts(const TokenStore& store, const EmptyTokens& empty);

/// Counts the samples of a causal language model whose prompt is empty, and those whose response is. A sample that was
/// cut may have lost its prompt, and does not count.
int64_t empty_prompts(const TokenStore& store, const EmptyTokens& empty);
int64_t empty_responses(const TokenStore& store, const EmptyTokens& empty);

/// Counts the samples that were cut within a response, so that its end is gone.
int64_t cut_responses(const TokenStore& store, const EmptyTokens& empty);

/// White space beside a line break that a template puts behind each prompt.
struct BlankBorders {
  int64_t prompts = 0;    // that end in white space
  int64_t responses = 0;  // that begin with it
};
BlankBorders blank_borders(const TokenStore& store, const Tokenizer& tokenizer);

/// What one file holds. Samples are compared as the model sees them: by the tokens that remain after truncation. A row
/// in windows is one sample here.
struct FileHygiene {
  int64_t samples = 0;
  int64_t truncated = 0;
  std::string windows;  // window_summary()
  int64_t empty = 0;    // classification: texts of nothing, or of white space
  int64_t empty_prompts = 0;
  int64_t empty_responses = 0;
  int64_t cut_responses = 0;
  int64_t repeated = 0;  // samples whose tokens an earlier sample has
  std::optional<SamplePair> repeated_example;
  int64_t contradictory_texts = 0;  // texts that have samples with different labels, or values
  std::optional<SamplePair> contradictory_example;
  std::vector<int64_t> label_samples;  // by class index; multi-label: samples with the label
  // Lengths in tokens, of samples or windows. The q-th percentile is the smallest length that q % of the samples do not
  // exceed.
  int32_t median = 0, percentile_90 = 0, percentile_95 = 0, percentile_99 = 0, longest = 0;
};

/// What the files of a run hold.
struct Hygiene {
  FileHygiene train;
  std::optional<FileHygiene> validation;
  int64_t shared = 0;                        // validation samples whose tokens a training sample has
  std::optional<SamplePair> shared_example;  // of validation, of training
};

/// Counts the samples with each label, by class index. A row in windows is one sample.
std::vector<int64_t> label_counts(const TokenStore& store, Task task);

/// Inspects the stores of a run. Takes 16 bytes of memory a sample, 4 for lengths, and the time to read all tokens
/// once. Samples are compared by hashes of 64 bits: of a million different ones, two are taken for equal with a
/// probability of 3e-8.
Hygiene inspect(const TokenStore& train, const TokenStore* validation, Task task, const EmptyTokens& empty);

/// One line of the report.
struct Finding {
  std::string name;  // "training data"
  std::string text;
  bool warning = false;
};
/// The report: lengths first, then what deserves a look. `label_names`: by class index.
std::vector<Finding> findings(const Hygiene& hygiene, const std::vector<std::string>& label_names);

}  // namespace neoloom::data
