// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace neoloom::model {

/// A run of elements that tensors view.
struct PickledStorage {
  std::string dtype;  // "F32", ...
  int64_t elements = 0;
};

/// A tensor as a pickle describes it: a view of a storage.
struct PickledTensor {
  std::string storage;  // its key
  int64_t offset_elements = 0;
  std::vector<int64_t> shape;
  std::vector<int64_t> strides;  // in elements, each at least 0
};

/// What a pickle of torch.save holds.
struct Pickled {
  size_t end_byte = 0;                             // just behind the pickle
  std::map<std::string, PickledTensor> tensors;    // of a state dict
  std::map<std::string, PickledStorage> storages;  // by key
  std::vector<std::string> texts;                  // of a list of strings
};

/// What the outermost object of a pickle must be.
enum class PickleRoot { kStateDict, kTexts, kAnything };

/// Reads the pickle (protocol 2) that begins at `begin_byte` without running anything of it: it builds dicts, lists,
/// tuples, texts, numbers and the descriptions of tensors (torch._utils._rebuild_tensor_v2, _rebuild_parameter), and
/// refuses every other callable by its name. `path` is for messages. Memory: linear in the pickle, which may have
/// 4 MiB.
/// Throws: Error(kWeights).
Pickled read_pickle(std::string_view bytes, size_t begin_byte, PickleRoot root, const std::string& path);

}  // namespace neoloom::model
