// SPDX-License-Identifier: Apache-2.0
#include <ATen/ops/mm.h>
#include <ATen/ops/tensor.h>

#include <filesystem>
#include <map>

#include "model/checkpoints/adapter_files.h"
#include "model/checkpoints/adapter_folder.h"
#include "model/checkpoints/plain_lora.h"
#include "model/checkpoints/safetensors.h"
#include "model/checkpoints/shards.h"
#include "model/checkpoints/tensor_names.h"
#include "model/checkpoints/weight_files.h"
#include "model/gpt_neo/weights.h"
#include "model/lora/dora.h"
#include "model/lora/target_modules.h"
#include "model/scalar_type.h"
#include "runtime/core/error.h"
#include "runtime/core/files.h"

namespace neoloom::model {
namespace {

namespace fs = std::filesystem;
using core::ErrorKind;

constexpr const char* kGenerationConfigFile = "generation_config.json";

/// Holds the trained parameters by Hugging Face's name of the tensor that they replace or adapt.
struct TrainedTensors {
  std::map<std::string, at::Tensor> whole;      // "score.weight", or every tensor of a full-parameter model
  std::map<std::string, at::Tensor> a, b;       // by the adapted weight's name
  std::map<std::string, at::Tensor> magnitude;  // likewise; DoRA
  std::map<std::string, double> scaling;        // likewise
  std::map<std::string, at::Tensor> added;      // s * B's bias, by the name of the bias; lora_bias
  at::Tensor token_rows;                        // trainable_token_indices
};

TrainedTensors sort_slots(const Model& model, const at::Tensor& params) {
  TrainedTensors trained;
  for (const auto& [full_name, value] : plain_tensors(model, params)) {
    std::string name = full_name;
    if (name.starts_with(kPeftPrefix)) name.erase(0, kPeftPrefix.size());
    const auto module_of = [&](std::string_view suffix) { return name.substr(0, name.size() - suffix.size()); };
    if (name.ends_with(kLoraASuffix)) {
      trained.a[module_of(kLoraASuffix) + ".weight"] = value;
    } else if (name.ends_with(kLoraBSuffix)) {
      trained.b[module_of(kLoraBSuffix) + ".weight"] = value;
    } else if (name.ends_with(kMagnitudeSuffix)) {
      trained.magnitude[module_of(kMagnitudeSuffix) + ".weight"] = value;
    } else if (name.ends_with(kLoraBiasSuffix)) {
      trained.added[module_of(kLoraBiasSuffix) + ".bias"] = value;
    } else if (name.ends_with(kBaseLayerBiasSuffix)) {
      trained.whole[module_of(kBaseLayerBiasSuffix) + ".bias"] = value;
    } else if (name == kTrainableTokensName) {
      trained.token_rows = value;
    } else {
      trained.whole[name] = value;
    }
  }
  if (!model.setup().lora) return trained;
  const AdapterMap adapters = adapter_map(*model.setup().lora, model.setup().config.num_layers);
  for (size_t layer = 0; layer < adapters.size(); ++layer) {
    for (const LinearSite site : kLinearSites) {
      trained.scaling[module_name(static_cast<int64_t>(layer), site) + ".weight"] =
          adapters[layer][static_cast<size_t>(site)].scaling;
    }
  }
  for (auto& [bias, value] : trained.added) {
    const std::string module = bias.substr(0, bias.size() - std::string_view(".bias").size());
    value = value.mul(trained.scaling.at(module + ".weight"));
  }
  return trained;
}

struct Adapter {
  at::Tensor a, b;
  at::Tensor magnitude;  // undefined: plain LoRA
  double scale = 1.0;
};

/// Returns W + scale * B A in fp32, for DoRA with rows of the length that magnitude says. The writer rounds it, so it
/// is rounded only once.
at::Tensor merged(const at::Tensor& base, const Adapter& adapter) {
  at::Tensor sum = base.to(at::kFloat).add(at::mm(adapter.b, adapter.a), adapter.scale);
  if (!adapter.magnitude.defined()) return sum;
  return sum.mul_(adapter.magnitude.div(row_squares(sum).sqrt_()).unsqueeze(1));
}

class Exporter {
 public:
  Exporter(const Model& model, const at::Tensor& params, const std::string& base_folder, at::ScalarType dtype)
      : model_(model), trained_(sort_slots(model, params)), base_(base_folder), dtype_(dtype) {
    for (const auto& [bias, value] : trained_.added) {
      core::require(base_.find(bias) != nullptr, ErrorKind::kUsage,
                    "peft_config.lora_bias: {} cannot be merged, because GPT-Neo has no such bias; "
                    "export --format peft keeps the adapter as it is",
                    bias);
    }
  }

