// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "runtime/core/error.h"
#include "runtime/core/unique_handle.h"

namespace neoloom::hdf5 {

/// HDF5's hid_t, spelled without its header (checked in handles.cpp).
using Id = int64_t;

/// Prepares HDF5. Every thread must call it before it uses HDF5, and before it evaluates a property list or a constant
/// such as H5P_DEFAULT_... or H5T_NATIVE_.... Idempotent and cheap. Switches off HDF5's exit handler (which crashes
/// after a failed write), the printing of error stacks (per thread) and the loading of filter plug-ins.
void prepare_library();

/// Result of an HDF5 call: negative means failure.
/// Throws: Error(kind) with the call's text and the reasons on HDF5's error stack, innermost last.
int64_t check(int64_t result, const char* call, core::ErrorKind kind = core::ErrorKind::kInternal);

// One close function per kind of object; see HDF5's H5?close.
struct FileTraits {
  using Type = Id;
  static Type invalid() { return -1; }
  static void close(Type id) noexcept;
};
struct GroupTraits : FileTraits {
  static void close(Type id) noexcept;
};
struct DatasetTraits : FileTraits {
  static void close(Type id) noexcept;
};
struct DataspaceTraits : FileTraits {
  static void close(Type id) noexcept;
};
struct DatatypeTraits : FileTraits {
  static void close(Type id) noexcept;
};
struct AttributeTraits : FileTraits {
  static void close(Type id) noexcept;
};
struct PropertyListTraits : FileTraits {
  static void close(Type id) noexcept;
};

/// Move-only owners of HDF5 identifiers. A destructor cannot report a failure: close a file that was written with
/// close_file().
using File = core::UniqueHandle<FileTraits>;
using Group = core::UniqueHandle<GroupTraits>;
using Dataset = core::UniqueHandle<DatasetTraits>;
using Dataspace = core::UniqueHandle<DataspaceTraits>;
using Datatype = core::UniqueHandle<DatatypeTraits>;
using Attribute = core::UniqueHandle<AttributeTraits>;
using PropertyList = core::UniqueHandle<PropertyListTraits>;

/// Closes a file and reports errors of the last flush. All objects in it must be closed before.
/// Throws: Error(kind); `file` is empty after a failure too, and HDF5 leaks a descriptor and some memory. Where a full
/// disk may come often, build an image (image.h) and write it without HDF5.
void close_file(File& file, core::ErrorKind kind = core::ErrorKind::kInternal);

}  // namespace neoloom::hdf5

/// Evaluates an HDF5 call and throws core::Error(kind) with the call's text when it fails.
#define NL_H5(kind, call) ::neoloom::hdf5::check((call), #call, (kind))
