// SPDX-License-Identifier: Apache-2.0
#include "model/lora/dropout.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>

#include "model/cpu/random_words.h"
#include "runtime/core/error.h"

namespace neoloom::model {

namespace {

constexpr int64_t kSitesPerLayer = 8;
constexpr int64_t kRowsPerTask = 8;

RandomWords words_of(uint64_t seed, int64_t epoch, int64_t layer, int64_t site) {
  return {seed, epoch, static_cast<uint32_t>(layer * kSitesPerLayer + site)};
}

void require_keys(const at::Tensor& x, const std::vector<RowKey>& keys) {
  core::require(x.size(0) == static_cast<int64_t>(keys.size()), core::ErrorKind::kInternal,
                "dropout: {} rows with {} keys", x.size(0), keys.size());
}

}  // namespace

at::Tensor DropoutMask::apply(const at::Tensor& x, const std::vector<RowKey>& keys) const {
  require_keys(x, keys);
  // Draws the masks on the host for every device, so that all devices have the same.
  const at::Tensor in = x.cpu().contiguous();
  at::Tensor out = at::empty(in.sizes(), in.options());
  const RandomWords words = words_of(seed, epoch, layer, site);
  const DropoutFactor factor(probability);
  const int64_t channels = in.size(1);
  at::parallel_for(0, in.size(0), kRowsPerTask, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const float* const source = in.const_data_ptr<float>() + row * channels;
      float* const target = out.mutable_data_ptr<float>() + row * channels;
      words.for_row(keys[static_cast<size_t>(row)], 0, channels, [&](int64_t i, uint32_t word) {
        const float kept = factor(word);
        target[i] = kept > 0.0F ? source[i] * kept : 0.0F;
      });
    }
  });
  return out.to(x.device());
}

void EmbeddingNoise::add_to(at::Tensor& x, const at::Tensor& reach, const std::vector<RowKey>& keys) const {
  require_keys(x, keys);
  const RandomWords words = words_of(seed, epoch, layer, kNoiseSite);
  float* const values = x.mutable_data_ptr<float>();
  const float* const reaches = reach.const_data_ptr<float>();
  const int64_t channels = x.size(1);
  at::parallel_for(0, x.size(0), kRowsPerTask, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const float unit = reaches[row] * 0x1.0p-31F;
      words.for_row(keys[static_cast<size_t>(row)], 0, channels, [&](int64_t i, uint32_t word) {
        values[row * channels + i] += static_cast<float>(static_cast<int32_t>(word)) * unit;
      });
    }
  });
}

}  // namespace neoloom::model
