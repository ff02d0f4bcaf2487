// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <string_view>

#include "runtime/core/error.h"

namespace neoloom::core {

/// An exit code of the program, and what it means in a few words.
struct ExitCode {
  int code = 0;
  std::string_view meaning;
};

/// All of them but those of `neoloom status`. README.md has the same table, with what to do.
inline constexpr std::array<ExitCode, 11> kExitCodes = {{
    {0, "done"},
    {static_cast<int>(ErrorKind::kUsage), "usage, configuration, or ranks that disagree"},
    {static_cast<int>(ErrorKind::kData), "data"},
    {static_cast<int>(ErrorKind::kWeights), "weights or tokenizer"},
    {static_cast<int>(ErrorKind::kCheckpoint), "checkpoint"},
    {static_cast<int>(ErrorKind::kPeer), "a peer or the network failed: run the same command again, it resumes"},
    {static_cast<int>(ErrorKind::kNumeric), "too many non-finite steps"},
    {static_cast<int>(ErrorKind::kDevice), "device"},
    {static_cast<int>(ErrorKind::kInternal), "internal error"},
    {static_cast<int>(ErrorKind::kOutput), "output could not be written: free disk space, run the same command again"},
    {kExitStopped, "stopped on request, checkpoint saved: run the same command again, it resumes"},
}};

}  // namespace neoloom::core
