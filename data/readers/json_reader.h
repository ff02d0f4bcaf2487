// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

#include "data/readers/rows.h"

namespace neoloom::data {

/// Reads one JSON object a line.
std::unique_ptr<RowReader> open_json_lines(const ReaderRequest& request);

/// Reads one JSON array of objects. Parses each element separately, so a malformed one is one unreadable row.
std::unique_ptr<RowReader> open_json_array(const ReaderRequest& request);

/// Returns a text as a JSON string.
std::string json_text(std::string_view text);

/// Returns the cell that a value of a JSON object is.
Cell cell_of_json(const nlohmann::json& value);

}  // namespace neoloom::data
