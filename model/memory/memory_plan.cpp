// SPDX-License-Identifier: Apache-2.0
#include "model/memory/memory_plan.h"

#include <algorithm>
#include <bit>
#include <vector>

#include "model/batch/packing.h"
#include "model/gpt_neo/heads.h"
#include "model/lora/target_modules.h"
#include "model/lora/trainable_count.h"
#include "model/memory/block_memory.h"
#include "model/memory/memory_ledger.h"

namespace neoloom::model {

namespace {

using Allocation = MemoryLedger::Allocation;

/// gpt_neo.cpp and heads.cpp, tensor by tensor.
class Walk {
 public:
  Walk(const MemorySetup& setup, const BatchShape& shape)
      : setup_(setup),
        shape_(rounded(setup, shape)),
        layers_(trained_linears(setup)),
        blocks_(setup, shape_, ledger_) {}

  StepMemory train() {
    const int64_t h = config().hidden_size;
    const Allocation lowp_parameters = ledger_.hold(lowp_parameter_bytes());
    std::vector<SavedBlock> saved(layers_.size());
    {
      const Allocation hidden = run_blocks(&saved);
      result_.saved_bytes = ledger_.live_bytes() - hidden.bytes() - lowp_parameters.bytes();
      gradient_ = ledger_.hold(kFp32Bytes * h * final_rows());
      head(/*gradients=*/true);
    }
    backward(saved);
    result_.peak_bytes = ledger_.peak_bytes();
    return result_;
  }

  int64_t evaluate() {
    const Allocation lowp_parameters = ledger_.hold(lowp_parameter_bytes());
    const Allocation hidden = run_blocks(nullptr);
    head(/*gradients=*/false);
    return ledger_.peak_bytes();
  }

 private:
  const GptNeoConfig& config() const { return setup_.model.config; }
  bool on_cuda() const { return setup_.model.device.cuda; }
  bool lowp() const { return setup_.model.compute_dtype != Dtype::kFloat32; }
  bool causal() const { return setup_.model.head == Head::kCausalLm; }
  bool trains_everything() const { return !setup_.model.lora.has_value(); }
  int64_t final_rows() const { return causal() ? shape_.tokens : shape_.samples; }

  /// What a device's products read of the adapters (NetworkBuilder::build_frozen).
  int64_t lowp_parameter_bytes() const {
    const ModelSetup& model = setup_.model;
    if (!on_cuda() || !lowp() || trains_everything()) return 0;
    return kLowpBytes * count_trainable(model.config, model.lora, model.num_labels).flat_elements;
  }

  /// On a device kernels come in few shapes (GptNeo::has_fixed_shapes).
  static BatchShape rounded(const MemorySetup& setup, BatchShape shape) {
    const ModelSetup& model = setup.model;
    const bool packed_attention =
        choose_attention(model.device, model.compute_dtype, model.config.head_dim(), 0) != AttentionKernel::kMath;
    if (!packed_attention) return shape;
    shape.tokens = fixed_shape_rows(model.head, shape.tokens);
    shape.targets = rounded_rows(shape.targets);
    ++shape.samples;
    return shape;
  }

  static std::vector<TrainedLinears> trained_linears(const MemorySetup& setup) {
    const int64_t count = setup.model.config.num_layers;
    std::vector<TrainedLinears> layers(static_cast<size_t>(count));
    if (!setup.model.lora) {
      for (TrainedLinears& layer : layers) layer.everything = true;
      return layers;
    }
    const TargetMap targets = match_targets(setup.model.lora->target_modules, count);
    for (size_t i = 0; i < layers.size(); ++i) layers[i].adapters = targets[i];
    return layers;
  }

  size_t lowest_trainable_block() const {
    const auto found = std::find_if(layers_.begin(), layers_.end(), [](const auto& layer) { return layer.any(); });
    return static_cast<size_t>(found - layers_.begin());
  }

  BlockRows rows_of(size_t layer) const {
    return {shape_.tokens, layer + 1 == layers_.size() ? final_rows() : shape_.tokens};
  }
  bool checkpointed(size_t layer) const { return setup_.model.gradient_checkpointing && layer + 1 < layers_.size(); }

  Allocation embed() {
    const int64_t values = shape_.tokens * config().hidden_size;
    const int64_t stored = trains_everything() || setup_.frozen_dtype == Dtype::kFloat32 ? 0 : kLowpBytes * values;
    const Allocation words = ledger_.hold(kFp32Bytes * values);
    ledger_.note_transient(stored + 2 * kFp32Bytes * values);
    return ledger_.hold(kFp32Bytes * values);
  }

  Allocation run_blocks(std::vector<SavedBlock>* saved) {
    const size_t lowest = saved != nullptr ? lowest_trainable_block() : layers_.size();
    Allocation x = embed();
    for (size_t layer = 0; layer < layers_.size(); ++layer) {
      SavedBlock kept;
      const int64_t before = ledger_.live_bytes();
      Allocation out = blocks_.forward(layers_[layer], rows_of(layer), kept);
      if (layer < lowest) {
        x = std::move(out);
        continue;
      }
      const bool final_block = layer + 1 == layers_.size();
      // The input of each block is the output of the one below: it is counted once, there.
      if (!final_block || layers_.size() == 1) {
        result_.block_saved_bytes = ledger_.live_bytes() - before - out.bytes() + x.bytes();
      }
      if (checkpointed(layer)) kept.drop_all_but_inputs();
      kept.x = std::move(x);
      (*saved)[layer] = std::move(kept);
      x = std::move(out);
    }
    return x;
  }

