// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "runtime/checkpoint/state.h"
#include "tests/support/scratch.h"

namespace neoloom::checkpoint {

/// A state of `elements` numbers that differ from step to step.
State make_state(int64_t step, size_t elements = 96);

bool equal(const State& a, const State& b);

/// The message of the Error(kCheckpoint) that `act` throws; "" when nothing is thrown.
std::string refusal(const std::function<void()>& act);

std::string read_bytes(const std::string& path);
void write_bytes(const std::string& path, const std::string& bytes);
/// Gives a changed file a hash that fits, as somebody who can write to the folder could.
void sign(const std::string& checkpoint_path);

}  // namespace neoloom::checkpoint
