// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "data/hygiene.h"
#include "data/token_store.h"
#include "launch/job/inputs.h"
#include "runtime/train/evaluator.h"

namespace neoloom::launch {

/// Returns the files that a run reads, as the configuration names them: those to train on, then those of all validation
/// sets.
std::vector<std::string> data_file_names(const data::Options& data);

/// Looks for rows that teach nothing, in the validation data, too, if the run evaluates. Returns warnings, also of
/// validation data that nothing evaluates, and of keys of data that no file needs. Throws: Error(kData) when there are
/// no rows that teach.
std::vector<std::string> target_warnings(const Inputs& inputs, const data::TokenStore& train,
                                         const std::vector<train::ValidationSet>& validation);

/// Returns a line for each row that could not be used.
std::vector<std::string> rows_left_out(const data::TokenStore& train,
                                       const std::vector<train::ValidationSet>& validation);

/// Returns what deserves a look in the data: data::findings for this job, for each validation set.
std::vector<data::Finding> findings(const Inputs& inputs, const data::TokenStore& train,
                                    const std::vector<train::ValidationSet>& validation);

/// Says what rows with responses are made of, and how the samples to train on share packs.
std::vector<data::Finding> sample_facts(const Inputs& inputs, const data::TokenStore& train);

}  // namespace neoloom::launch
