// SPDX-License-Identifier: Apache-2.0
#include "runtime/hdf5/handles.h"

#include <hdf5.h>

#include <string>
#include <type_traits>

namespace neoloom::hdf5 {

static_assert(std::is_same_v<hid_t, Id>, "HDF5 1.10 or newer is needed: its identifiers have 64 bits");

namespace {

// Returns the reasons on the calling thread's HDF5 error stack, outermost first, joined by ": ", and clears the stack.
std::string error_stack_text() {
  std::string text;
  const auto append = [](unsigned, const H5E_error2_t* entry, void* data) -> herr_t {
    auto& reasons = *static_cast<std::string*>(data);
    if (!reasons.empty()) reasons += ": ";
    reasons += entry->desc != nullptr ? entry->desc : "unknown";
    return 0;
  };
  H5Ewalk2(H5E_DEFAULT, H5E_WALK_DOWNWARD, append, &text);
  H5Eclear2(H5E_DEFAULT);
  return text.empty() ? "no reason given" : text;
}

}  // namespace

void prepare_library() {
  // H5dont_atexit fails, harmlessly, once the library is open: only the first call in a process counts.
  H5dont_atexit();
  H5open();
  H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
  H5PLset_loading_state(0);
}

int64_t check(int64_t result, const char* call, core::ErrorKind kind) {
  if (result < 0) core::fail(kind, "HDF5 call failed: {}: {}", call, error_stack_text());
  return result;
}

void FileTraits::close(Type id) noexcept { H5Fclose(id); }
void GroupTraits::close(Type id) noexcept { H5Gclose(id); }
void DatasetTraits::close(Type id) noexcept { H5Dclose(id); }
void DataspaceTraits::close(Type id) noexcept { H5Sclose(id); }
void DatatypeTraits::close(Type id) noexcept { H5Tclose(id); }
void AttributeTraits::close(Type id) noexcept { H5Aclose(id); }
void PropertyListTraits::close(Type id) noexcept { H5Pclose(id); }

void close_file(File& file, core::ErrorKind kind) {
  // The handle is released even if H5Fclose fails: closing again after a failed flush crashes HDF5 1.10.
  NL_H5(kind, H5Fclose(file.release()));
}

}  // namespace neoloom::hdf5
