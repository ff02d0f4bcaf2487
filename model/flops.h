// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "model/model.h"

namespace neoloom::model {

/// See Model::training_flops_per_token. `trainable_elements`: of the adapters.
double training_flops_per_token(const ModelSetup& setup, int64_t trainable_elements, int64_t length);

/// What gradient checkpointing computes once more for each token: the products of all blocks but the last, without
/// c_proj's, whose result nobody reads.
double recomputed_flops_per_token(const ModelSetup& setup);

}  // namespace neoloom::model
