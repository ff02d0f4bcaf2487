// SPDX-License-Identifier: Apache-2.0
#include "model/weight_cache/packed_weights_file.h"

#include <filesystem>
#include <optional>

#include "model/checkpoints/safetensors.h"
#include "model/checkpoints/tensor_names.h"
#include "model/weight_cache/weight_cache.h"
#include "runtime/core/atomic_file.h"
#include "runtime/core/error.h"

namespace neoloom::model {

namespace {

namespace fs = std::filesystem;

constexpr const char* kPackedVersion = "1";

std::string packed_path(const std::string& converted_path, Dtype compute_dtype) {
  const fs::path converted(converted_path);
  const std::string name =
      fmt::format("{}-panels-{}-v{}.safetensors", converted.stem().string(), dtype_name(compute_dtype), kPackedVersion);
  return (converted.parent_path() / name).string();
}

/// Describes one use of a matrix, as operand B of a forward or backward GEMM, and where its packed weights are stored.
struct Side {
  std::string name;
  at::Tensor right;  // [k, n], a view of the matrix
  at::Tensor* packed_weights;
};

std::vector<Side> sides(Weights& weights, Dtype compute_dtype) {
  std::vector<Side> list;
  for (const FrozenMatrix& matrix : frozen_matrices(weights)) {
    list.push_back({matrix.name + ".forward", matrix.values.t(), &matrix.packed_weights->forward});
    if (compute_dtype == Dtype::kFloat32) continue;  // its backward reads the plain matrix
    list.push_back({matrix.name + ".backward", matrix.values, &matrix.packed_weights->backward});
  }
  return list;
}

std::vector<int64_t> shape_of(const Side& side, Dtype compute_dtype) {
  return packed_shape(side.right.size(0), side.right.size(1), compute_dtype);
}

std::vector<TensorToWrite> packed_tensors(Weights& weights, Dtype compute_dtype) {
  std::vector<TensorToWrite> tensors;
  for (const Side& side : sides(weights, compute_dtype)) {
    tensors.push_back({side.name,
                       packed_dtype(side.right.scalar_type(), compute_dtype),
                       shape_of(side, compute_dtype),
                       [right = side.right, compute_dtype] { return pack_weights(right, compute_dtype); },
                       {}});
  }
  return tensors;
}

}  // namespace

std::string prepare_packed_weights(const std::string& converted_path, const GptNeoConfig& config, Dtype compute_dtype,
                                   const core::Cache& cache, bool verify_always) {
  if (!has_packed_gemm(compute_dtype)) return "";
  std::string path = packed_path(converted_path, compute_dtype);
  const std::optional<SafetensorsFile> existing = open_cached(cache, path);
  if (existing && !verify_always) return path;
  Weights weights = *map_weights(converted_path, config);
  std::vector<TensorToWrite> tensors = packed_tensors(weights, compute_dtype);
  tell_after_each(tensors, cache.begin(existing ? "comparing packed weights" : "packing weights", bytes_of(tensors)));
  if (existing && holds(*existing, tensors)) return path;
  core::remove_stale_temporaries(path);
  std::map<std::string, std::string> metadata = cache_metadata(path);
  metadata["source_sha256"] = weights.source_hash;
  write_safetensors(path, tensors, metadata);
  return path;
}

void map_packed_weights(const std::string& packed_path, Dtype compute_dtype, Weights& weights) {
  if (packed_path.empty()) return;
  const SafetensorsFile file(packed_path);
  TensorReport report;
  for (const Side& side : sides(weights, compute_dtype)) {
    const std::vector<int64_t> shape = shape_of(side, compute_dtype);
    const auto found = file.tensors().find(side.name);
    if (found == file.tensors().end()) {
      report.missing(side.name, shape);
    } else if (found->second.shape != shape) {
      report.misshaped(side.name, shape, found->second.shape);
    } else {
      *side.packed_weights = file.tensor(side.name);
    }
  }
  report.raise_unless_empty(packed_path, "Remove this file: it is rebuilt from the weights beside it.");
}

}  // namespace neoloom::model
