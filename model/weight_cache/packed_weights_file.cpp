// SPDX-License-Identifier: Apache-2.0
#include "model/weight_cache/packed_weights_file.h"

#include <filesystem>
#include <functional>
#include <optional>

#include "model/checkpoints/safetensors.h"
#include "model/checkpoints/tensor_names.h"
#include "model/weight_cache/weight_cache.h"
#include "runtime/core/atomic_file.h"
#include "runtime/core/error.h"

namespace neoloom::model {

namespace {

namespace fs = std::filesystem;

constexpr const char* kPanelVersion = "1";

std::string panel_path(const std::string& converted_path, Dtype compute_dtype) {
  const fs::path converted(converted_path);
  const std::string name =
      fmt::format("{}-panels-{}-v{}.safetensors", converted.stem().string(), dtype_name(compute_dtype), kPanelVersion);
  return (converted.parent_path() / name).string();
}

/// One side of one matrix: the right side of a product, and where its panels go.
struct Side {
  std::string name;
  at::Tensor right;  // [k, n], a view of the matrix
  at::Tensor* panels;
};

std::vector<Side> sides(Weights& weights, Dtype compute_dtype) {
  std::vector<Side> list;
  for (const FrozenMatrix& matrix : frozen_matrices(weights)) {
    list.push_back({matrix.name + ".forward", matrix.values.t(), &matrix.panels->forward});
    if (compute_dtype == Dtype::kFloat32) continue;  // its backward reads the plain matrix
    list.push_back({matrix.name + ".backward", matrix.values, &matrix.panels->backward});
  }
  return list;
}

std::vector<int64_t> shape_of(const Side& side, Dtype compute_dtype) {
  return panel_shape(side.right.size(0), side.right.size(1), compute_dtype);
}

std::vector<TensorToWrite> plan_panels(Weights& weights, Dtype compute_dtype) {
  std::vector<TensorToWrite> tensors;
  for (const Side& side : sides(weights, compute_dtype)) {
    tensors.push_back({side.name,
                       panel_dtype(side.right.scalar_type(), compute_dtype),
                       shape_of(side, compute_dtype),
                       [right = side.right, compute_dtype] { return pack_panels(right, compute_dtype); },
                       {}});
  }
  return tensors;
}

}  // namespace

std::string prepare_panels(const std::string& converted_path, const GptNeoConfig& config, Dtype compute_dtype,
                           const core::Cache& cache, bool verify_always) {
  if (!multiplies_panels(compute_dtype)) return "";
  std::string path = panel_path(converted_path, compute_dtype);
  const std::optional<SafetensorsFile> existing = open_cached(cache, path);
  if (existing && !verify_always) return path;
  Weights weights = *map_weights(converted_path, config);
  const std::vector<TensorToWrite> tensors = plan_panels(weights, compute_dtype);
  if (existing && holds(*existing, tensors)) return path;
  core::remove_stale_temporaries(path);
  std::map<std::string, std::string> metadata = cache_metadata(path);
  metadata["source_sha256"] = weights.source_hash;
  write_safetensors(path, tensors, metadata);
  return path;
}

void map_panels(const std::string& panel_path, Dtype compute_dtype, Weights& weights) {
  if (panel_path.empty()) return;
  const SafetensorsFile file(panel_path);
  TensorReport report;
  for (const Side& side : sides(weights, compute_dtype)) {
    const std::vector<int64_t> shape = shape_of(side, compute_dtype);
    const auto found = file.tensors().find(side.name);
    if (found == file.tensors().end()) {
      report.missing(side.name, shape);
    } else if (found->second.shape != shape) {
      report.misshaped(side.name, shape, found->second.shape);
    } else {
      *side.panels = file.tensor(side.name);
    }
  }
  report.raise_unless_empty(panel_path, "Remove this file: it is made anew from the weights beside it.");
}

}  // namespace neoloom::model
