// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "model/model.h"
#include "runtime/comm/mpi_session.h"

namespace neoloom::launch {

/// Returns Model::initialize's values [layout().total_elements] fp32 in host memory, with the same bits on every rank.
/// The ranks share the adapters whose values need a matrix decomposition, which takes minutes for a large model.
/// Collective: every rank. Throws: CollectiveError(kWeights) as Model::initialize_share.
at::Tensor initial_values(comm::MpiSession& session, const model::Model& model, uint64_t seed);

}  // namespace neoloom::launch
