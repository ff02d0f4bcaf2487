// SPDX-License-Identifier: Apache-2.0
#include "model/gpt_neo/network.h"
#include "model/scalar_type.h"

#include <ATen/ops/embedding.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>

#include "model/gpt_neo/adapter_init.h"
#include "model/gpt_neo/initial_values.h"
#include "runtime/core/error.h"

namespace neoloom::model {

namespace {

using core::ErrorKind;

void check_shape(const std::string& name, const at::Tensor& tensor, std::vector<int64_t> expected) {
  core::require(tensor.defined(), ErrorKind::kWeights, "weights: {} is missing", name);
  core::require(tensor.sizes() == at::IntArrayRef(expected), ErrorKind::kWeights,
                "weights: {}: expected shape [{}] from the config, found [{}]", name, fmt::join(expected, ", "),
                fmt::join(tensor.sizes(), ", "));
}

void check_weights(const Weights& weights, const ModelSetup& setup) {
  const GptNeoConfig& config = setup.config;
  const int64_t h = config.hidden_size;
  check_shape(kWordEmbeddingName, weights.wte, {config.vocab_size, h});
  check_shape(kPositionEmbeddingName, weights.wpe, {config.max_position_embeddings, h});
  check_shape(kFinalNormWeightName, weights.ln_f.weight, {h});
  core::require(static_cast<int64_t>(weights.blocks.size()) == config.num_layers &&
                    static_cast<int64_t>(config.layer_is_local.size()) == config.num_layers,
                ErrorKind::kWeights, "weights: expected {} blocks and attention types, found {} and {}",
                config.num_layers, weights.blocks.size(), config.layer_is_local.size());
  for (size_t layer = 0; layer < weights.blocks.size(); ++layer) {
    for (const BlockParameter& parameter : kBlockParameters) {
      check_shape(parameter_name(static_cast<int64_t>(layer), parameter),
                  parameter_of(weights.blocks[layer], parameter), parameter_shape(config, parameter));
    }
  }
  if (setup.head == Head::kCausalLm) {
    check_shape(kLmHeadName, weights.lm_head, {config.vocab_size, h});
  } else {
    core::require(setup.num_labels > 0, ErrorKind::kUsage, "model_config.num_labels: expected at least 1, found {}",
                  setup.num_labels);
    if (weights.score.defined()) check_shape(kScoreName, weights.score, {setup.num_labels, h});
  }
}

struct ValueAndGradient {
  at::Tensor& value;
  at::Tensor& gradient;
};

ValueAndGradient trained_tensor_of(Block& block, const BlockParameter& parameter) {
  if (parameter.layer == BlockParameter::Layer::kLinear) {
    Linear& linear = block[parameter.site];
    if (parameter.is_bias) return {linear.bias, linear.bias_grad};
    return {linear.weight.plain, linear.weight_grad};
  }
  Norm& norm = parameter.layer == BlockParameter::Layer::kLn1 ? block.ln_1 : block.ln_2;
  if (parameter.is_bias) return {norm.bias, norm.bias_grad};
  return {norm.weight, norm.weight_grad};
}

std::string peft_name(std::string_view name) { return fmt::format("{}{}", kPeftPrefix, name); }

bool decays(const std::string& name) { return !name.ends_with(".bias") && name.find(".ln_") == std::string::npos; }

}  // namespace

size_t Network::lowest_trainable_block() const {
  if (trains_embedding()) return 0;
  size_t layer = 0;
  while (layer < blocks.size() && !blocks[layer].trains()) ++layer;
  return layer;
}

at::Tensor Network::embed(const at::Tensor& ids, const at::Tensor& positions) const {
  const at::Tensor words = at::embedding(wte, ids).to(at::kFloat);
  return (tokens.present() ? tokens.replaced(words, ids) : words).add(at::embedding(wpe, positions).to(at::kFloat));
}

AttentionKernel attention_kernel(const ModelSetup& setup, int64_t window) {
  return choose_attention(setup.device, setup.compute_dtype, setup.config.head_dim(), window);
}

bool has_fixed_shapes(const ModelSetup& setup) {
  if (setup.config.attention_dropout > 0.0) return false;
  const std::vector<bool>& layers = setup.config.layer_is_local;
  return std::all_of(layers.begin(), layers.end(), [&](bool local) {
    return attention_kernel(setup, local ? setup.config.window_size : 0) != AttentionKernel::kMath;
  });
}

NetworkBuilder::NetworkBuilder(const ModelSetup& setup, std::shared_ptr<const Weights> weights)
    : setup_(setup), weights_(std::move(weights)) {
  check_weights(*weights_, setup_);
  if (setup_.lora) {
    lay_out_adapters();
    convert_small_tensors();
  } else {
    lay_out_everything();
  }
}

void NetworkBuilder::lay_out_adapters() {
  const LoraOptions& lora = *setup_.lora;
  core::require(lora.lora_dropout >= 0.0 && lora.lora_dropout < 1.0, ErrorKind::kUsage,
                "peft_config.lora_dropout: expected a number in [0, 1), found {}", lora.lora_dropout);
  const AdapterMap adapters = adapter_map(lora, setup_.config.num_layers);
  const GptNeoConfig& config = setup_.config;
  if (!lora.trainable_token_indices.empty()) {
    require_tokens(lora, config);
    tokens_ = choose_tokens(lora.trainable_token_indices, config.vocab_size, weights_->wte.device());
    tokens_.in_head = setup_.head == Head::kCausalLm && config.tie_word_embeddings;
    tokens_slot_ = layout_.add(peft_name(kTrainableTokensName), {tokens_.ids.size(0), config.hidden_size}, true);
  }
  if (trains_whole(lora, "wte")) {
    wte_slot_ = layout_.add(peft_name(kWordEmbeddingName), {config.vocab_size, config.hidden_size}, true);
  }
  lora_slots_.resize(adapters.size());
  bias_slots_.resize(adapters.size());
  for (size_t layer = 0; layer < adapters.size(); ++layer) {
    layout_.block_begin_elements.push_back(layout_.total_elements);
    for (const LinearSite site : kLinearSites) {
      const auto index = static_cast<size_t>(site);
      if (adapters[layer][index].present()) add_adapter(layer, site, adapters[layer][index]);
    }
    add_biases(layer, adapters[layer]);
  }
  add_after_blocks();
}

void NetworkBuilder::add_after_blocks() {
  const LoraOptions& lora = *setup_.lora;
  const int64_t h = setup_.config.hidden_size;
  const bool ln_f = trains_whole(lora, "ln_f");
  if (ln_f) ln_f_slot_ = layout_.add(peft_name(kFinalNormWeightName), {h}, false);
  if (ln_f || lora.bias == "all") ln_f_bias_slot_ = layout_.add(peft_name(kFinalNormBiasName), {h}, false);
  if (setup_.head != Head::kCausalLm) {
    score_slot_ = layout_.add(peft_name(kScoreName), {setup_.num_labels, h}, true);
  } else if (trains_whole(lora, "lm_head")) {
    lm_head_slot_ = layout_.add(peft_name(kLmHeadName), {setup_.config.vocab_size, h}, true);
  }
}

void NetworkBuilder::add_adapter(size_t layer, LinearSite site, const AdapterShape& adapter) {
  check_start(adapter, static_cast<int64_t>(layer), site);
  LoraSlots& slots = lora_slots_[layer][static_cast<size_t>(site)];
  const auto [in, out] = features_of(setup_.config, site);
  const std::string module = fmt::format("{}{}", kPeftPrefix, module_name(static_cast<int64_t>(layer), site));
  slots.a = layout_.add(fmt::format("{}{}", module, kLoraASuffix), {adapter.rank, in}, true);
  slots.b = layout_.add(fmt::format("{}{}", module, kLoraBSuffix), {out, adapter.rank}, true);
  slots.scaling = adapter.scaling;
  if (setup_.lora->lora_bias) slots.bias = layout_.add(fmt::format("{}{}", module, kLoraBiasSuffix), {out}, false);
  if (!setup_.lora->use_dora) return;
  slots.magnitude = layout_.add(fmt::format("{}{}", module, kMagnitudeSuffix), {out}, true);
  slots.weight_squares = row_squares(weights_->blocks[layer][site].weight);
}

void NetworkBuilder::add_biases(size_t layer, const BlockAdapters& adapters) {
  for (size_t i = 0; i < kBlockParameters.size(); ++i) {
    const BlockParameter& parameter = kBlockParameters[i];
    bias_slots_[layer][i] = -1;
    if (!trains_bias(*setup_.lora, adapters, parameter)) continue;
    const bool adapted =
        parameter.layer == BlockParameter::Layer::kLinear && adapters[static_cast<size_t>(parameter.site)].present();
    const std::string name =
        adapted ? fmt::format("{}{}", module_name(static_cast<int64_t>(layer), parameter.site), kBaseLayerBiasSuffix)
                : parameter_name(static_cast<int64_t>(layer), parameter);
    bias_slots_[layer][i] = layout_.add(peft_name(name), parameter_shape(setup_.config, parameter), false);
  }
}

/// Refuses a rank that the initialisation cannot make.
void NetworkBuilder::check_start(const AdapterShape& adapter, int64_t layer, LinearSite site) const {
  const AdapterInit& init = setup_.lora->init_lora_weights;
  const auto [in, out] = features_of(setup_.config, site);
  core::require(
      !init.splits_weights() || adapter.rank <= std::min(in, out), ErrorKind::kUsage,
      "peft_config.init_lora_weights {} takes r singular vectors or columns of the weight: {} has {}, r is {}",
      init_name(init), module_name(layer, site), std::min(in, out), adapter.rank);
  core::require(init.kind != AdapterInit::Kind::kOrthogonal || adapter.rank % 2 == 0, ErrorKind::kUsage,
                "peft_config.init_lora_weights orthogonal needs an even r: {} has {}", module_name(layer, site),
                adapter.rank);
}

void NetworkBuilder::lay_out_everything() {
  for (const auto& [name, tensor] : named_tensors(*weights_)) {
    const bool other_head = name == kScoreName || (name == kLmHeadName && setup_.head != Head::kCausalLm);
    const size_t next_block = layout_.block_begin_elements.size();
    if (name.starts_with(fmt::format("transformer.h.{}.", next_block))) {
      layout_.block_begin_elements.push_back(layout_.total_elements);
    }
    if (!other_head) layout_.add(name, tensor.sizes().vec(), decays(name));
  }
  if (setup_.head != Head::kCausalLm) {
    score_slot_ = layout_.add(kScoreName, {setup_.num_labels, setup_.config.hidden_size}, true);
  }
}

void NetworkBuilder::convert_small_tensors() {
  frozen_blocks_ = weights_->blocks;
  for (BlockWeights& block : frozen_blocks_) {
    for (const BlockParameter& parameter : kBlockParameters) {
      at::Tensor& tensor = parameter_of(block, parameter);
      if (tensor.dim() == 1) tensor = tensor.to(at::kFloat);
    }
  }
  ln_f_ = {weights_->ln_f.weight.to(at::kFloat), weights_->ln_f.bias.to(at::kFloat)};
}

at::Tensor NetworkBuilder::slot_view(const at::Tensor& buffer, int64_t slot) const {
  if (!buffer.defined() || slot < 0) return {};
  const ParameterSlot& place = layout_.slots[static_cast<size_t>(slot)];
  return buffer.narrow(0, place.offset_elements, place.elements()).view(place.shape);
}

Network NetworkBuilder::build(const at::Tensor& params, const at::Tensor& grads, const DropoutKey* dropout) const {
  core::require(params.dim() == 1 && params.size(0) == layout_.total_elements && params.scalar_type() == at::kFloat,
                ErrorKind::kInternal, "parameters: expected {} fp32 elements, found {}", layout_.total_elements,
                params.numel());
  Network network = setup_.lora ? build_frozen(params, grads, dropout) : build_full(params, grads);
  network.score = slot_view(params, score_slot_);
  network.score_grad = slot_view(grads, score_slot_);
  if (dropout != nullptr) attach_dropouts(network, *dropout);
  return network;
}

void NetworkBuilder::attach_dropouts(Network& network, const DropoutKey& key) const {
  const GptNeoConfig& config = setup_.config;
  network.noise = {setup_.neftune_noise_alpha, key.seed, key.epoch, config.num_layers};
  network.embed_dropout = {config.embed_dropout, key.seed, key.epoch, config.num_layers, kEmbeddingSite};
  for (int64_t layer = 0; layer < config.num_layers; ++layer) {
    Block& block = network.blocks[static_cast<size_t>(layer)];
    block[LinearSite::kOutProj].output_dropout = {config.resid_dropout, key.seed, key.epoch, layer,
                                                  kAttentionOutputSite};
    block[LinearSite::kCProj].output_dropout = {config.resid_dropout, key.seed, key.epoch, layer, kMlpOutputSite};
    if (config.attention_dropout == 0.0) continue;
    block.attention.set_dropout({config.attention_dropout, key.seed, key.epoch, layer, config.num_heads});
    block.attention_kernel = AttentionKernel::kMath;
  }
}

Network NetworkBuilder::build_frozen(const at::Tensor& params, const at::Tensor& grads,
                                     const DropoutKey* dropout) const {
  Network network;
  network.wte = weights_->wte;
  network.wpe = weights_->wpe;
  network.head = {weights_->lm_head, weights_->packed_lm_head};
  network.aligned_head = weights_->aligned_lm_head;
  network.ln_f = {ln_f_.weight, ln_f_.bias, {}, {}, setup_.config.layer_norm_epsilon};
  attach_whole(network, params, grads);
  at::Tensor lowp_params;
  if (setup_.device.cuda) lowp_params = params.to(scalar_type(setup_.compute_dtype));
  for (size_t layer = 0; layer < frozen_blocks_.size(); ++layer) {
    network.blocks.push_back(build_block(layer, params, lowp_params, grads, dropout));
  }
  return network;
}

Block NetworkBuilder::build_block(size_t layer, const at::Tensor& params, const at::Tensor& lowp_params,
                                  const at::Tensor& grads, const DropoutKey* dropout) const {
  const BlockWeights& weights = frozen_blocks_[layer];
  const double epsilon = setup_.config.layer_norm_epsilon;
  Block block;
  block.ln_1 = {weights.ln_1.weight, weights.ln_1.bias, {}, {}, epsilon};
  block.ln_2 = {weights.ln_2.weight, weights.ln_2.bias, {}, {}, epsilon};
  for (const LinearSite site : kLinearSites) {
    block[site].weight = {weights[site].weight, weights[site].packed_weights};
    block[site].bias = weights[site].bias;
  }
  choose_attention(block, setup_.config.layer_is_local[layer]);
  attach_biases(block, layer, params, grads);
  attach_adapters(block, layer, params, lowp_params, grads, dropout);
  return block;
}

void NetworkBuilder::choose_attention(Block& block, bool local) const {
  const GptNeoConfig& config = setup_.config;
  const int64_t window = local ? config.window_size : 0;
  block.attention = Attention(config.num_heads, window, setup_.device.cuda, setup_.compute_dtype);
  block.attention_kernel = attention_kernel(setup_, window);
}

void NetworkBuilder::attach_whole(Network& network, const at::Tensor& params, const at::Tensor& grads) const {
  const auto attach = [&](int64_t slot, at::Tensor& value, at::Tensor& gradient) {
    if (slot < 0) return;
    value = slot_view(params, slot);
    gradient = slot_view(grads, slot);
  };
  network.tokens = tokens_;
  attach(tokens_slot_, network.tokens.rows, network.tokens.rows_grad);
  attach(wte_slot_, network.wte, network.wte_grad);
  attach(ln_f_slot_, network.ln_f.weight, network.ln_f.weight_grad);
  attach(ln_f_bias_slot_, network.ln_f.bias, network.ln_f.bias_grad);
  if (lm_head_slot_ < 0) return;
  network.head = Matrix{};
  network.aligned_head = at::Tensor();
  attach(lm_head_slot_, network.head.plain, network.head_grad);
}

void NetworkBuilder::attach_biases(Block& block, size_t layer, const at::Tensor& params,
                                   const at::Tensor& grads) const {
  for (size_t i = 0; i < kBlockParameters.size(); ++i) {
    const int64_t slot = bias_slots_[layer][i];
    if (slot < 0) continue;
    const ValueAndGradient bias = trained_tensor_of(block, kBlockParameters[i]);
    bias.value = slot_view(params, slot);
    bias.gradient = slot_view(grads, slot);
  }
}

void NetworkBuilder::attach_adapters(Block& block, size_t layer, const at::Tensor& params,
                                     const at::Tensor& lowp_params, const at::Tensor& grads,
                                     const DropoutKey* dropout) const {
  for (const LinearSite site : kLinearSites) {
    const LoraSlots& slots = lora_slots_[layer][static_cast<size_t>(site)];
    if (slots.a < 0) continue;
    LoraBranch& branch = block[site].lora;
    branch.a = slot_view(params, slots.a);
    branch.b = slot_view(params, slots.b);
    branch.a_grad = slot_view(grads, slots.a);
    branch.b_grad = slot_view(grads, slots.b);
    branch.lowp_a = slot_view(lowp_params, slots.a);
    branch.lowp_b = slot_view(lowp_params, slots.b);
    branch.scaling = slots.scaling;
    branch.a0 = slot_view(subtracted_, slots.a);
    branch.b0 = slot_view(subtracted_, slots.b);
    branch.lowp_a0 = slot_view(lowp_subtracted_, slots.a);
    branch.lowp_b0 = slot_view(lowp_subtracted_, slots.b);
    branch.dora.magnitude = slot_view(params, slots.magnitude);
    branch.dora.magnitude_grad = slot_view(grads, slots.magnitude);
    branch.dora.weight_squares = slots.weight_squares;
    if (slots.bias >= 0) {  // s (B u + bias) + b = s B u + (b + s bias)
      at::Tensor& bias = block[site].bias;
      const at::Tensor own = slot_view(params, slots.bias);
      bias = bias.defined() ? bias.add(own, slots.scaling) : own.mul(slots.scaling);
      branch.bias_grad = slot_view(grads, slots.bias);
    }
    if (dropout != nullptr) {
      branch.dropout = {setup_.lora->lora_dropout, dropout->seed, dropout->epoch, static_cast<int64_t>(layer),
                        static_cast<int64_t>(site)};
    }
  }
}

Network NetworkBuilder::build_full(const at::Tensor& params, const at::Tensor& grads) const {
  int64_t slot = 0;  // slots are consumed in the order of named_tensors
  const auto take = [&](at::Tensor& value, at::Tensor& gradient) {
    value = slot_view(params, slot);
    gradient = slot_view(grads, slot);
    ++slot;
  };
  const auto take_norm = [&](Norm& norm) {
    take(norm.weight, norm.weight_grad);
    take(norm.bias, norm.bias_grad);
    norm.epsilon = setup_.config.layer_norm_epsilon;
  };
  Network network;
  take(network.wte, network.wte_grad);
  take(network.wpe, network.wpe_grad);
  for (const bool local : setup_.config.layer_is_local) {
    Block& block = network.blocks.emplace_back();
    for (const BlockParameter& parameter : kBlockParameters) {
      const ValueAndGradient tensor = trained_tensor_of(block, parameter);
      take(tensor.value, tensor.gradient);
    }
    block.ln_1.epsilon = block.ln_2.epsilon = setup_.config.layer_norm_epsilon;
    choose_attention(block, local);
  }
  take_norm(network.ln_f);
  const bool tied = weights_->lm_head.is_same(weights_->wte);
  if (setup_.head == Head::kCausalLm && !tied) {
    take(network.head.plain, network.head_grad);
  } else {
    network.head = network.wte;
    network.head_grad = network.wte_grad;
  }
  return network;
}

void NetworkBuilder::subtract(const at::Tensor& initial) {
  core::require(setup_.lora && initial.sizes() == at::IntArrayRef{layout_.total_elements}, ErrorKind::kInternal,
                "initial values: expected {} elements, found {}", layout_.total_elements, initial.numel());
  subtracted_ = initial;
  if (setup_.device.cuda) lowp_subtracted_ = subtracted_.to(scalar_type(setup_.compute_dtype));
}

void NetworkBuilder::initialize_adapters(const at::Tensor& params, uint64_t seed, Model::Share share) const {
  const AdapterInit& init = setup_.lora->init_lora_weights;
  int64_t number = 0;
  for (size_t layer = 0; layer < lora_slots_.size(); ++layer) {
    for (const LinearSite site : kLinearSites) {
      const LoraSlots& slots = lora_slots_[layer][static_cast<size_t>(site)];
      if (slots.a < 0) continue;
      const bool mine = !init.decomposes() || number % share.of == share.number;
      ++number;
      if (!mine) continue;
      initialize_adapter({.init = init,
                          .weight = weights_->blocks[layer][site].weight,
                          .scaling = slots.scaling,
                          .seed = seed,
                          .a_name = layout_.slots[static_cast<size_t>(slots.a)].name,
                          .b_name = layout_.slots[static_cast<size_t>(slots.b)].name},
                         slot_view(params, slots.a), slot_view(params, slots.b));
      if (slots.bias >= 0 && init.kind == AdapterInit::Kind::kFalse) {
        fill_uniform(slot_view(params, slots.bias), 1.0 / std::sqrt(slot_view(params, slots.a).size(0)), seed,
                     layout_.slots[static_cast<size_t>(slots.bias)].name);
      }
    }
  }
}

void NetworkBuilder::initialize_biases(const at::Tensor& params) const {
  for (size_t layer = 0; layer < bias_slots_.size(); ++layer) {
    for (size_t i = 0; i < kBlockParameters.size(); ++i) {
      const int64_t slot = bias_slots_[layer][i];
      if (slot >= 0) slot_view(params, slot).copy_(parameter_of(frozen_blocks_[layer], kBlockParameters[i]));
    }
  }
}

void NetworkBuilder::initialize_whole(const at::Tensor& params) const {
  const auto copy = [&](int64_t slot, const at::Tensor& value) {
    if (slot >= 0) slot_view(params, slot).copy_(value);
  };
  if (tokens_slot_ >= 0) copy(tokens_slot_, weights_->wte.index_select(0, tokens_.ids));
  copy(wte_slot_, weights_->wte);
  copy(ln_f_slot_, ln_f_.weight);
  copy(ln_f_bias_slot_, ln_f_.bias);
  copy(lm_head_slot_, weights_->lm_head);
}

void NetworkBuilder::initialize(at::Tensor& params, uint64_t seed, Model::Share share) const {
  params.zero_();
  if (!setup_.lora) {
    const auto named = named_tensors(*weights_);
    size_t slot = 0;
    for (const auto& [name, tensor] : named) {
      if (slot < layout_.slots.size() && layout_.slots[slot].name == name && name != kScoreName) {
        slot_view(params, static_cast<int64_t>(slot++)).copy_(tensor);
      }
    }
  }
  if (setup_.lora) {
    initialize_biases(params);
    initialize_whole(params);
    initialize_adapters(params, seed, share);
  }
  if (score_slot_ < 0) return;
  if (weights_->score.defined()) {
    slot_view(params, score_slot_).copy_(weights_->score);
  } else {
    fill_normal(slot_view(params, score_slot_), setup_.config.initializer_range, seed,
                layout_.slots[static_cast<size_t>(score_slot_)].name);
  }
}

}  // namespace neoloom::model
