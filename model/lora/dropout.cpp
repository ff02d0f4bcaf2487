// SPDX-License-Identifier: Apache-2.0
#include "model/lora/dropout.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "runtime/core/error.h"
#include "runtime/core/rng.h"

namespace neoloom::model {

namespace {

constexpr int64_t kWordsPerDraw = 4;
constexpr int64_t kSitesPerLayer = 8;
constexpr int64_t kRowsPerTask = 8;

/// Draws the random words of rows, as a function of the key, the place and each row's own key.
class WordStream {
 public:
  WordStream(uint64_t seed, int64_t epoch, int64_t layer, int64_t site)
      : place_(static_cast<uint32_t>(layer * kSitesPerLayer + site)) {
    const uint64_t key = core::mix64(core::mix64(seed) ^ static_cast<uint64_t>(epoch));
    key_ = {static_cast<uint32_t>(key), static_cast<uint32_t>(key >> 32)};
  }

  /// Calls take(channel, word) for each channel of a row.
  template <typename Take>
  void for_row(RowKey row, int64_t channels, const Take& take) const {
    const auto sample = static_cast<uint64_t>(row.sample);
    // The counter holds 32 bits of the sample. The upper bits change the key.
    const std::array<uint32_t, 2> key = {key_[0] ^ static_cast<uint32_t>(sample >> 32), key_[1]};
    for (int64_t channel = 0; channel < channels; channel += kWordsPerDraw) {
      const auto words = core::philox4x32({static_cast<uint32_t>(channel / kWordsPerDraw),
                                           static_cast<uint32_t>(row.token), static_cast<uint32_t>(sample), place_},
                                          key);
      const int64_t end = std::min(channel + kWordsPerDraw, channels);
      for (int64_t i = channel; i < end; ++i) take(i, words[static_cast<size_t>(i - channel)]);
    }
  }

 private:
  std::array<uint32_t, 2> key_{};
  uint32_t place_ = 0;
};

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
  const WordStream words(seed, epoch, layer, site);
  const auto threshold = static_cast<uint32_t>(std::llround(probability * 0x1.0p32));  // words below it are dropped
  const auto scale = static_cast<float>(1.0 / (1.0 - probability));
  const int64_t channels = in.size(1);
  at::parallel_for(0, in.size(0), kRowsPerTask, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const float* const source = in.const_data_ptr<float>() + row * channels;
      float* const target = out.mutable_data_ptr<float>() + row * channels;
      words.for_row(keys[static_cast<size_t>(row)], channels,
                    [&](int64_t i, uint32_t word) { target[i] = word >= threshold ? source[i] * scale : 0.0F; });
    }
  });
  return out.to(x.device());
}

void EmbeddingNoise::add_to(at::Tensor& x, const at::Tensor& reach, const std::vector<RowKey>& keys) const {
  require_keys(x, keys);
  const WordStream words(seed, epoch, layer, kNoiseSite);
  float* const values = x.mutable_data_ptr<float>();
  const float* const reaches = reach.const_data_ptr<float>();
  const int64_t channels = x.size(1);
  at::parallel_for(0, x.size(0), kRowsPerTask, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const float unit = reaches[row] * 0x1.0p-31F;
      words.for_row(keys[static_cast<size_t>(row)], channels, [&](int64_t i, uint32_t word) {
        values[row * channels + i] += static_cast<float>(static_cast<int32_t>(word)) * unit;
      });
    }
  });
}

}  // namespace neoloom::model
