// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <span>
#include <string>

namespace neoloom::launch {

/// Values as a row of at most `columns` signs, from the first to the last; each sign is the mean of its share of the
/// values. Heights go from the least mean to the greatest. A sign without a finite value is a blank. `unicode`: block
/// characters, else ASCII.
std::string sparkline(std::span<const double> values, size_t columns, bool unicode);

}  // namespace neoloom::launch
