// SPDX-License-Identifier: Apache-2.0
#include "runtime/core/unnamed_file.h"

#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>

namespace neoloom::core {

UniqueFd unnamed_file(const std::string& directory, ErrorKind kind) {
  std::string name = directory + "/.neoloom-XXXXXX";
  UniqueFd file(::mkstemp(name.data()));
  if (!file.valid()) {
    throw WriteError(kind, fmt::format("cannot create a temporary file in {}: {}", directory, std::strerror(errno)));
  }
  ::unlink(name.c_str());
  return file;
}

}  // namespace neoloom::core
