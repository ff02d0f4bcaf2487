// SPDX-License-Identifier: Apache-2.0
#include "model/checkpoints/new_model.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>

#include <filesystem>
#include <utility>
#include <vector>

#include "model/checkpoints/adapter_folder.h"
#include "model/checkpoints/safetensors.h"
#include "model/gpt_neo/initial_values.h"
#include "model/gpt_neo/weights.h"
#include "runtime/core/error.h"
#include "runtime/core/files.h"

namespace neoloom::model {
namespace {

at::Tensor first_value(const std::string& name, const std::vector<int64_t>& shape, double deviation, uint64_t seed) {
  if (name.ends_with(".bias")) return at::zeros(shape, at::kFloat);
  if (shape.size() == 1) return at::ones(shape, at::kFloat);  // of a LayerNorm
  at::Tensor value = at::empty(shape, at::kFloat);
  fill_normal(value, deviation, seed, name);
  return value;
}

}  // namespace

void write_new_model(const std::string& folder, const GptNeoConfig& config, uint64_t seed, const core::Cache& cache) {
  std::vector<std::pair<std::string, std::vector<int64_t>>> shapes = body_shapes(config);
  if (!config.tie_word_embeddings) shapes.emplace_back(kLmHeadName, std::vector{config.vocab_size, config.hidden_size});
  std::vector<TensorToWrite> tensors;
  for (const auto& [name, shape] : shapes) {
    const auto value = [&config, seed, name = name, shape = shape] {
      return first_value(name, shape, config.initializer_range, seed);
    };
    tensors.push_back({name, at::kFloat, shape, value, {}});
  }
  tell_after_each(tensors, cache.begin("writing the new model", bytes_of(tensors)));
  publish_folder(folder, [&](const std::string& fresh) {
    const std::filesystem::path root(fresh);
    write_safetensors((root / kModelTensorFile).string(), tensors, {});
    core::publish_file((root / kConfigFile).string(), config.json, core::ErrorKind::kOutput);
  });
}

}  // namespace neoloom::model
