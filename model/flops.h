// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "model/model.h"

namespace neoloom::model {

/// See Model::training_flops_per_token. `trainable_elements`: of the adapters.
double training_flops_per_token(const ModelSetup& setup, int64_t trainable_elements, int64_t length);

/// FLOPs per token of attention's scores and sums, forward and backward, in a sample of `length` tokens: what the mask
/// hides does not count.
double attention_flops_per_token(const GptNeoConfig& config, int64_t length);

}  // namespace neoloom::model
