// SPDX-License-Identifier: Apache-2.0
#include "launch/version.h"

#include <fmt/core.h>
#include <torch/headeronly/version.h>

namespace neoloom::launch {

std::string version() { return NL_VERSION; }

std::string version_text() { return fmt::format("neoloom {} (LibTorch {})", version(), TORCH_VERSION); }

}  // namespace neoloom::launch
