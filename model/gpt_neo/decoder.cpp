// SPDX-License-Identifier: Apache-2.0
#include "model/gpt_neo/decoder.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/tensor.h>

#include <algorithm>
#include <utility>

#include "runtime/core/error.h"

namespace neoloom::model {

GptNeoDecoder::GptNeoDecoder(const ModelSetup& setup, Network network, int64_t max_tokens, int64_t sequences)
    : config_(setup.config),
      network_(std::move(network)),
      matmul_(setup.compute_dtype),
      max_tokens_(std::min(max_tokens, setup.config.max_position_embeddings)),
      positions_(static_cast<size_t>(sequences)) {
  const auto options = network_.wte.options().dtype(at::kFloat);
  for (const Block& block : network_.blocks) {
    std::vector<KeyValueCache>& caches = caches_.emplace_back();
    for (int64_t i = 0; i < sequences; ++i) {
      caches.emplace_back(max_tokens_, block.attention.window(), config_.hidden_size, options);
    }
  }
}

void GptNeoDecoder::restart(int64_t sequence) {
  positions_.at(static_cast<size_t>(sequence)) = 0;
  for (std::vector<KeyValueCache>& caches : caches_) caches.at(static_cast<size_t>(sequence)).clear();
}

void GptNeoDecoder::check(const std::vector<NextTokens>& next) const {
  for (const auto& [sequence, ids] : next) {
    const auto count = static_cast<int64_t>(ids.size());
    core::require(count > 0, core::ErrorKind::kInternal, "decoder: no token to feed");
    core::require(position(sequence) + count <= max_tokens_, core::ErrorKind::kData,
                  "decoder: {} tokens after {} exceed the limit of {}", count, position(sequence), max_tokens_);
    for (const int64_t id : ids) {
      core::require(id >= 0 && id < config_.vocab_size, core::ErrorKind::kData,
                    "decoder: id {} is outside the vocabulary of {} entries", id, config_.vocab_size);
    }
  }
}

/// Returns the input of the first block, [tokens of all sequences, h].
at::Tensor GptNeoDecoder::embed(const std::vector<NextTokens>& next) const {
  std::vector<int64_t> all_ids, all_positions;
  for (const auto& [sequence, ids] : next) {
    all_ids.insert(all_ids.end(), ids.begin(), ids.end());
    for (size_t i = 0; i < ids.size(); ++i) all_positions.push_back(position(sequence) + static_cast<int64_t>(i));
  }
  const at::Device device = network_.wte.device();
  const auto on_device = [&](const std::vector<int64_t>& values) { return at::tensor(values, at::kLong).to(device); };
  return network_.embed(on_device(all_ids), on_device(all_positions));
}

/// Shapes: q, k, v and the result [tokens of all sequences, h].
at::Tensor GptNeoDecoder::attend(size_t layer, const std::vector<NextTokens>& next, const at::Tensor& q,
                                 const at::Tensor& k, const at::Tensor& v) {
  std::vector<at::Tensor> attended;
  int64_t row = 0;
  for (const auto& [sequence, ids] : next) {
    const auto count = static_cast<int64_t>(ids.size());
    KeyValueCache& cache = caches_[layer][static_cast<size_t>(sequence)];
    const KeyValueCache::Visible visible = cache.append(k.narrow(0, row, count), v.narrow(0, row, count));
    attended.push_back(network_.blocks[layer].attention.forward(q.narrow(0, row, count), visible.k, visible.v,
                                                                {{0, count, 0, visible.k.size(0)}}));
    row += count;
  }
  return attended.size() == 1 ? attended.front() : at::cat(attended);
}

/// Runs a block's forward, on any device. There is no dropout while decoding. Shapes: x and the result [tokens of all
/// sequences, h].
at::Tensor GptNeoDecoder::decode_block(size_t layer, const std::vector<NextTokens>& next, const at::Tensor& x) {
  using enum LinearSite;
  const Block& block = network_.blocks[layer];
  const std::vector<RowKey> no_keys;
  const at::Tensor normed = block.ln_1.forward(x, nullptr);
  const at::Tensor q = block[kQProj].forward(matmul_, normed, no_keys);
  const at::Tensor k = block[kKProj].forward(matmul_, normed, no_keys);
  const at::Tensor v = block[kVProj].forward(matmul_, normed, no_keys);
  const at::Tensor attended = attend(layer, next, q, k, v);
  const at::Tensor middle = block[kOutProj].forward(matmul_, attended, no_keys, nullptr, x);
  const at::Tensor activated =
      block[kCFc].forward_activated(matmul_, block.ln_2.forward(middle, nullptr), no_keys, GeluKeeps::kInput).values;
  return block[kCProj].forward(matmul_, activated, no_keys, nullptr, middle);
}

at::Tensor GptNeoDecoder::feed(const std::vector<NextTokens>& next) {
  check(next);
  at::Tensor x = embed(next);
  for (size_t layer = 0; layer < network_.blocks.size(); ++layer) x = decode_block(layer, next, x);
  std::vector<int64_t> last_rows;
  int64_t rows = 0;
  for (const auto& [sequence, ids] : next) {
    positions_[static_cast<size_t>(sequence)] += static_cast<int64_t>(ids.size());
    rows += static_cast<int64_t>(ids.size());
    last_rows.push_back(rows - 1);
  }
  x = x.index_select(0, at::tensor(last_rows, at::kLong).to(x.device()));
  const at::Tensor normed = network_.ln_f.forward(x, nullptr);
  at::Tensor logits = matmul_.forward(normed, network_.head, {});
  if (network_.tokens.in_head) network_.tokens.replace_logits(logits, normed);
  return logits.cpu();
}

}  // namespace neoloom::model
