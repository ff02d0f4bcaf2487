// SPDX-License-Identifier: Apache-2.0
// Runs the model on batches that a JSON file describes, for comparisons with transformers and peft.
//
//   model_probe REQUEST.json        prints one JSON line per case
//
// A case: model (folder), cache, frozen, compute, head, num_labels, lora (null: full-parameter), params (safetensors by
// slot name; absent: initial values of `seed`), initial (what PiSSA and OLoRA subtract; absent: params), batch {ids,
// lengths, labels, loss_weights, sample_ids}, label_smoothing, loss_scale, dropout_seed, dropout_epoch, repeats, decode
// (ids to feed one by one), output (safetensors that receives logits, gradients, values).
#include <ATen/Parallel.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <iostream>
#include <nlohmann/json.hpp>

#include "model/checkpoints/safetensors.h"
#include "model/cpu/attention_dropout.h"
#include "model/lora/dropout.h"
#include "model/model.h"
#include "model/parameter_table.h"
#include "model/weight_cache/packed_weights_file.h"
#include "model/weight_cache/weight_cache.h"
#include "runtime/core/error.h"
#include "runtime/core/files.h"

namespace {

using namespace neoloom;
using nlohmann::json;
using NamedTensors = std::vector<std::pair<std::string, at::Tensor>>;

constexpr int64_t kNoLoss = -100;  // transformers' label of a token without a loss

void add_targets(const json& labels, size_t sample, model::Head head, model::Batch& batch) {
  if (head == model::Head::kSingleLabel) {
    batch.targets.push_back(labels.at(sample));
  } else if (head == model::Head::kMultiLabel) {
    for (const json& flag : labels.at(sample)) batch.multi_labels.push_back(flag);
  } else if (head == model::Head::kRegression) {
    for (const json& value : labels.at(sample)) batch.values.push_back(value);
  } else {
    const int64_t begin = batch.cu_seqlens[sample];
    for (int64_t row = begin; row + 1 < batch.cu_seqlens[sample + 1]; ++row) {
      const int64_t next = labels.at(sample).at(static_cast<size_t>(row + 1 - begin));
      if (next == kNoLoss) continue;
      batch.target_rows.push_back(row);
      batch.targets.push_back(next);
    }
  }
}

/// Reads the request's batch, which is padded as transformers wants it.
model::Batch read_batch(const json& text, model::Head head) {
  model::Batch batch;
  batch.cu_seqlens.push_back(0);
  batch.has_targets = text.contains("labels");
  const auto padded = text.at("ids").get<std::vector<std::vector<int64_t>>>();
  for (size_t sample = 0; sample < padded.size(); ++sample) {
    const auto length = text.at("lengths").at(sample).get<int64_t>();
    batch.ids.insert(batch.ids.end(), padded[sample].begin(), padded[sample].begin() + length);
    batch.cu_seqlens.push_back(static_cast<int64_t>(batch.ids.size()));
    batch.sample_ids.push_back(static_cast<int64_t>(sample));
    if (batch.has_targets) add_targets(text.at("labels"), sample, head, batch);
  }
  if (text.contains("loss_weights")) batch.loss_weights = text.at("loss_weights").get<std::vector<float>>();
  if (text.contains("sample_ids")) batch.sample_ids = text.at("sample_ids").get<std::vector<int64_t>>();
  return batch;
}

/// Returns logits [N, V] as [B, T, V], with zeros in the padding.
at::Tensor padded_logits(const at::Tensor& logits, const model::Batch& batch, int64_t padded_length) {
  const auto samples = static_cast<int64_t>(batch.sample_ids.size());
  at::Tensor padded = at::zeros({samples, padded_length, logits.size(1)}, logits.options());
  for (int64_t sample = 0; sample < samples; ++sample) {
    const int64_t begin = batch.cu_seqlens[static_cast<size_t>(sample)];
    const int64_t length = batch.cu_seqlens[static_cast<size_t>(sample) + 1] - begin;
    padded[sample].narrow(0, 0, length).copy_(logits.narrow(0, begin, length));
  }
  return padded;
}

model::ModelSetup read_setup(const json& text) {
  model::ModelSetup setup;
  setup.config = model::GptNeoConfig::from_file(text.at("model").get<std::string>() + "/config.json");
  const std::string head = text.value("head", "causal_lm");
  setup.head = head == "single_label"  ? model::Head::kSingleLabel
               : head == "multi_label" ? model::Head::kMultiLabel
               : head == "regression"  ? model::Head::kRegression
                                       : model::Head::kCausalLm;
  setup.num_labels = text.value("num_labels", 0);
  setup.compute_dtype = model::dtype_from_name(text.value("compute", "float32"));
  setup.logits_chunk_rows = text.value("logits_chunk_rows", 0);
  setup.label_smoothing = text.value("label_smoothing", 0.0);
  setup.neftune_noise_alpha = text.value("neftune_noise_alpha", 0.0);
  if (text.contains("lora") && !text.at("lora").is_null()) {
    const json& lora = text.at("lora");
    model::LoraOptions options;
    options.r = lora.value("r", options.r);
    options.lora_alpha = lora.value("lora_alpha", options.lora_alpha);
    options.lora_dropout = lora.value("lora_dropout", 0.0);
    options.use_rslora = lora.value("use_rslora", false);
    const json init = lora.value("init_lora_weights", json(true));
    options.init_lora_weights = model::init_from_name(init.is_string() ? init.get<std::string>() : init.dump());
    options.use_dora = lora.value("use_dora", false);
    options.bias = lora.value("bias", options.bias);
    options.lora_bias = lora.value("lora_bias", false);
    options.modules_to_save = lora.value("modules_to_save", options.modules_to_save);
    options.trainable_token_indices = lora.value("trainable_token_indices", options.trainable_token_indices);
    options.target_modules = {lora.value("target_modules", options.target_modules.names)};
    setup.lora = options;
  }
  return setup;
}

void load_params(const model::Model& model, const std::string& path, at::Tensor& params) {
  const model::SafetensorsFile file(path);
  for (const model::ParameterSlot& slot : model.layout().slots) {
    params.narrow(0, slot.offset_elements, slot.elements()).view(slot.shape).copy_(file.tensor(slot.name));
  }
}

void append_slots(NamedTensors& out, const model::Model& model, const at::Tensor& buffer, const std::string& prefix) {
  for (const model::ParameterSlot& slot : model.layout().slots) {
    out.emplace_back(prefix + slot.name, buffer.narrow(0, slot.offset_elements, slot.elements()).view(slot.shape));
  }
}

/// Returns the factors of attention's dropout in one layer, with 1 for the keys that a query does not see:
/// [B, H, padded length, padded length].
at::Tensor attention_factors(const model::ModelSetup& setup, const model::Batch& batch, const model::DropoutKey& key,
                             int64_t layer) {
  const model::GptNeoConfig& config = setup.config;
  const auto samples = static_cast<int64_t>(batch.sample_ids.size());
  const auto length = [&](int64_t sample) {
    const auto i = static_cast<size_t>(sample);
    return batch.cu_seqlens[i + 1] - batch.cu_seqlens[i];
  };
  int64_t longest = 0;
  for (int64_t sample = 0; sample < samples; ++sample) longest = std::max(longest, length(sample));
  at::Tensor factors = at::ones({samples, config.num_heads, longest, longest}, at::kFloat);
  const model::AttentionDropout dropout{config.attention_dropout, key.seed, key.epoch, layer, config.num_heads};
  for (int64_t sample = 0; sample < samples; ++sample) {
    for (int64_t head = 0; head < config.num_heads; ++head) {
      for (int64_t query = 0; query < length(sample); ++query) {
        dropout.draw({batch.sample_ids[static_cast<size_t>(sample)], query}, head, 0, query + 1,
                     factors[sample][head][query].mutable_data_ptr<float>());
      }
    }
  }
  return factors;
}

/// Appends what dropout makes of ones, by module: [N, width of its input], of attention as attention_factors() says.
/// Appends NEFTune's noise as a share of the largest: [N, h].
void append_masks(NamedTensors& out, const model::ModelSetup& setup, const model::Batch& batch,
                  const model::DropoutKey& key) {
  const model::GptNeoConfig& config = setup.config;
  std::vector<model::RowKey> rows;
  for (size_t sample = 0; sample < batch.sample_ids.size(); ++sample) {
    const int64_t length = batch.cu_seqlens[sample + 1] - batch.cu_seqlens[sample];
    for (int64_t token = 0; token < length; ++token) rows.push_back({batch.sample_ids[sample], token});
  }
  const auto count = static_cast<int64_t>(rows.size());
  const auto append = [&](const std::string& module, double probability, int64_t layer, int64_t site, int64_t width) {
    if (probability == 0.0) return;
    const model::DropoutMask mask{probability, key.seed, key.epoch, layer, site};
    out.emplace_back("mask." + module, mask.apply(at::ones({count, width}, at::kFloat), rows));
  };
  const int64_t h = config.hidden_size;
  for (int64_t layer = 0; layer < config.num_layers; ++layer) {
    for (const model::LinearSite site : model::kLinearSites) {
      append(model::module_name(layer, site), setup.lora ? setup.lora->lora_dropout : 0.0, layer,
             static_cast<int64_t>(site), model::features_of(config, site).first);
    }
    const std::string block = "transformer.h." + std::to_string(layer);
    append(block + ".attn.attention.resid_dropout", config.resid_dropout, layer, model::kAttentionOutputSite, h);
    if (config.attention_dropout > 0.0) {
      out.emplace_back("mask." + block + ".attn.attention.attn_dropout", attention_factors(setup, batch, key, layer));
    }
    append(block + ".mlp.dropout", config.resid_dropout, layer, model::kMlpOutputSite, h);
  }
  append("transformer.drop", config.embed_dropout, config.num_layers, model::kEmbeddingSite, h);
  const model::EmbeddingNoise noise{setup.neftune_noise_alpha, key.seed, key.epoch, config.num_layers};
  if (!noise.active()) return;
  at::Tensor drawn = at::zeros({count, h}, at::kFloat);
  noise.add_to(drawn, at::ones({count}, at::kFloat), rows);
  out.emplace_back("noise", drawn);
}

at::Tensor decode(model::Model& model, const at::Tensor& params, const json& text) {
  const auto ids = text.at("decode").get<std::vector<int64_t>>();
  const auto first = text.value("decode_prompt", int64_t{1});
  const auto decoder = model.make_decoder(params, static_cast<int64_t>(ids.size()));
  std::vector<at::Tensor> rows = {decoder->feed({{0, {ids.begin(), ids.begin() + first}}})};
  for (size_t i = static_cast<size_t>(first); i < ids.size(); ++i) rows.push_back(decoder->feed({{0, {ids[i]}}}));
  return at::cat(rows);  // logits after the prompt, then after each further token
}

json run_case(const json& text) {
  const model::ModelSetup setup = read_setup(text);
  const core::Cache cache(text.at("cache").get<std::string>());
  const std::string weights_path = model::prepare_weights(
      text.at("model"), setup.config, model::dtype_from_name(text.value("frozen", "float32")), cache, false);
  const auto weights = model::map_weights(weights_path, setup.config);
  if (setup.lora) {
    model::map_packed_weights(
        model::prepare_packed_weights(weights_path, setup.config, setup.compute_dtype, cache, false),
        setup.compute_dtype, *weights);
  }
  const auto model = model::Model::create(setup, weights);
  const auto options = at::TensorOptions().dtype(at::kFloat);
  at::Tensor params = at::zeros({model->layout().total_elements}, options);
  at::Tensor grads = at::empty({model->layout().total_elements}, options);
  model->initialize(params, text.value("seed", uint64_t{0}));
  if (text.contains("params")) load_params(*model, text.at("params"), params);
  if (setup.lora && setup.lora->init_lora_weights.splits_weights()) {
    at::Tensor initial = params.clone();
    if (text.contains("initial")) load_params(*model, text.at("initial"), initial);
    model->subtract(initial);
  }
  NamedTensors out;
  append_slots(out, *model, params, "value.");
  json answer = {{"trainable", model->layout().trainable_elements}};
  if (text.contains("batch")) {
    const model::Batch batch = read_batch(text.at("batch"), setup.head);
    const model::DropoutKey key{text.value("dropout_seed", uint64_t{0}), text.value("dropout_epoch", int64_t{0})};
    if (batch.has_targets) {
      for (int repeat = 0; repeat < text.value("repeats", 1); ++repeat) {
        const model::LossSum loss = model->forward_backward(batch, params, grads, key, text.value("loss_scale", 1.0));
        answer["loss"] = loss.loss.item<double>();
        answer["count"] = loss.count;
      }
      append_slots(out, *model, grads, "grad.");
      append_masks(out, setup, batch, key);
    }
    const model::EvalOutput evaluated = model->evaluate(batch, params);
    if (evaluated.loss.loss.defined()) answer["eval_loss"] = evaluated.loss.loss.item<double>();
    out.emplace_back("logits", setup.head == model::Head::kCausalLm
                                   ? padded_logits(model->lm_logits(batch, params), batch,
                                                   static_cast<int64_t>(text.at("batch").at("ids").at(0).size()))
                                   : evaluated.logits);
  }
  if (text.contains("decode")) out.emplace_back("decoded", decode(*model, params, text));
  model::write_safetensors(text.at("output"), out);
  return answer;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::cerr << "usage: model_probe REQUEST.json\n";
    return 2;
  }
  try {
    const json request = json::parse(core::read_file(argv[1]));
    at::set_num_threads(request.value("threads", 1));
    for (const json& one : request.at("cases")) std::cout << run_case(one).dump() << std::endl;
  } catch (const core::Error& error) {
    std::cerr << error.what() << '\n';
    return error.exit_code();
  }
  return 0;
}