  void backward(std::vector<SavedBlock>& saved) {
    const size_t lowest = lowest_trainable_block();
    for (size_t layer = layers_.size(); layer-- > lowest;) {
      if (checkpointed(layer)) blocks_.recompute(layers_[layer], rows_of(layer), saved[layer]);
      gradient_ = blocks_.backward(layers_[layer], rows_of(layer), std::move(gradient_));
      saved[layer] = {};
    }
  }

  void head(bool gradients) {
    if (causal()) {
      language_head(gradients);
    } else {
      const int64_t few = 3 * kFp32Bytes * shape_.samples * (config().hidden_size + setup_.model.num_labels);
      ledger_.note_transient(few);
    }
  }

  void language_head(bool gradients) {
    const int64_t h = config().hidden_size;
    const int64_t words = config().vocab_size;
    const int64_t rows = shape_.targets;
    const int64_t chunk = std::min(logits_chunk_rows(setup_.model), rows);
    const Allocation selected = ledger_.hold(2 * kFp32Bytes * h * rows);  // and normed
    const Allocation d_normed = ledger_.hold(gradients ? kFp32Bytes * h * rows : 0);
    // On a device a head that trains is converted for all chunks.
    const Allocation head = ledger_.hold(on_cuda() && lowp() && trains_everything() ? kLowpBytes * h * words : 0);
    {
      // Products of plain matrices do not write where they are told to: what they make is held beside it.
      const bool twice = !on_cuda() && !setup_.packed_weights;
      const Allocation logits = ledger_.hold((twice ? 2 : 1) * kFp32Bytes * chunk * words);
      blocks_.note_matmul(chunk, h, words, {});
      if (on_cuda()) ledger_.note_transient(kFp32Bytes * chunk * words);  // log probabilities
      const Allocation d_chunk = ledger_.hold(gradients ? kFp32Bytes * chunk * h : 0);
      if (gradients) blocks_.note_matmul(chunk, words, h, {.backward = true, .input_is_lowp = on_cuda()});
    }
    ledger_.note_transient(kFp32Bytes * h * rows);
  }

  const MemorySetup& setup_;
  BatchShape shape_;
  std::vector<TrainedLinears> layers_;
  MemoryLedger ledger_;
  BlockMemory blocks_;
  Allocation gradient_;  // of the final block's output, then of the one below, ...
  StepMemory result_;
};

}  // namespace

StepMemory training_memory(const MemorySetup& setup, const BatchShape& shape) { return Walk(setup, shape).train(); }

int64_t evaluation_peak_bytes(const MemorySetup& setup, const BatchShape& shape) {
  MemorySetup still = setup;
  if (still.model.lora) still.model.lora->lora_dropout = 0.0;
  return Walk(still, shape).evaluate();
}

namespace {

int64_t element_bytes(Dtype dtype) { return dtype == Dtype::kFloat32 ? kFp32Bytes : kLowpBytes; }

/// The packed weights of every matrix; those of the head are read by language models only.
int64_t packed_bytes(const MemorySetup& setup, bool with_head) {
  const GptNeoConfig& config = setup.model.config;
  const Dtype compute = setup.model.compute_dtype;
  const auto side = [&](int64_t k, int64_t n) {
    int64_t bytes = element_bytes(compute == Dtype::kFloat32 ? setup.frozen_dtype : compute);
    for (const int64_t extent : packed_shape(k, n, compute)) bytes *= extent;
    return bytes;
  };
  const auto matrix = [&](int64_t in, int64_t out) {
    return side(in, out) + (compute == Dtype::kFloat32 ? 0 : side(out, in));
  };
  int64_t bytes = with_head ? matrix(config.hidden_size, config.vocab_size) : 0;
  for (const LinearSite site : kLinearSites) {
    const auto [in, out] = features_of(config, site);
    bytes += config.num_layers * matrix(in, out);
  }
  return bytes;
}

/// to_device(): matrices in the type of their products.
int64_t cuda_weight_bytes(const MemorySetup& setup) {
  const GptNeoConfig& config = setup.model.config;
  const int64_t h = config.hidden_size;
  const int64_t matrices = config.num_layers * (4 * h * h + 2 * h * config.intermediate_size);
  const int64_t head = config.vocab_size * h;
  const Dtype type = setup.model.lora ? setup.model.compute_dtype : setup.frozen_dtype;
  const bool extra_head = config.tie_word_embeddings && type != setup.frozen_dtype;
  const int64_t untied = config.tie_word_embeddings ? 0 : head;
  return element_bytes(setup.frozen_dtype) * (config.body_parameters() - matrices - untied) +
         element_bytes(type) * (matrices + untied + (extra_head ? head : 0));
}

}  // namespace

WeightMemory weight_memory(const MemorySetup& setup) {
  const GptNeoConfig& config = setup.model.config;
  const int64_t h = config.hidden_size;
  const int64_t element = element_bytes(setup.frozen_dtype);
  WeightMemory memory;
  memory.mapped_bytes = element * config.body_parameters();
  if (setup.model.device.cuda) {
    memory.private_bytes = cuda_weight_bytes(setup);
    return memory;
  }
  if (!setup.model.lora) return memory;  // read once: training starts there
  const bool causal = setup.model.head == Head::kCausalLm;
  const bool reads_plain = !setup.packed_weights || setup.model.compute_dtype == Dtype::kFloat32;
  const int64_t embeddings = (config.vocab_size + config.max_position_embeddings) * h;
  memory.read_bytes = reads_plain ? memory.mapped_bytes : element * embeddings;
  if (setup.packed_weights) {
    memory.mapped_bytes += packed_bytes(setup, /*with_head=*/true);
    memory.read_bytes += packed_bytes(setup, causal);
  }
  if (setup.frozen_dtype != Dtype::kFloat32) {
    memory.private_bytes = kFp32Bytes * (config.num_layers * (6 * h + config.intermediate_size) + 2 * h);
  }
  return memory;
}

}  // namespace neoloom::model
