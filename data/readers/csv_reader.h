// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>

#include "data/readers/rows.h"

namespace neoloom::data {

/// Reads CSV and TSV by RFC 4180, with any delimiter of one byte. Quoted fields may contain delimiters, line ends and
/// doubled quotes. Lines end in LF or CR LF, or in CR if the file has no LF. A byte order mark is skipped. A quote
/// inside an unquoted field is a plain character, and so is every quote with `quoting` false.
std::unique_ptr<RowReader> open_csv(const ReaderRequest& request);

}  // namespace neoloom::data
