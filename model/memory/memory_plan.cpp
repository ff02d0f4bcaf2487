// SPDX-License-Identifier: Apache-2.0
#include "model/memory/memory_plan.h"

#include <ATen/ops/empty_like.h>

#include <memory>
#include <utility>
#include <vector>

#include "model/batch/packing.h"
#include "model/gpt_neo/dora_norms.h"
#include "model/gpt_neo/network.h"
#include "model/gpt_neo/passes.h"
#include "model/gpt_neo/weights.h"
#include "model/lora/target_modules.h"
#include "model/memory/memory_backend.h"
#include "model/memory/memory_ledger.h"
#include "model/scalar_type.h"

namespace neoloom::model {

namespace {

at::Tensor make_index(int64_t rows) { return make({rows}, at::kLong); }

/// Makes what pack() makes. Only the shapes are read.
MicroBatch micro_batch(const ModelSetup& setup, BatchShape shape, bool training) {
  if (training && has_fixed_shapes(setup)) {
    shape.tokens = fixed_shape_rows(setup.head, shape.tokens);
    shape.targets = rounded_rows(shape.targets);
    ++shape.samples;
  }
  MicroBatch batch;
  batch.packed.ids = batch.packed.positions = make_index(shape.tokens);
  if (setup.neftune_noise_alpha > 0.0) batch.packed.noise_reach = make({shape.tokens}, at::kFloat);
  // Kernels that go sample by sample need most memory for the longest one.
  batch.packed.rows.segments = {{0, shape.longest, 0, shape.longest}};
  batch.packed.last_rows.segments = {{0, 1, 0, shape.longest}};
  batch.packed.last_rows.query_index = make_index(shape.samples);
  batch.targets.rows = batch.targets.values = make_index(setup.head == Head::kCausalLm ? shape.targets : shape.samples);
  return batch;
}

/// Makes weights in the form in which the model computes with them. The values of packed weights do not matter: only
/// whether there are any is read.
std::shared_ptr<const Weights> weights_of(const MemorySetup& setup) {
  const ModelSetup& model = setup.model;
  auto weights = std::make_shared<Weights>();
  weights->blocks.resize(static_cast<size_t>(model.config.num_layers));
  const auto shapes = body_shapes(model.config);
  auto next = shapes.begin();
  for_each_body_tensor(*weights, [&](const std::string& /*name*/, at::Tensor& tensor) {
    tensor = make((next++)->second, scalar_type(setup.frozen_dtype));
  });
  weights->lm_head = model.config.tie_word_embeddings ? weights->wte : at::empty_like(weights->wte);
  if (model.device.cuda) return to_device(weights, "meta", model.lora ? model.compute_dtype : setup.frozen_dtype);
  if (!setup.packed_weights) return weights;
  for (const FrozenMatrix& matrix : frozen_matrices(*weights)) matrix.packed_weights->forward = matrix.values;
  return weights;
}

/// Replaces a multi-label or regression head by a single-label one, which makes tensors of the same few bytes.
ModelSetup with_countable_head(ModelSetup setup) {
  if (setup.head != Head::kCausalLm) setup.head = Head::kSingleLabel;
  return setup;
}

/// Runs a micro-step without values. What its caller owns is allocated before the ledger counts.
class DryRun {
 public:
  DryRun(const MemorySetup& setup, const BatchShape& shape, bool training, std::vector<StepGemm>* gemms = nullptr)
      : model_(with_countable_head(setup.model)),
        batch_(micro_batch(model_, shape, training)),
        builder_(model_, weights_of(setup)),
        params_(make({builder_.layout().total_elements}, at::kFloat)),
        grads_(training ? at::empty_like(params_) : at::Tensor()),
        network_(network(training)),
        backend_(model_.device.cuda ? make_cuda_memory_backend(setup)
                                    : make_cpu_memory_backend(setup, shape.longest, gemms)) {
    set_dora_norms(network_, dora_norms(network_, *backend_));
  }

  /// Runs forward and backward. Returns what all blocks keep at the end of forward.
  int64_t step() {
    const int64_t before = ledger_.live_bytes();
    Passes::Saved saved;
    int64_t saved_bytes = 0;
    at::Tensor d_hidden;
    {
      const at::Tensor hidden = passes_.forward(&saved);
      saved_bytes = ledger_.live_bytes() - before - static_cast<int64_t>(hidden.nbytes());
      d_hidden = passes_.head(hidden, {.gradients = true}).d_hidden;
    }
    passes_.backward(saved, std::move(d_hidden), {});
    return saved_bytes;
  }

