// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "launch/config/run_config.h"
#include "runtime/comm/mpi_session.h"

namespace neoloom::launch {

/// Downloads the model and the tokenizer that the configuration names by hub ids, where neither a folder nor Hugging
/// Face's cache holds them: rank 0 first, then one rank of each other node. With HF_HUB_OFFLINE it does nothing.
/// Collective: every rank. Throws: Error(kWeights).
void fetch_from_hub(comm::MpiSession& session, const RunConfig& config);

/// Returns the folder of tokenizer_config.pretrained_tokenizer_name, a folder or a hub id; empty: none is named.
/// Throws: Error(kWeights) when no cache holds it.
std::string tokenizer_folder(const RunConfig& config);

}  // namespace neoloom::launch