  /// Returns the tensors of the body in file order, then that of the head.
  std::vector<TensorToWrite> tensors() const {
    std::vector<TensorToWrite> list;
    for (const auto& [name, shape] : body_shapes(model_.setup().config)) list.push_back(entry(name, shape));
    const GptNeoConfig& config = model_.setup().config;
    if (untied_lm_head()) list.push_back(entry(kLmHeadName, {config.vocab_size, config.hidden_size}));
    if (model_.setup().head != Head::kCausalLm) {
      list.push_back(entry(kScoreName, {model_.setup().num_labels, config.hidden_size}));
    }
    return list;
  }

  bool untied_lm_head() const {
    if (model_.setup().head != Head::kCausalLm) return false;
    if (trained_.whole.contains(kLmHeadName)) return true;
    if (trained_.whole.contains(kWordEmbeddingName)) return model_.setup().lora.has_value();
    if (trained_.token_rows.defined() && !model_.setup().config.tie_word_embeddings) return true;
    const SourceTensors::Entry* head = base_.find(kLmHeadName);
    return head != nullptr && !head->value().equal(base_.find(kWordEmbeddingName)->value());
  }

 private:
  bool takes_token_rows(const std::string& name) const {
    if (!trained_.token_rows.defined()) return false;
    return name == kWordEmbeddingName || (name == kLmHeadName && model_.setup().config.tie_word_embeddings);
  }

  at::Tensor with_token_rows(const at::Tensor& base) const {
    const at::Tensor ids = at::tensor(model_.setup().lora->trainable_token_indices, at::kLong);
    return base.to(at::kFloat).index_copy(0, ids, trained_.token_rows);
  }

  TensorToWrite entry(const std::string& name, const std::vector<int64_t>& shape) const {
    const auto added = trained_.added.find(name);
    const auto with_added = [value =
                                 added == trained_.added.end() ? at::Tensor() : added->second](const at::Tensor& bias) {
      return value.defined() ? bias.to(at::kFloat).add(value) : bias;
    };
    if (const auto found = trained_.whole.find(name); found != trained_.whole.end()) {
      return {name, dtype_, shape, [value = found->second, with_added] { return with_added(value); }, {}};
    }
    const SourceTensors::Entry* source = base_.find(name);
    if (source == nullptr && name == kLmHeadName) source = base_.find(kWordEmbeddingName);  // tied
    core::require(source != nullptr && source->shape == shape, ErrorKind::kWeights,
                  "the base model's {} is missing or not {}: expected the base that the adapter was trained on", name,
                  shape_text(shape));
    const auto drop = [source] { source->drop_pages(); };
    if (takes_token_rows(name)) {
      return {name, dtype_, shape, [this, source] { return with_token_rows(source->value()); }, drop};
    }
    const auto a = trained_.a.find(name);
    if (a == trained_.a.end()) {
      return {name, dtype_, shape, [source, with_added] { return with_added(source->value()); }, drop};
    }
    Adapter adapter = {a->second, trained_.b.at(name), {}, trained_.scaling.at(name)};
    const auto magnitude = trained_.magnitude.find(name);
    if (magnitude != trained_.magnitude.end()) adapter.magnitude = magnitude->second;
    return {name, dtype_, shape, [source, adapter] { return merged(source->value(), adapter); }, drop};
  }

  const Model& model_;
  TrainedTensors trained_;
  SourceTensors base_;
  at::ScalarType dtype_;
};

}  // namespace

void export_merged(const std::string& folder, const Model& model, const at::Tensor& params,
                   const std::string& base_folder, Dtype dtype, int64_t max_shard_bytes, const HeadDescription& head,
                   const std::vector<std::string>& tokenizer_files, const core::Progress& progress) {
  std::error_code ignored;
  core::require(!fs::equivalent(folder, base_folder, ignored), ErrorKind::kWeights,
                "{} is the base model's own folder: choose another one for the merged model", folder);
  const Exporter exporter(model, params, base_folder, scalar_type(dtype));
  const ModelSetup& setup = model.setup();
  const ModelConfigText config{.base = setup.config,
                               .head = setup.head,
                               .num_labels = setup.num_labels,
                               .description = head,
                               .dtype = dtype_name(dtype),
                               .untied_lm_head = exporter.untied_lm_head()};
  publish_folder(folder, [&](const std::string& fresh) {
    std::vector<TensorToWrite> tensors = exporter.tensors();
    tell_after_each(tensors, {progress, bytes_of(tensors)});
    write_weight_files(fresh, tensors, max_shard_bytes);
    write_descriptions(fresh, config);
    const fs::path generation = fs::path(base_folder) / kGenerationConfigFile;
    if (setup.head == Head::kCausalLm && fs::exists(generation)) copy_files({generation.string()}, fresh);
    copy_files(tokenizer_files, fresh);
  });
}

}  // namespace neoloom::model
