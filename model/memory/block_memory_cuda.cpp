// SPDX-License-Identifier: Apache-2.0
// block.cpp over cuda_backend.cpp, tensor by tensor.
#include <algorithm>

#include "model/cpu/attention.h"
#include "model/cuda/attention_choice.h"
#include "model/memory/block_memory.h"

namespace neoloom::model {

namespace {

using Allocation = MemoryLedger::Allocation;

}  // namespace

bool BlockMemory::flash_attention() const {
  const ModelSetup& model = setup_.model;
  return choose_attention(model.device, model.compute_dtype, model.config.head_dim(), 0) != AttentionKernel::kMath;
}

/// Of an element of c_fc's output, and of GELU's.
int64_t BlockMemory::cuda_activation_bytes(const TrainedLinears& trained) const {
  return lowp() && !trained.trains(LinearSite::kCFc) ? kLowpBytes : kFp32Bytes;
}

/// Beside what it keeps (saved_adapter_bytes): x with its mask. Shapes: x [rows, in].
void BlockMemory::note_cuda_adapter(int64_t rows, int64_t in) {
  if (drops() && draws_masks_) ledger_.note_transient(product_element() * rows * in);
}

void BlockMemory::note_cuda_adapter_backward(int64_t rows, int64_t in) {
  const int64_t masked = drops() ? 2 * kFp32Bytes * rows * in : 0;
  ledger_.note_transient(product_element() * rank() * rows + masked);
}

/// Shapes: x [rows, in] -> [rows, out] fp32.
Allocation BlockMemory::cuda_linear(const TrainedLinears& trained, LinearSite site, int64_t rows, bool input_is_lowp) {
  const auto [in, out] = features(site);
  Allocation y = ledger_.hold(kFp32Bytes * rows * out);
  const Allocation lowp_x = ledger_.hold(input_is_lowp ? 0 : input_bytes(rows, in));
  note_matmul(rows, in, out, {.input_is_lowp = true});
  if (trained.adapter(site)) note_cuda_adapter(rows, in);
  return y;
}

/// `fp32`: the gradient of x is fp32.
Allocation BlockMemory::cuda_linear_backward(const TrainedLinears& trained, LinearSite site, int64_t rows, bool fp32,
                                             bool dy_is_lowp) {
  const auto [in, out] = features(site);
  const Allocation lowp_dy = ledger_.hold(dy_is_lowp ? 0 : input_bytes(rows, out));
  const bool wide_x =
      site == LinearSite::kCFc || (site == LinearSite::kCProj && cuda_activation_bytes(trained) == kFp32Bytes);
  const Allocation lowp_x = ledger_.hold(trained.trains(site) && wide_x ? input_bytes(rows, in) : 0);
  Allocation dx = ledger_.hold((fp32 ? kFp32Bytes : kLowpBytes) * rows * in);
  note_matmul(rows, out, in, {.backward = true, .input_is_lowp = true});
  if (trained.adapter(site)) note_cuda_adapter_backward(rows, in);
  return dx;
}

void BlockMemory::note_cuda_attention(BlockRows rows, bool backward) {
  if (flash_attention()) {
    if (backward) ledger_.note_transient(kFp32Bytes * rows.queries * hidden());  // the gradient of q is summed in fp32
    return;
  }
  const int64_t queries = std::min(kAttentionQueries, shape_.longest);
  ledger_.note_transient((backward ? 4 : 3) * kFp32Bytes * setup_.model.config.num_heads * queries * shape_.longest);
}

void BlockMemory::cuda_recompute(const TrainedLinears& trained, BlockRows rows, SavedBlock& saved, bool again) {
  draws_masks_ = !again;
  const int64_t h = hidden();
  const int64_t element = cuda_attention_bytes();
  saved.statistics = ledger_.hold(2 * kFp32Bytes * (rows.all + rows.queries));
  {
    if (lowp()) ledger_.note_transient((kFp32Bytes + kLowpBytes) * rows.all * h);
    Allocation normed = ledger_.hold(product_element() * rows.all * h);
    if (trained.inputs_train()) note_cuda_adapter(rows.all, h);
    note_matmul(rows.all, h, h, {.input_is_lowp = true});
    if (lowp() && element == kFp32Bytes) ledger_.note_transient(kLowpBytes * rows.all * h);  // before it becomes fp32
    saved.k = ledger_.hold(2 * element * rows.all * h);                                      // and v
    if (!rows.all_queries()) ledger_.note_transient(product_element() * rows.queries * h);
    saved.q = ledger_.hold(element * rows.queries * h);
    if (trained.inputs_train()) saved.normed = std::move(normed);
  }
  saved.attended = ledger_.hold(element * rows.queries * h);
  note_cuda_attention(rows, /*backward=*/false);
  if (flash_attention()) saved.attention = ledger_.hold(kFp32Bytes * setup_.model.config.num_heads * rows.queries);
  saved.middle = cuda_linear(trained, LinearSite::kOutProj, rows.queries, element == kLowpBytes);
  const Allocation normed = ledger_.hold(kFp32Bytes * rows.queries * h);
  if (cuda_activation_bytes(trained) == kLowpBytes) {
    saved.activation = ledger_.hold(kLowpBytes * rows.queries * inner());
    ledger_.note_transient(input_bytes(rows.queries, h));
  } else {
    saved.activation = cuda_linear(trained, LinearSite::kCFc, rows.queries, /*input_is_lowp=*/false);
  }
}

/// Returns the gradient of ln_2's input.
Allocation BlockMemory::cuda_mlp_backward(const TrainedLinears& trained, int64_t rows) {
  const int64_t h = hidden();
  const int64_t element = cuda_activation_bytes(trained);
  Allocation d_activated;
  const Allocation activated = ledger_.hold(trained.trains(LinearSite::kCProj) ? element * rows * inner() : 0);
  d_activated = cuda_linear_backward(trained, LinearSite::kCProj, rows,
                                     /*fp32=*/!lowp() || trained.adapter(LinearSite::kCProj), false);
  const Allocation d_pre = ledger_.hold(element * rows * inner());
  const Allocation normed = ledger_.hold(trained.trains(LinearSite::kCFc) ? kFp32Bytes * rows * h : 0);
  const Allocation d_normed =
      cuda_linear_backward(trained, LinearSite::kCFc, rows, /*fp32=*/true, /*dy_is_lowp=*/element == kLowpBytes);
  return ledger_.hold(kFp32Bytes * rows * h);
}

Allocation BlockMemory::cuda_attention_backward(const TrainedLinears& trained, BlockRows rows) {
  const int64_t h = hidden();
  const int64_t element = cuda_attention_bytes();
  const bool fp32 = !lowp() || trained.adapter(LinearSite::kOutProj);
  const Allocation d_attended = cuda_linear_backward(trained, LinearSite::kOutProj, rows.queries, fp32, false);
  const Allocation grad = ledger_.hold(fp32 && element == kLowpBytes ? element * rows.queries * h : 0);
  const Allocation gradients = ledger_.hold(element * h * (rows.queries + 2 * rows.all));
  note_cuda_attention(rows, /*backward=*/true);
  return cuda_inputs_backward(trained, rows);
}

/// From the gradients of q, k and v to that of the block's input.
Allocation BlockMemory::cuda_inputs_backward(const TrainedLinears& trained, BlockRows rows) {
  const int64_t h = hidden();
  const int64_t element = cuda_attention_bytes();
  Allocation d_normed;
  {
    const int64_t width = rows.all_queries() ? 3 * h : 2 * h;
    const Allocation together = ledger_.hold(element * rows.all * width);
    d_normed = ledger_.hold(kFp32Bytes * rows.all * h);
    note_matmul(rows.all, width, h, {.backward = true, .input_is_lowp = element == kLowpBytes});
  }
  if (trained.adapter(LinearSite::kKProj) || trained.adapter(LinearSite::kVProj) ||
      (trained.adapter(LinearSite::kQProj) && rows.all_queries())) {
    const Allocation lowp_dy = ledger_.hold(lowp() && element == kFp32Bytes ? kLowpBytes * rows.all * h : 0);
    note_cuda_adapter_backward(rows.all, h);
  }
  return ledger_.hold(kFp32Bytes * rows.all * h);
}

}  // namespace neoloom::model
