// SPDX-License-Identifier: Apache-2.0
#include "model/gpt_neo/decoder.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <utility>

#include "runtime/core/error.h"

namespace neoloom::model {

namespace {

/// Runs a block's forward for the next tokens of one sequence, on any device. x [n, h] begins at `position`. Keys and
/// values of these tokens join the cache. There is no dropout while decoding.
at::Tensor decode_block(const Block& block, Matmul& matmul, const at::Tensor& x, KeyValueCache& cache,
                        int64_t position) {
  using enum LinearSite;
  const std::vector<RowKey> no_keys;
  const at::Tensor normed = block.ln_1.forward(x, nullptr);
  const int64_t count = x.size(0);
  const int64_t seen = position + count;
  cache.k.narrow(0, position, count).copy_(block[kKProj].forward(matmul, normed, no_keys));
  cache.v.narrow(0, position, count).copy_(block[kVProj].forward(matmul, normed, no_keys));
  const at::Tensor q = block[kQProj].forward(matmul, normed, no_keys);
  const at::Tensor attended =
      block.attention.forward(q, cache.k.narrow(0, 0, seen), cache.v.narrow(0, 0, seen), {{0, count, 0, seen}});
  const at::Tensor middle = block[kOutProj].forward(matmul, attended, no_keys, nullptr, x);
  const at::Tensor activated =
      block[kCFc].forward_activated(matmul, block.ln_2.forward(middle, nullptr), no_keys, GeluKeeps::kInput).values;
  return block[kCProj].forward(matmul, activated, no_keys, nullptr, middle);
}

}  // namespace

GptNeoDecoder::GptNeoDecoder(const ModelSetup& setup, Network network, int64_t max_tokens)
    : config_(setup.config),
      network_(std::move(network)),
      matmul_(setup.compute_dtype),
      max_tokens_(std::min(max_tokens, setup.config.max_position_embeddings)) {
  const auto options = network_.wte.options().dtype(at::kFloat);
  for (size_t layer = 0; layer < network_.blocks.size(); ++layer) {
    caches_.push_back({at::empty({max_tokens_, config_.hidden_size}, options),
                       at::empty({max_tokens_, config_.hidden_size}, options)});
  }
}

at::Tensor GptNeoDecoder::feed(const std::vector<int64_t>& ids) {
  const auto count = static_cast<int64_t>(ids.size());
  core::require(count > 0, core::ErrorKind::kInternal, "decoder: no token to feed");
  core::require(position_ + count <= max_tokens_, core::ErrorKind::kData,
                "decoder: {} tokens after {} exceed the limit of {}", count, position_, max_tokens_);
  at::Tensor host = at::empty({count}, at::TensorOptions().dtype(at::kLong));
  for (int64_t i = 0; i < count; ++i) {
    const int64_t id = ids[static_cast<size_t>(i)];
    core::require(id >= 0 && id < config_.vocab_size, core::ErrorKind::kData,
                  "decoder: id {} is outside the vocabulary of {} entries", id, config_.vocab_size);
    host.mutable_data_ptr<int64_t>()[i] = id;
  }
  const at::Device device = network_.wte.device();
  const at::Tensor positions = at::arange(position_, position_ + count, host.options()).to(device);
  at::Tensor x = network_.embed(host.to(device), positions);
  for (size_t layer = 0; layer < network_.blocks.size(); ++layer) {
    x = decode_block(network_.blocks[layer], matmul_, x, caches_[layer], position_);
  }
  position_ += count;
  const at::Tensor last = network_.ln_f.forward(x.narrow(0, count - 1, 1), nullptr);
  return matmul_.forward(last, network_.head, {}).squeeze(0).cpu();
}

}  // namespace neoloom::model
