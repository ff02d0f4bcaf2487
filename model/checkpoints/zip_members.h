// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <map>
#include <string>
#include <string_view>

namespace neoloom::model {

/// Where the bytes of a zip archive's member lie in the file.
struct ZipMember {
  size_t begin_byte = 0;
  size_t size_bytes = 0;
};

/// Whether `file` begins as a zip archive does.
bool is_zip(std::string_view file);

/// Lists the members of a zip archive (`file`: all its bytes; APPNOTE 6.3.10) whose members are stored, neither
/// compressed nor encrypted, as torch.save writes it. Reads zip64. Local headers and the central directory must agree.
/// Throws: Error(kWeights) naming `path` and the rule that does not hold.
std::map<std::string, ZipMember> zip_members(std::string_view file, const std::string& path);

}  // namespace neoloom::model
