// SPDX-License-Identifier: Apache-2.0
#include "model/memory/block_memory.h"

#include <algorithm>

#include "model/cpu/gemm_microkernel.h"
#include "model/cpu/matmul.h"
#include "model/cpu/packed_gemm.h"
#include "model/cpu/packed_weights.h"

namespace neoloom::model {

namespace {
constexpr int64_t kMaskByte = 1;
}

void SavedBlock::drop_all_but_inputs() {
  for (MemoryLedger::Allocation* member :
       {&statistics, &normed, &q, &k, &v, &attended, &middle, &activation, &attention})
    *member = {};
}

BlockMemory::BlockMemory(const MemorySetup& setup, const BatchShape& shape, MemoryLedger& ledger)
    : setup_(setup), shape_(shape), ledger_(ledger) {}

/// Full-parameter training multiplies the fp32 parameters, an adapter's run what the weights are stored in.
bool BlockMemory::converts_weights() const {
  if (!setup_.model.lora) return lowp();
  return !on_cuda() && setup_.frozen_dtype != setup_.model.compute_dtype;
}

bool BlockMemory::multiplies_plain_16bit() const {
  return !on_cuda() && !setup_.packed_weights && cpu_compute_dtype(setup_.model.compute_dtype) != Dtype::kFloat32;
}

/// x [rows, width] fp32 as an input of products, where that is another tensor.
int64_t BlockMemory::input_bytes(int64_t rows, int64_t width) const {
  if (!lowp() || !(on_cuda() || setup_.packed_weights)) return 0;
  return kLowpBytes * rows * (on_cuda() ? width : width + width % 2);
}

void BlockMemory::note_matmul(int64_t rows, int64_t in, int64_t out, Product product) {
  int64_t bytes = product.input_is_lowp ? 0 : input_bytes(rows, in);
  if (multiplies_plain_16bit()) bytes += kLowpBytes * rows * (in + out);
  if (converts_weights() && (on_cuda() || multiplies_plain_16bit())) bytes += kLowpBytes * in * out;
  const bool stored_lowp = setup_.model.lora && setup_.frozen_dtype != Dtype::kFloat32;
  if (!on_cuda() && setup_.packed_weights) {
    const bool always = microkernel(Dtype::kFloat32) == Microkernel::kAvx2;
    if (!lowp() && (always || stored_lowp || product.backward)) {
      bytes += setup_.threads * kFp32Bytes * kPackedCopyElements;
    }
  } else if (!on_cuda() && !multiplies_plain_16bit() && stored_lowp) {
    keep_scratch(kFp32Bytes * std::min(Matmul::kScratchElements, in * out));  // converted slices
  }
  ledger_.note_transient(bytes);
}

/// Matmul keep it once they have made it.
void BlockMemory::keep_scratch(int64_t bytes) {
  if (scratch_.bytes() < bytes) scratch_ = ledger_.hold(bytes);
}

/// AdapterSaved of all linears.
int64_t BlockMemory::saved_adapter_bytes(const TrainedLinears& trained, BlockRows rows) const {
  int64_t bytes = 0;
  for (const LinearSite site : kLinearSites) {
    if (!trained.adapter(site)) continue;
    const bool reads_all = site == LinearSite::kKProj || site == LinearSite::kVProj;
    const int64_t mask = drops() && on_cuda() ? kMaskByte * features(site).first : 0;
    bytes += (reads_all ? rows.all : rows.queries) * ((on_cuda() ? product_element() : kFp32Bytes) * rank() + mask);
  }
  return bytes;
}

MemoryLedger::Allocation BlockMemory::forward(const TrainedLinears& trained, BlockRows rows, SavedBlock& saved) {
  saved.adapters = ledger_.hold(saved_adapter_bytes(trained, rows));
  if (!on_cuda()) {
    const Allocation activated = cpu_recompute(trained, rows, saved);
    return cpu_linear(trained, LinearSite::kCProj, rows.queries, kFp32Bytes);
  }
  cuda_recompute(trained, rows, saved, /*again=*/false);
  const int64_t element = cuda_activation_bytes(trained);
  const Allocation activated = ledger_.hold(element * rows.queries * inner());
  return cuda_linear(trained, LinearSite::kCProj, rows.queries, element == kLowpBytes);
}

void BlockMemory::recompute(const TrainedLinears& trained, BlockRows rows, SavedBlock& saved) {
  if (on_cuda()) {
    cuda_recompute(trained, rows, saved, /*again=*/true);
  } else {
    cpu_recompute(trained, rows, saved);
  }
}

MemoryLedger::Allocation BlockMemory::backward(const TrainedLinears& trained, BlockRows rows, Allocation dy) {
  if (!on_cuda()) return cpu_backward(trained, rows, std::move(dy));
  cuda_mlp_backward(trained, rows.queries);  // its result is added to dy
  return cuda_attention_backward(trained, rows);
}

}  // namespace neoloom::model
