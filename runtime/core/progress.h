// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>

namespace neoloom::core {

/// Is told how much of `total` a long piece of work has done, in the unit of whoever made it. Call it often; an empty
/// one says nothing.
using Progress = std::function<void(int64_t done, int64_t total)>;

}  // namespace neoloom::core
