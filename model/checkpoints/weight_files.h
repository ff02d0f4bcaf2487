// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "model/checkpoints/safetensors.h"

namespace neoloom::model {

/// Returns the paths of a model folder's safetensors: model.safetensors, or the shards of model.safetensors.index.json,
/// sorted.
/// Throws: Error(kWeights) when neither exists (with how to convert a .bin), or the index is bad.
std::vector<std::string> weight_file_paths(const std::string& folder);

/// The tensors of a model folder, over all shards, under their full names (without_wrappers, full_name).
class SourceTensors {
 public:
  struct Entry {
    std::shared_ptr<const SafetensorsFile> file;
    std::string name_in_file;
    std::vector<int64_t> shape;
    at::ScalarType dtype() const { return file->dtype(name_in_file); }
    at::Tensor value() const { return file->tensor(name_in_file); }
    void drop_pages() const { file->drop_pages(name_in_file); }
  };
  /// Throws: Error(kWeights) for a damaged file, a saved PeftModel, a tensor in two shards, or an index that disagrees
  /// with its shards.
  explicit SourceTensors(const std::string& folder);
  const std::map<std::string, Entry>& entries() const { return entries_; }
  const Entry* find(const std::string& full_name) const;
  /// Says for the log which parts from wrappers were removed from names; empty: none.
  std::string note() const;

 private:
  std::map<std::string, Entry> entries_;
  std::set<std::string> wrappers_;
};

/// Rows of score.weight in a model folder's safetensors; 0: it has none, or there are no safetensors.
/// Throws: Error(kWeights) as SourceTensors.
int64_t stored_head_rows(const std::string& folder);

}  // namespace neoloom::model
