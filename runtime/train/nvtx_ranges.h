// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>

namespace neoloom::train {

/// While it lives, the ranges that neoloom names by RECORD_USER_SCOPE are also NVTX ranges, for `nsys profile`. Does
/// nothing if no tool listens, or if neoloom was built without NVTX's headers.
class NvtxRanges {
 public:
  NvtxRanges();
  ~NvtxRanges();
  NvtxRanges(const NvtxRanges&) = delete;
  NvtxRanges& operator=(const NvtxRanges&) = delete;

 private:
  std::optional<uint64_t> callback_;  // LibTorch's handle
};

}  // namespace neoloom::train
