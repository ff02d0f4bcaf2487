// SPDX-License-Identifier: Apache-2.0
// Reads one JSON request from standard input, prints one JSON answer. For the comparisons in tests/parity.
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include <cmath>
#include <iostream>
#include <limits>
#include <nlohmann/json.hpp>

#include "model/checkpoints/adapter_files.h"
#include "model/checkpoints/hub.h"
#include "model/checkpoints/torch_file.h"
#include "model/generation/generate.h"
#include "model/weight_cache/packed_weights_file.h"
#include "model/weight_cache/weight_cache.h"
#include "runtime/core/clock.h"
#include "runtime/core/error.h"
#include "runtime/core/text.h"

namespace neoloom::model {
namespace {

using nlohmann::json;

/// Holds a base model with an adapter (read from a folder, or fresh), or a full model.
struct Opened {
  std::unique_ptr<Model> model;
  at::Tensor params;
  HeadDescription description;
};

Head head_of(const json& request) {
  const std::string name = request.value("head", "causal_lm");
  return name == "single_label" ? Head::kSingleLabel : name == "multi_label" ? Head::kMultiLabel : Head::kCausalLm;
}

LoraOptions fresh_lora(const json& request) {
  LoraOptions lora;
  lora.r = request.value("r", 8);
  lora.lora_alpha = request.value("lora_alpha", 16.0);
  lora.use_rslora = request.value("use_rslora", false);
  const json init = request.value("init_lora_weights", json(true));
  lora.init_lora_weights = init_from_name(init.is_string() ? init.get<std::string>() : init.dump());
  lora.use_dora = request.value("use_dora", false);
  lora.bias = request.value("bias", lora.bias);
  lora.lora_bias = request.value("lora_bias", false);
  lora.modules_to_save = request.value("modules_to_save", lora.modules_to_save);
  lora.trainable_token_indices = request.value("trainable_token_indices", lora.trainable_token_indices);
  const json targets = request.value("target_modules", json(lora.target_modules.names));
  lora.target_modules.is_expression = targets.is_string();
  lora.target_modules.names = (targets.is_string() ? json::array({targets}) : targets).get<std::vector<std::string>>();
  lora.exclude_modules.names = request.value("exclude_modules", std::vector<std::string>{});
  lora.layers_to_transform = request.value("layers_to_transform", std::vector<int64_t>{});
  const json ranks = request.value("rank_pattern", json::object());
  for (const auto& [module, rank] : ranks.items()) lora.rank_pattern.emplace_back(module, rank);
  const json alphas = request.value("alpha_pattern", json::object());
  for (const auto& [module, alpha] : alphas.items()) lora.alpha_pattern.emplace_back(module, alpha);
  return lora;
}

Opened open_model(const json& request) {
  const std::string folder = request.at("folder");
  const std::string cache = request.at("cache");
  Opened opened;
  ModelSetup setup;
  setup.config = GptNeoConfig::from_file(folder + "/config.json");
  setup.head = head_of(request);
  opened.description.labels = request.value("labels", std::vector<std::string>{});
  opened.description.problem_type = request.value("problem_type", "");
  opened.description.pad_token_id = request.value("pad_token_id", int64_t{-1});
  setup.num_labels = request.value("num_labels", static_cast<int64_t>(opened.description.labels.size()));
  const Dtype dtype = dtype_from_name(request.value("dtype", "float32"));
  setup.compute_dtype = dtype;
  const std::string adapter = request.value("adapter", "");
  if (!adapter.empty() && !request.value("full", false)) setup.lora = read_adapter_folder(adapter).lora;
  if (request.contains("lora")) setup.lora = fresh_lora(request["lora"]);

  const std::string path = prepare_weights(folder, setup.config, dtype, cache, false);
  const auto weights = map_weights(path, setup.config);
  if (setup.lora) {
    map_packed_weights(prepare_packed_weights(path, setup.config, setup.compute_dtype, cache, false),
                       setup.compute_dtype, *weights);
  }
  if (!adapter.empty() && setup.lora) take_embedding(adapter, setup.config, *weights, *setup.lora);
  opened.model = Model::create(setup, weights);
  opened.params = at::zeros({opened.model->layout().total_elements});
  opened.model->initialize(opened.params, request.value("seed", uint64_t{0}));
  if (setup.lora && setup.lora->init_lora_weights.splits_weights()) opened.model->subtract(opened.params.clone());
  if (!adapter.empty()) load_adapter_values(adapter, *opened.model, opened.params);
  if (request.value("fill_lora_b", false)) {
    // B is zero at first. A pattern without zeros makes the adapter matter.
    for (const ParameterSlot& slot : opened.model->layout().slots) {
      float* values = opened.params.mutable_data_ptr<float>() + slot.offset_elements;
      for (int64_t i = 0; i < slot.elements(); ++i) values[i] += 0.1F * std::sin(static_cast<float>(3 * i + 1));
    }
  }
  return opened;
}

GenerationOptions generation_options(const json& request) {
  GenerationOptions options;
  options.max_tokens = request.value("max_tokens", options.max_tokens);
  options.temperature = request.value("temperature", options.temperature);
  options.top_k = request.value("top_k", options.top_k);
  options.top_p = request.value("top_p", options.top_p);
  options.min_p = request.value("min_p", options.min_p);
  options.no_repeat_ngram_size = request.value("no_repeat_ngram_size", options.no_repeat_ngram_size);
  options.min_new_tokens = request.value("min_new_tokens", options.min_new_tokens);
  options.repetition_penalty = request.value("repetition_penalty", options.repetition_penalty);
  options.repetition_penalty_range = request.value("repetition_penalty_range", options.repetition_penalty_range);
  options.count_occurrences = request.value("count_occurrences", options.count_occurrences);
  if (request.contains("eos_token_id")) options.eos_token_ids = {request["eos_token_id"].get<int64_t>()};
  options.seed = request.value("seed", options.seed);
  return options;
}

std::vector<float> values_of(const at::Tensor& tensor) {
  const at::Tensor flat = tensor.to(at::kFloat).contiguous();
  return {flat.const_data_ptr<float>(), flat.const_data_ptr<float>() + flat.numel()};
}

json process(const json& request) {
  json rows = json::array();
  const auto context = request.at("context").get<std::vector<std::vector<int64_t>>>();
  for (size_t i = 0; i < context.size(); ++i) {
    at::Tensor logits = at::tensor(request.at("logits")[i].get<std::vector<float>>());
    process_logits(logits, context[i], generation_options(request));
    json row = json::array();
    for (const float value : values_of(logits)) {
      row.push_back(value == -std::numeric_limits<float>::infinity() ? json() : json(value));
    }
    rows.push_back(std::move(row));
  }
  return {{"logits", rows}};
}

json logits(const json& request) {
  Opened opened = open_model(request);
  json rows = json::array();
  for (const auto& ids : request.at("ids").get<std::vector<std::vector<int64_t>>>()) {
    Batch batch;
    const auto length = static_cast<int64_t>(ids.size());
    batch.sample_ids = {0};
    batch.cu_seqlens = {0, length};
    batch.ids = ids;
    const bool lm = opened.model->setup().head == Head::kCausalLm;
    const at::Tensor result =
        lm ? opened.model->lm_logits(batch, opened.params) : opened.model->evaluate(batch, opened.params).logits;
    rows.push_back(values_of(result));
  }
  return {{"logits", rows}};
}

json prepare(const json& request) {
  const std::string folder = request.at("folder");
  const GptNeoConfig config = GptNeoConfig::from_file(folder + "/config.json");
  const double start = core::now_seconds();
  const std::string path = prepare_weights(folder, config, dtype_from_name(request.value("dtype", "float16")),
                                           request.at("cache").get<std::string>(), request.value("verify", false));
  const double prepared = core::now_seconds();
  const auto weights = map_weights(path, config);
  const double mapped = core::now_seconds();
  return {{"path", path},
          {"notes", weights->notes},
          {"source_hash", weights->source_hash},
          {"prepare_seconds", prepared - start},
          {"map_seconds", mapped - prepared}};
}

/// Opens each file of torch.save and reads the values of its tensors.
json open_files(const json& request) {
  constexpr int64_t kMostElements = 10'000'000;  // a stride of 0 makes a tensor of any size
  json answers = json::array();
  for (const std::string path : request.at("files")) {
    try {
      const TorchFile file(path);
      for (const auto& [name, info] : file.tensors()) {
        const at::Tensor values = file.tensor(name);
        if (values.numel() < kMostElements) (void)values.to(at::kFloat).sum().item<float>();
      }
      answers.push_back({{"tensors", file.tensors().size()}});
    } catch (const core::Error& error) {
      answers.push_back({{"error", core::printable(error.what(), 1000)}, {"code", error.exit_code()}});
    }
  }
  return {{"files", answers}};
}

json answer(const json& request) {
  const std::string operation = request.at("op");
  if (operation == "resolve") {
    return {{"folder", resolve_model_folder(request.at("name"), request.value("revision", "main"))}};
  }
  if (operation == "prepare") return prepare(request);
  if (operation == "open") return open_files(request);
  if (operation == "process_logits") return process(request);
  if (operation == "logits") return logits(request);
  Opened opened = open_model(request);
  const std::vector<std::string> tokenizer = request.value("tokenizer_files", std::vector<std::string>{});
  if (operation == "generate") {
    std::vector<TextRequest> texts;
    for (const json& prompt : request.at("prompts")) texts.push_back({prompt.get<std::vector<int64_t>>()});
    std::vector<std::vector<int64_t>> ids(texts.size());
    generate(*opened.model, opened.params, texts, generation_options(request), request.value("batch_size", 8),
             {{}, [&](size_t text, Generated generated) { ids[text] = std::move(generated.ids); }});
    return {{"ids", ids}};
  }
  if (operation == "write") {
    write_adapter_folder(request.at("output"), *opened.model, opened.params, request.at("folder"), opened.description,
                         tokenizer);
    return {{"trainable", opened.model->layout().trainable_elements}};
  }
  if (operation == "export") {
    export_merged(request.at("output"), *opened.model, opened.params, request.at("folder"),
                  dtype_from_name(request.value("export_dtype", "float32")),
                  request.value("max_shard_bytes", int64_t{5'000'000'000}), opened.description, tokenizer);
    return json::object();
  }
  core::fail(core::ErrorKind::kUsage, "unknown operation {}", operation);
}

}  // namespace
}  // namespace neoloom::model

int main() {
  try {
    std::cout << neoloom::model::answer(nlohmann::json::parse(std::cin)).dump() << std::endl;
    return 0;
  } catch (const neoloom::core::Error& error) {
    std::cerr << error.what() << std::endl;
    return error.exit_code();
  } catch (const std::exception& error) {
    std::cerr << "unexpected: " << error.what() << std::endl;
    return 70;
  }
}
