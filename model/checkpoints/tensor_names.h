// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <set>
#include <string>
#include <vector>

namespace neoloom::model {

/// Returns `name` without the parts that wrappers add: _orig_mod (torch.compile), module (DataParallel),
/// _fsdp_wrapped_module, _checkpoint_wrapped_module. Adds each removed part to `removed` when given.
std::string without_wrappers(const std::string& name, std::set<std::string>* removed = nullptr);

/// Returns `name`, with "transformer." prepended if it is a body tensor's name without that prefix.
std::string full_name(const std::string& name);

/// True for the attention mask buffers that old files carry beside the weights.
bool is_mask_buffer(const std::string& full_name);

/// "[2, 3]"
std::string shape_text(const std::vector<int64_t>& shape);

/// Collects everything that is wrong with a set of tensors, for one error message.
class TensorReport {
 public:
  void missing(const std::string& name, const std::vector<int64_t>& expected);
  void unexpected(const std::string& name, const std::vector<int64_t>& found);
  void misshaped(const std::string& name, const std::vector<int64_t>& expected, const std::vector<int64_t>& found);
  void other(const std::string& line);
  bool empty() const { return missing_.empty() && unexpected_.empty() && misshaped_.empty() && other_.empty(); }
  /// Throws: Error(kWeights) "`where` does not match ...: `hint`" with every line, unless the report is empty.
  void raise_unless_empty(const std::string& where, const std::string& hint) const;

 private:
  std::vector<std::string> missing_, unexpected_, misshaped_, other_;
};

}  // namespace neoloom::model
