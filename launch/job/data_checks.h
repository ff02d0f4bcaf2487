// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "data/hygiene.h"
#include "data/token_store.h"
#include "launch/job/inputs.h"

namespace neoloom::launch {

/// Looks for rows that teach nothing, in the validation data, too, if the run evaluates. `validation` may be null.
/// Returns warnings. Throws: Error(kData) when there are no others.
std::vector<std::string> target_warnings(const Inputs& inputs, const data::TokenStore& train,
                                         const data::TokenStore* validation);

/// Returns what deserves a look in the data: data::findings for this job. `validation` may be null.
std::vector<data::Finding> findings(const Inputs& inputs, const data::TokenStore& train,
                                    const data::TokenStore* validation);

}  // namespace neoloom::launch
