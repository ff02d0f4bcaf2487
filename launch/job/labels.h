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

/// "ham 30, spam 30", the first `most`, "and 8 more".
std::string label_histogram(const std::vector<std::string>& names, const std::vector<int64_t>& counts,
                            size_t most = 12);

/// "mean 2.5, standard deviation 1.1, from 0 to 5" of the values of a regression; several columns one after another.
std::string value_summary(const data::TokenStore& store);

/// Returns a warning about suspect labels of a training file (a class -1); empty: none.
std::string label_warning(const std::vector<std::string>& names, const std::vector<int64_t>& counts);

/// Names of the rows of a stored classification head.
struct HeadNames {
  std::vector<std::string> names;
  std::string note;  // where the names come from if not from the head; empty: from the head
};

/// Chooses the names of a head's rows.
///   own     names stored beside the head; empty: none
///   base    names of the base model, used when their number fits
///   given   data.label_names in row order, used where the head has no names or only LABEL_0, LABEL_1, ...
/// Without any of them the names are LABEL_0, LABEL_1, ...
/// Throws: Error(kUsage) when `given` differs from the head's names.
HeadNames name_head_rows(const std::string& where, int64_t rows, const std::vector<std::string>& own,
                         const std::vector<std::string>& base, const std::vector<std::string>& given);

/// Returns the row of a head with the labels `stored` for each label of a run: by name, or by class index if the head
/// has only transformers' default names. nullopt: the labels differ.
std::optional<std::vector<int64_t>> rows_by_name(const std::vector<std::string>& stored,
                                                 const std::vector<std::string>& labels);

/// A run's initial head: the base's rows in the order of the run's labels, or a fresh one.
struct HeadStart {
  std::vector<int64_t> rows;  // row of the base's score for each label; empty: a fresh head
  std::string note;           // for the log; empty: the base has no head
};

/// `base`: labels of the base's rows (empty: it has no head). Throws: Error(kUsage) when the labels differ and
/// `ignore_mismatched_sizes` is not set.
HeadStart start_head(const std::string& base_name, const std::vector<std::string>& base,
                     const std::vector<std::string>& labels, bool ignore_mismatched_sizes);

/// Reorders the rows of the score head in a flat parameter buffer: new row i is old row rows[i].
void reorder_head(const model::Model& model, const std::vector<int64_t>& rows, at::Tensor& params);

}  // namespace neoloom::launch
