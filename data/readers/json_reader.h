// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>

#include "data/readers/rows.h"

namespace neoloom::data {

/// One JSON object a line.
std::unique_ptr<RowReader> open_json_lines(const ReaderRequest& request);

/// One JSON array of objects. Elements are cut out and parsed one by one, so a broken one is one unreadable row.
std::unique_ptr<RowReader> open_json_array(const ReaderRequest& request);

}  // namespace neoloom::data
