// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <utility>

#include "model/lora/target_modules.h"
#include "model/memory/memory_ledger.h"
#include "model/memory/memory_plan.h"

namespace neoloom::model {

inline constexpr int64_t kFp32Bytes = 4;  // bytes of fp32
inline constexpr int64_t kLowpBytes = 2;  // of a 16-bit type

/// The rows of RowSelection.
struct BlockRows {
  int64_t all = 0;
  int64_t queries = 0;
  bool all_queries() const { return all == queries; }
};

/// What trains in one block.
struct TrainedLinears {
  std::array<bool, 6> adapters{};  // in the order of LinearSite
  bool everything = false;

  bool adapter(LinearSite site) const { return adapters[static_cast<size_t>(site)]; }
  bool trains(LinearSite site) const { return everything || adapter(site); }
  bool inputs_train() const {
    return trains(LinearSite::kQProj) || trains(LinearSite::kKProj) || trains(LinearSite::kVProj);
  }
  bool attention_trains() const { return inputs_train() || trains(LinearSite::kOutProj); }
  bool mlp_trains() const { return trains(LinearSite::kCFc) || trains(LinearSite::kCProj); }
  bool any() const { return attention_trains() || mlp_trains(); }
};

/// Stands for BlockSaved (block.h), member by member.
struct SavedBlock {
  MemoryLedger::Allocation x, statistics, normed, q, k, v, attended, middle, activation, attention, adapters;

  /// BlockSaved::inputs.
  void drop_all_but_inputs();
};

/// A block's forward and backward (block.cpp, cpu_backend.cpp, cuda_backend.cpp and what they call) in the tensors they
/// make.
class BlockMemory {
 public:
  /// `shape`: as kernels see it. All must outlive this object.
  BlockMemory(const MemorySetup& setup, const BatchShape& shape, MemoryLedger& ledger);

  /// Returns the output; `saved` gets everything but x.
  MemoryLedger::Allocation forward(const TrainedLinears& trained, BlockRows rows, SavedBlock& saved);
  /// Block::recompute, for a block whose inputs are saved.
  void recompute(const TrainedLinears& trained, BlockRows rows, SavedBlock& saved);
  /// From the gradient of the output to that of x.
  MemoryLedger::Allocation backward(const TrainedLinears& trained, BlockRows rows, MemoryLedger::Allocation dy);

  /// What a product with a matrix of the model makes beside its result. Shapes: [rows, in] times [in, out].
  struct Product {
    bool backward = false;
    bool input_is_lowp = false;  // it has the type of products already
  };
  void note_matmul(int64_t rows, int64_t in, int64_t out, Product product);

 private:
  using Allocation = MemoryLedger::Allocation;

  bool on_cuda() const { return setup_.model.device.cuda; }
  bool lowp() const { return setup_.model.compute_dtype != Dtype::kFloat32; }
  bool drops() const { return setup_.model.lora && setup_.model.lora->lora_dropout > 0.0; }
  int64_t hidden() const { return setup_.model.config.hidden_size; }
  int64_t inner() const { return setup_.model.config.intermediate_size; }
  int64_t rank() const { return setup_.model.lora ? setup_.model.lora->r : 0; }
  std::pair<int64_t, int64_t> features(LinearSite site) const { return features_of(setup_.model.config, site); }
  bool converts_weights() const;
  bool multiplies_plain_16bit() const;
  int64_t input_bytes(int64_t rows, int64_t width) const;
  int64_t saved_adapter_bytes(const TrainedLinears& trained, BlockRows rows) const;
  void keep_scratch(int64_t bytes);

  // CPUs: "lowp" is the type that products with packed weights read.
  bool lowp_tiles() const;  // what attention in tiles reads
  int64_t cpu_element_bytes() const { return lowp() && setup_.packed_weights ? kLowpBytes : kFp32Bytes; }
  Allocation cpu_recompute(const TrainedLinears& trained, BlockRows rows, SavedBlock& saved);
  Allocation cpu_linear(const TrainedLinears& trained, LinearSite site, int64_t rows, int64_t element);
  Allocation cpu_linear_backward(const TrainedLinears& trained, LinearSite site, int64_t rows, int64_t element);
  Allocation cpu_adapter_backward(const TrainedLinears& trained, LinearSite site, int64_t rows);
  Allocation cpu_lowp(int64_t rows);
  void cpu_mlp_backward(const TrainedLinears& trained, int64_t rows);
  Allocation cpu_backward(const TrainedLinears& trained, BlockRows rows, Allocation dy);
  Allocation cpu_inputs_backward(const TrainedLinears& trained, BlockRows rows);
  void note_cpu_attention(BlockRows rows, bool backward);
  int64_t tile_scratch_bytes(bool backward) const;

  // GPUs: "lowp" is the compute dtype.
  bool flash_attention() const;
  int64_t product_element() const { return lowp() ? kLowpBytes : kFp32Bytes; }
  int64_t cuda_attention_bytes() const { return flash_attention() ? kLowpBytes : kFp32Bytes; }
  int64_t cuda_activation_bytes(const TrainedLinears& trained) const;
  void cuda_recompute(const TrainedLinears& trained, BlockRows rows, SavedBlock& saved, bool again);
  Allocation cuda_linear(const TrainedLinears& trained, LinearSite site, int64_t rows, bool input_is_lowp);
  void note_cuda_adapter(int64_t rows, int64_t in);
  void note_cuda_adapter_backward(int64_t rows, int64_t in);
  Allocation cuda_linear_backward(const TrainedLinears& trained, LinearSite site, int64_t rows, bool fp32,
                                  bool dy_is_lowp);
  void note_cuda_attention(BlockRows rows, bool backward);
  Allocation cuda_mlp_backward(const TrainedLinears& trained, int64_t rows);
  Allocation cuda_attention_backward(const TrainedLinears& trained, BlockRows rows);
  Allocation cuda_inputs_backward(const TrainedLinears& trained, BlockRows rows);

  const MemorySetup& setup_;
  const BatchShape& shape_;
  MemoryLedger& ledger_;
  Allocation scratch_;        // of converted weights: kept once made
  bool draws_masks_ = false;  // GPUs: not in recompute
};

}  // namespace neoloom::model
