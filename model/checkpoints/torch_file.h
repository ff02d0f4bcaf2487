// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "model/checkpoints/tensor_file.h"

namespace neoloom::model {

/// A mapped file of torch.save that holds a state dict: a zip archive (torch 1.6 and newer) or the older stream.
/// Nothing of it is run (model/checkpoints/pickle.h). The constructor checks that every tensor lies in its storage, and
/// every storage in the file. Tensors may share storages and have any strides.
class TorchFile : public TensorFile {
 public:
  /// Throws: Error(kWeights) naming the file and the rule that does not hold.
  explicit TorchFile(const std::string& path);
};

}  // namespace neoloom::model
