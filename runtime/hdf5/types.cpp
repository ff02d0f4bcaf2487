// SPDX-License-Identifier: Apache-2.0
#include "runtime/hdf5/types.h"

#include <hdf5.h>

#include <bit>

namespace neoloom::hdf5 {

static_assert(std::endian::native == std::endian::little, "data is handed to HDF5 without conversion");

uint64_t element_bytes(Element element) {
  switch (element) {
    case Element::kUint8:
      return 1;
    case Element::kInt32:
    case Element::kFloat32:
      return 4;
    case Element::kInt64:
    case Element::kFloat64:
      return 8;
  }
  core::fail(core::ErrorKind::kInternal, "unknown HDF5 element type {}", static_cast<int>(element));
}

Datatype disk_type(Element element, core::ErrorKind kind) {
  prepare_library();
  hid_t type = H5I_INVALID_HID;
  switch (element) {
    case Element::kUint8:
      type = H5T_STD_U8LE;
      break;
    case Element::kInt32:
      type = H5T_STD_I32LE;
      break;
    case Element::kInt64:
      type = H5T_STD_I64LE;
      break;
    case Element::kFloat32:
      type = H5T_IEEE_F32LE;
      break;
    case Element::kFloat64:
      type = H5T_IEEE_F64LE;
      break;
  }
  return Datatype(NL_H5(kind, H5Tcopy(type)));
}

Datatype text_type(size_t bytes, core::ErrorKind kind) {
  prepare_library();
  Datatype type(NL_H5(kind, H5Tcopy(H5T_C_S1)));
  NL_H5(kind, H5Tset_size(type.get(), bytes));
  NL_H5(kind, H5Tset_strpad(type.get(), H5T_STR_NULLPAD));
  NL_H5(kind, H5Tset_cset(type.get(), H5T_CSET_UTF8));
  return type;
}

}  // namespace neoloom::hdf5
