// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

#include "data/readers/file_sample.h"
#include "launch/config/run_config.h"
#include "runtime/core/progress.h"

namespace neoloom::launch {

/// Sizes for a first run, and why.
struct FirstSizes {
  int64_t max_length = 0;  // tokens
  std::string length_reason;
  int64_t micro_batch_size = 0;  // samples
  std::string batch_reason;
  int64_t samples = 0;   // that the sampled rows make
  bool measured = true;  // false: estimated, as the model is not here
};

/// A step of a first run has this many samples.
inline constexpr int64_t kFirstGlobalBatch = 16;

/// Measures the sample's lengths and the memory of its longest samples, as `plan` does, for runs on `threads` threads
/// of this machine. Without the model's files it estimates the length from the bytes. max_length is the 99th
/// percentile, but a plain number for documents of text. A max_length of `config` is kept.
/// Throws: as read_inputs and TokenStore::build; Error(kWeights) for a model folder that does not exist.
FirstSizes first_sizes(const RunConfig& config, const data::FileSample& sample, int64_t threads,
                       const core::BeginWork& show);

}  // namespace neoloom::launch
