// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>

#include "runtime/hdf5/objects.h"

namespace neoloom::hdf5 {

/// The type on disk of an element; also its type in memory, so hosts are little-endian (checked in types.cpp).
Datatype disk_type(Element element, core::ErrorKind kind);

/// A UTF-8 string of `bytes` > 0 bytes, padded with NUL.
Datatype text_type(size_t bytes, core::ErrorKind kind);

}  // namespace neoloom::hdf5
