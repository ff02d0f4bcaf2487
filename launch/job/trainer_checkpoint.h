// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

namespace neoloom::launch {

/// Says of a folder that transformers' Trainer saved while it trained (checkpoint-N, with trainer_state.json) from
/// which step it is, and what of it training does not read; "" for another folder.
std::string note_on_trainer_checkpoint(const std::string& folder);

}  // namespace neoloom::launch
