// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

namespace neoloom::launch {

/// "0.3.0", the version of the project in CMakeLists.txt
std::string version();
/// neoloom's version and those of the libraries it was built with, on one line.
std::string version_text();

}  // namespace neoloom::launch
