// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>

#include "data/readers/rows.h"

namespace neoloom::data {

/// CSV and TSV by RFC 4180: fields in quotes may hold delimiters, line ends and doubled quotes; LF, CR LF, or CR
/// where no LF is; a byte order mark is skipped; a quote within an unquoted field is a character. `quoting` false:
/// quotes are characters.
std::unique_ptr<RowReader> open_csv(const ReaderRequest& request);

}  // namespace neoloom::data
