// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <string>

#include "data/token_store.h"
#include "runtime/train/eval_result.h"
#include "runtime/train/side_product.h"

namespace neoloom::train {

/// The mistakes.jsonl of a run folder: the most confident mistakes of the last evaluation of each validation set. Its
/// lines have the form of predict's: index, label, score, scores (of the true label alone), and as kept columns truth,
/// text and, where there are several sets, set. `index` counts the rows of the tokenised data from 0.
class MistakesFile {
 public:
  using Decode = std::function<std::string(std::span<const int32_t> ids)>;

  /// An empty `decode`: lines have no text.
  MistakesFile(std::string folder, Decode decode);
  /// Does nothing for other tasks than one label a row.
  SideProduct::Outcome update(const std::string& set, const EvalResult& result, const data::TokenStore& store);

 private:
  std::string folder_;
  Decode decode_;
  std::map<std::string, std::string> lines_;  // by validation set
  SideProduct file_{"mistakes.jsonl"};
};

}  // namespace neoloom::train
