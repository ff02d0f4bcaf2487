// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "model/checkpoints/tensor_file.h"

namespace neoloom::model {

/// A way to store the weights of a folder.
struct WeightFormat {
  const char* single_file;
  const char* index_file;
  const char* extension;  // of shards
};

/// In the order in which transformers looks for them.
inline constexpr WeightFormat kWeightFormats[] = {{"model.safetensors", "model.safetensors.index.json", ".safetensors"},
                                                  {"pytorch_model.bin", "pytorch_model.bin.index.json", ".bin"}};

/// Returns the names of the shards in the folder's index, sorted. Throws: Error(kWeights) for a bad index.
std::vector<std::string> shard_names(const std::string& folder, const WeightFormat& format);

/// Whether the folder holds weights, and every shard of their index.
bool has_all_weights(const std::string& folder);

/// Returns the paths of a model folder's weights, as transformers chooses them: model.safetensors, or the shards of
/// model.safetensors.index.json, sorted; without them pytorch_model.bin or the shards of pytorch_model.bin.index.json.
/// Throws: Error(kWeights) when none exists, or the index is bad.
std::vector<std::string> weight_file_paths(const std::string& folder);

/// The tensors of a model folder, over all shards, under their full names (without_wrappers, full_name).
class SourceTensors {
 public:
  struct Entry {
    std::shared_ptr<const TensorFile> file;
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

/// Rows of score.weight in a model folder's weights; 0: it has none, or there are no weights.
/// Throws: Error(kWeights) as SourceTensors.
int64_t stored_head_rows(const std::string& folder);

}  // namespace neoloom::model
