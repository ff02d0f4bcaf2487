// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace neoloom::launch {

/// The `devices` of a train event as a table of at most `columns` columns: a header, a row for each, and for several a
/// row of sums (rates), means (shares) and the largest (memory). A narrow table has fewer columns. Of more than
/// `most_rows` lines the devices after the first are counted in a line; the sums stay. Empty: no devices, or no room
/// for a header and one row.
std::vector<std::string> device_rows(const nlohmann::ordered_json& devices, size_t columns, size_t most_rows);

}  // namespace neoloom::launch
