// SPDX-License-Identifier: Apache-2.0
#include "model/checkpoints/shards.h"

#include <fmt/format.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "model/checkpoints/weight_files.h"
#include "runtime/core/error.h"
#include "runtime/core/files.h"

namespace neoloom::model {
namespace {

using Shard = std::vector<TensorToWrite>;

std::vector<Shard> split(const std::vector<TensorToWrite>& tensors, int64_t max_shard_bytes) {
  std::vector<Shard> shards(1);
  int64_t bytes = 0;
  for (const TensorToWrite& tensor : tensors) {
    const auto more = static_cast<int64_t>(bytes_of(tensor));
    if (!shards.back().empty() && bytes + more > max_shard_bytes) {
      shards.emplace_back();
      bytes = 0;
    }
    shards.back().push_back(tensor);
    bytes += more;
  }
  return shards;
}

}  // namespace

void write_weight_files(const std::string& folder, const std::vector<TensorToWrite>& tensors, int64_t max_shard_bytes) {
  const std::filesystem::path root(folder);
  const WeightFormat& format = kWeightFormats[0];
  const std::vector<Shard> shards = split(tensors, max_shard_bytes);
  if (shards.size() == 1) return write_safetensors((root / format.single_file).string(), tensors, {});
  int64_t total_bytes = 0;
  nlohmann::json shard_of;
  for (size_t i = 0; i < shards.size(); ++i) {
    const std::string name = fmt::format("model-{:05}-of-{:05}{}", i + 1, shards.size(), format.extension);
    for (const TensorToWrite& tensor : shards[i]) {
      total_bytes += static_cast<int64_t>(bytes_of(tensor));
      shard_of[tensor.name] = name;
    }
    write_safetensors((root / name).string(), shards[i], {});
  }
  const nlohmann::json index = {{"metadata", {{"total_size", total_bytes}}}, {"weight_map", shard_of}};
  core::publish_file((root / format.index_file).string(), index.dump(2) + "\n", core::ErrorKind::kOutput);
}

}  // namespace neoloom::model
