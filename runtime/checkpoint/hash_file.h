// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>

namespace neoloom::checkpoint {

// The hash file beside a checkpoint, in the form of sha256sum(1): `sha256sum -c step-000000000100.sha256` checks it.
// All functions throw Error(kCheckpoint) with the reason.

/// step-000000000100.h5 -> step-000000000100.sha256
std::string hash_path(const std::string& checkpoint_path);

/// The 64 hex digits stored for a checkpoint.
std::string read_hash(const std::string& checkpoint_path);

void require_hash(const std::string& found, const std::string& expected);

/// Publishes the hash file before its checkpoint. Unless keep() was called, the destructor restores the previous hash
/// file, so that a failure between the two renames leaves an older checkpoint of the same step readable.
class HashPublication {
 public:
  HashPublication(const std::string& checkpoint_path, const std::string& sha256);
  ~HashPublication();
  HashPublication(const HashPublication&) = delete;
  HashPublication& operator=(const HashPublication&) = delete;
  void keep() { kept_ = true; }

 private:
  std::string checkpoint_path_;
  std::optional<std::string> previous_;
  bool kept_ = false;
};

}  // namespace neoloom::checkpoint
