// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "model/checkpoints/safetensors.h"
#include "model/checkpoints/weight_files.h"
#include "model/weight_cache/file_hashes.h"

namespace neoloom::model {

/// A converted file to be made.
struct Conversion {
  std::vector<SourceFile> files;  // in the order of weight_file_paths
  std::vector<TensorToWrite> tensors;
  std::string note;
  std::function<std::string(const std::string& name)> path_of;  // of a hash or provisional name
};

/// Writes the converted file and returns its path. Reads every source file once, sequentially. The same pass computes
/// and remembers a hash that is not known yet. The converted file's name depends on the hashes, so it gets it at the
/// end; a complete file of that name is kept.
/// Throws: Error(kWeights) as SafetensorsWriter, and when a source changes meanwhile.
std::string convert(const Conversion& conversion, const SourceTensors& source, const core::Cache& cache);

}  // namespace neoloom::model