  StepMemory train() {
    StepMemory memory;
    memory.saved_bytes = step();
    memory.peak_bytes = ledger_.peak_bytes();
    memory.block_saved_bytes = block_saved_bytes();
    return memory;
  }

  int64_t evaluate() {
    passes_.head(passes_.forward(nullptr), {.counts_right = true});
    return ledger_.peak_bytes();
  }

 private:
  Network network(bool training) {
    if (model_.lora && model_.lora->init_lora_weights.splits_weights()) builder_.subtract(params_);
    return builder_.build(params_, grads_, training ? &dropout_ : nullptr);
  }

  int64_t block_saved_bytes() {
    const size_t blocks = network_.blocks.size();
    const size_t middle = blocks > 1 ? blocks - 2 : 0;
    if (middle < network_.lowest_trainable_block()) return 0;
    const int64_t before = ledger_.live_bytes();
    BlockSaved saved;
    const at::Tensor x = make({batch_.packed.ids.size(0), model_.config.hidden_size}, at::kFloat);
    network_.blocks[middle].forward(*backend_, x, passes_.rows_of(middle), &saved);
    return ledger_.live_bytes() - before;
  }

  ModelSetup model_;
  MicroBatch batch_;
  NetworkBuilder builder_;
  DropoutKey dropout_;
  at::Tensor params_;
  at::Tensor grads_;
  MemoryLedger ledger_;
  Network network_;
  std::unique_ptr<Backend> backend_;
  Passes passes_{model_, network_, *backend_, batch_};
};

}  // namespace

StepMemory training_memory(const MemorySetup& setup, const BatchShape& shape) {
  return DryRun(setup, shape, /*training=*/true).train();
}

std::vector<StepGemm> training_gemms(const MemorySetup& setup, const BatchShape& shape) {
  std::vector<StepGemm> gemms;
  DryRun(setup, shape, /*training=*/true, &gemms).step();
  return gemms;
}

int64_t evaluation_peak_bytes(const MemorySetup& setup, const BatchShape& shape) {
  MemorySetup evaluation = setup;
  evaluation.model.config.attention_dropout = 0.0;  // which would choose another kernel
  return DryRun(evaluation, shape, /*training=*/false).evaluate();
}

namespace {

int64_t element_bytes(Dtype dtype) { return dtype == Dtype::kFloat32 ? kFp32Bytes : kLowpBytes; }

/// Returns the bytes of the packed weights of every matrix. Only language models read those of the head.
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

/// Returns the elements of the weights whose rows DoRA measures at the start.
int64_t elements_of_norms(const ModelSetup& model) {
  int64_t elements = 0;
  if (!model.lora->use_dora) return elements;
  for (const auto& layer : adapter_map(*model.lora, model.config.num_layers)) {
    for (const LinearSite site : kLinearSites) {
      const auto [in, out] = features_of(model.config, site);
      if (layer[static_cast<size_t>(site)].present()) elements += in * out;
    }
  }
  return elements;
}

}  // namespace

WeightMemory weight_memory(const MemorySetup& setup) {
  const GptNeoConfig& config = setup.model.config;
  const int64_t h = config.hidden_size;
  const int64_t element = element_bytes(setup.frozen_dtype);
  WeightMemory memory;
  memory.mapped_bytes = element * config.body_parameters();
  if (setup.model.device.cuda) {
    const MemoryLedger ledger;
    const auto weights = weights_of(setup);
    memory.private_bytes = ledger.live_bytes();
    return memory;
  }
  if (!setup.model.lora) return memory;  // read only once, as the start of the trained parameters
  const bool reads_head = setup.model.head == Head::kCausalLm && !trains_whole(*setup.model.lora, "lm_head");
  const bool reads_plain = !setup.packed_weights || setup.model.compute_dtype == Dtype::kFloat32;
  const int64_t embeddings = (config.vocab_size + config.max_position_embeddings) * h;
  memory.read_bytes = reads_plain ? memory.mapped_bytes : element * (embeddings + elements_of_norms(setup.model));
  if (setup.packed_weights) {
    memory.mapped_bytes += packed_bytes(setup, /*with_head=*/true);
    memory.read_bytes += packed_bytes(setup, reads_head);
  }
  if (setup.frozen_dtype != Dtype::kFloat32) {
    memory.private_bytes = kFp32Bytes * (config.num_layers * (6 * h + config.intermediate_size) + 2 * h);
  }
  return memory;
}

}  // namespace neoloom::model
