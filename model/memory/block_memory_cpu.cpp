// SPDX-License-Identifier: Apache-2.0
// block.cpp over cpu_backend.cpp, tensor by tensor.
#include <algorithm>
#include <bit>

#include "model/cpu/attention.h"
#include "model/cpu/packed_weights.h"
#include "model/cpu/tiled_attention.h"
#include "model/memory/block_memory.h"

namespace neoloom::model {

namespace {

using Allocation = MemoryLedger::Allocation;

int64_t round_up(int64_t value, int64_t step) { return (value + step - 1) / step * step; }

}  // namespace

/// Shapes: x [rows, in] -> [rows, out] of `element` bytes.
Allocation BlockMemory::cpu_linear(const TrainedLinears& trained, LinearSite site, int64_t rows, int64_t element) {
  const auto [in, out] = features(site);
  if (trained.adapter(site) && drops())
    ledger_.note_transient((cpu_element_bytes() == kLowpBytes ? 2 : 1) * kFp32Bytes * rows * in);
  Allocation y = ledger_.hold(element * rows * out);
  note_matmul(rows, in, out, {.input_is_lowp = true});
  return y;
}

/// Returns what joins the gradient of x.
Allocation BlockMemory::cpu_adapter_backward(const TrainedLinears& trained, LinearSite site, int64_t rows) {
  if (!trained.adapter(site)) return {};
  const auto [in, out] = features(site);
  Allocation d_down = ledger_.hold(kFp32Bytes * rank() * rows);
  ledger_.note_transient(kFp32Bytes * rank() * (rows + out));
  if (!drops()) return d_down;
  {
    const Allocation dropped = ledger_.hold(kFp32Bytes * rows * in);
    ledger_.note_transient(cpu_element_bytes() == kLowpBytes ? kFp32Bytes * rows * in : 0);
    ledger_.note_transient(kFp32Bytes * rank() * (rows + in));
  }
  ledger_.note_transient(2 * kFp32Bytes * rows * in);
  return ledger_.hold(kFp32Bytes * rows * in);
}

Allocation BlockMemory::cpu_linear_backward(const TrainedLinears& trained, LinearSite site, int64_t rows,
                                            int64_t element) {
  const auto [in, out] = features(site);
  const Allocation residual = cpu_adapter_backward(trained, site, rows);
  Allocation dx = ledger_.hold(element * rows * in);
  note_matmul(rows, out, in, {.backward = true, .input_is_lowp = true});
  return dx;
}

/// Returns c_proj's input.
Allocation BlockMemory::cpu_recompute(const TrainedLinears& trained, BlockRows rows, SavedBlock& saved) {
  const int64_t h = hidden();
  const int64_t element = cpu_element_bytes();
  saved.statistics = ledger_.hold(2 * kFp32Bytes * (rows.all + rows.queries));
  {
    const Allocation normed = ledger_.hold(element * rows.all * h);
    saved.k = cpu_linear(trained, LinearSite::kKProj, rows.all, element);
    saved.v = cpu_linear(trained, LinearSite::kVProj, rows.all, element);
    saved.q = cpu_linear(trained, LinearSite::kQProj, rows.queries, element);
  }
  saved.attended = ledger_.hold(element * rows.queries * h);
  note_cpu_attention(rows, /*backward=*/false);
  saved.middle = cpu_linear(trained, LinearSite::kOutProj, rows.queries, kFp32Bytes);
  const Allocation normed = ledger_.hold(element * rows.queries * h);
  const int64_t width = setup_.packed_weights ? round_up(inner(), kPackedColumns) : inner();
  Allocation activated = ledger_.hold(element * rows.queries * inner());
  if (trained.adapter(LinearSite::kCFc) && drops()) {
    ledger_.note_transient((element == kLowpBytes ? 2 : 1) * kFp32Bytes * rows.queries * h);
  }
  saved.activation = ledger_.hold(element * rows.queries * width);
  note_matmul(rows.queries, h, inner(), {.input_is_lowp = true});
  return activated;
}

bool BlockMemory::lowp_tiles() const { return cpu_compute_dtype(setup_.model.compute_dtype) != Dtype::kFloat32; }

/// CpuHeadAttention's memory, one for each thread: keys packed once for scores and once for sums, gradients of keys,
/// and rows of scores.
int64_t BlockMemory::tile_scratch_bytes(bool backward) const {
  const GptNeoConfig& config = setup_.model.config;
  const int64_t element = lowp_tiles() ? kLowpBytes : kFp32Bytes;
  const int64_t keys = round_up(shape_.longest, kAttentionTile) * config.head_dim();
  const auto widest = static_cast<uint64_t>(round_up(shape_.longest, kAttentionTile));
  const int64_t scores = kAttentionTile * static_cast<int64_t>(std::bit_ceil(widest));
  const int64_t narrowed = lowp_tiles() ? kLowpBytes * scores : 0;
  return backward ? keys * (3 * element + 2 * kFp32Bytes) + 2 * kFp32Bytes * scores + narrowed
                  : keys * 2 * element + kFp32Bytes * scores + narrowed;
}

/// Beside q, k, v, the result and its gradients.
void BlockMemory::note_cpu_attention(BlockRows rows, bool backward) {
  const bool tiled = attends_in_tiles(rows.all_queries() ? shape_.longest : 1, shape_.longest);
  const int64_t type = tiled && lowp_tiles() ? kLowpBytes : kFp32Bytes;
  int64_t bytes = 0;
  if (type != cpu_element_bytes()) {
    const int64_t forward = type * hidden() * (2 * rows.queries + 2 * rows.all);
    bytes += forward + (backward ? type * hidden() * (rows.queries + 2 * rows.all) : 0);
  }
  const int64_t queries = std::min(kAttentionQueries, shape_.longest);
  bytes += tiled ? setup_.threads * tile_scratch_bytes(backward)
                 : (backward ? 4 : 3) * kFp32Bytes * setup_.threads * queries * shape_.longest;
  ledger_.note_transient(bytes);
}

/// dy in the type of matmuls, while a product reads it.
Allocation BlockMemory::cpu_lowp(int64_t rows) {
  return ledger_.hold(cpu_element_bytes() == kLowpBytes ? kLowpBytes * rows * hidden() : 0);
}

/// From dy to the gradient of `middle`, in place.
void BlockMemory::cpu_mlp_backward(const TrainedLinears& trained, int64_t rows) {
  const int64_t h = hidden();
  const int64_t element = cpu_element_bytes();
  Allocation d_pre;
  {
    Allocation activated;
    if (trained.trains(LinearSite::kCProj)) {
      const Allocation in_tiles = ledger_.hold(setup_.packed_weights ? element * rows * inner() : 0);
      activated = ledger_.hold(element * rows * inner());
    }
    const Allocation lowp_dy = cpu_lowp(rows);
    d_pre = cpu_linear_backward(trained, LinearSite::kCProj, rows, element);
  }
  const Allocation normed = ledger_.hold(trained.trains(LinearSite::kCFc) ? element * rows * h : 0);
  const Allocation d_normed = cpu_linear_backward(trained, LinearSite::kCFc, rows, kFp32Bytes);
  if (trained.everything) ledger_.note_transient(kFp32Bytes * rows * h);
}

/// Returns the gradient of ln_1's output.
Allocation BlockMemory::cpu_inputs_backward(const TrainedLinears& trained, BlockRows rows) {
  const int64_t h = hidden();
  const Allocation normed = ledger_.hold(trained.inputs_train() ? cpu_element_bytes() * rows.all * h : 0);
  Allocation d_normed = cpu_linear_backward(trained, LinearSite::kKProj, rows.all, kFp32Bytes);
  for (const LinearSite site : {LinearSite::kVProj, LinearSite::kQProj}) {
    const int64_t count = site == LinearSite::kQProj ? rows.queries : rows.all;
    const Allocation residual = cpu_adapter_backward(trained, site, count);
    note_matmul(count, h, h, {.backward = true, .input_is_lowp = true});
  }
  return d_normed;
}

Allocation BlockMemory::cpu_backward(const TrainedLinears& trained, BlockRows rows, Allocation dy) {
  const int64_t h = hidden();
  const int64_t element = cpu_element_bytes();
  cpu_mlp_backward(trained, rows.queries);
  Allocation d_attended;
  {
    const Allocation lowp_dy = cpu_lowp(rows.queries);
    d_attended = cpu_linear_backward(trained, LinearSite::kOutProj, rows.queries, element);
  }
  Allocation d_normed;
  {
    const Allocation gradients = ledger_.hold(element * h * (rows.queries + 2 * rows.all));
    note_cpu_attention(rows, /*backward=*/true);
    d_normed = cpu_inputs_backward(trained, rows);
  }
  if (!rows.all_queries()) dy = ledger_.hold(kFp32Bytes * rows.all * h);
  if (trained.everything) ledger_.note_transient(kFp32Bytes * rows.all * h);
  return dy;
}

}  // namespace neoloom::model
