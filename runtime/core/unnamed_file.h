// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "runtime/core/error.h"
#include "runtime/core/unique_handle.h"

namespace neoloom::core {

/// Creates a file without a name in `directory`, for reading and writing. The system frees its space when the last
/// descriptor and mapping are gone, however the process ends.
/// Throws: WriteError(kind).
UniqueFd unnamed_file(const std::string& directory, ErrorKind kind);

}  // namespace neoloom::core
