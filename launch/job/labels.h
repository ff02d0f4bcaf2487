// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "data/options.h"
#include "data/token_store.h"
#include "model/model.h"

namespace neoloom::launch {

/// Rows with each label, by class index.
std::vector<int64_t> label_counts(const data::TokenStore& store, core::Task task);

/// "ham 30, spam 30", the first twelve, "and 8 more".
std::string label_histogram(const std::vector<std::string>& names, const std::vector<int64_t>& counts);

/// What is suspect about the labels of a training file, for the log: a class -1. Empty: nothing.
std::string label_warning(const std::vector<std::string>& names, const std::vector<int64_t>& counts);

/// Names of the rows of a stored classification head.
struct HeadNames {
  std::vector<std::string> names;
  std::string note;  // where the names are from when the head itself does not say; empty: it does
};

/// `own`: the names beside the head (empty: none); `base`: those of the base model, taken when their number fits;
/// `given`: data.label_names, the names of the rows in their order where the head has none or only LABEL_0, ...
/// Without any: LABEL_0, LABEL_1, ... Throws: Error(kUsage) when `given` are others than the head has.
HeadNames name_head_rows(const std::string& where, int64_t rows, const std::vector<std::string>& own,
                         const std::vector<std::string>& base, const std::vector<std::string>& given);

/// Which row of a head with the labels `stored` belongs to each label of a run: by name, or by number where the head
/// has only transformers' default names. nullopt: they are other labels.
std::optional<std::vector<int64_t>> rows_by_name(const std::vector<std::string>& stored,
                                                 const std::vector<std::string>& labels);

/// The head that a run starts from: the base's rows in the order of its labels, or a fresh one.
struct HeadStart {
  std::vector<int64_t> rows;  // of the base's score, by label; empty: a fresh head
  std::string note;           // for the log; empty: the base has no head
};

/// `base`: the names of the base's rows (empty: it has no head). Throws: Error(kUsage) when the labels are others and
/// `ignore_mismatched_sizes` is not set.
HeadStart start_head(const std::string& base_name, const std::vector<std::string>& base,
                     const std::vector<std::string>& labels, bool ignore_mismatched_sizes);

/// Puts the rows of the score head in a flat buffer (as the model lays it out) into another order.
void reorder_head(const model::Model& model, const std::vector<int64_t>& rows, at::Tensor& params);

}  // namespace neoloom::launch
