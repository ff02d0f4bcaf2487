// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "model/checkpoints/safetensors.h"
#include "model/checkpoints/weight_files.h"
#include "model/weight_cache/file_hashes.h"

namespace neoloom::model {

/// A file of a model folder as it was before anything of it was read.
struct SourceFile {
  std::string path;
  FileStamp stamp;
  std::string hash;  // empty: not known
};

/// A converted file to be made.
struct Conversion {
  std::vector<SourceFile> files;  // in the order of weight_file_paths
  std::vector<TensorToWrite> tensors;
  std::string note;
  std::function<std::string(const std::string& name)> path_of;  // by the folder's hash, or a provisional name
};

/// Writes the converted file and returns its path. Every source file is read once, in its own order; where its hash is
/// not known, the same pass makes and remembers it, and only then the converted file gets its name: a whole file that
/// has it by then is left as it is. Throws: Error(kWeights): as SafetensorsWriter; a source that changes meanwhile.
std::string convert(const Conversion& conversion, const SourceTensors& source, const core::Cache& cache);

}  // namespace neoloom::model
