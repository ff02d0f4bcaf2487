// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>

#include "model/batch/rows.h"
#include "runtime/core/rng.h"

namespace neoloom::model {

/// Random words of token rows, a pure function of (seed, epoch), the place in the network, the row's sample and token,
/// and the channel.
class RandomWords {
 public:
  RandomWords(uint64_t seed, int64_t epoch, uint32_t place) : place_(place) {
    const uint64_t key = core::mix64(core::mix64(seed) ^ static_cast<uint64_t>(epoch));
    key_ = {static_cast<uint32_t>(key), static_cast<uint32_t>(key >> 32)};
  }

  /// Calls take(channel, word) for each channel of [begin, end).
  template <typename Take>
  void for_row(RowKey row, int64_t begin, int64_t end, const Take& take) const {
    const auto sample = static_cast<uint64_t>(row.sample);
    // The counter holds 32 bits of the sample. The upper bits change the key.
    const std::array<uint32_t, 2> key = {key_[0] ^ static_cast<uint32_t>(sample >> 32), key_[1]};
    for (int64_t first = begin - begin % kPerDraw; first < end; first += kPerDraw) {
      const auto words = core::philox4x32({static_cast<uint32_t>(first / kPerDraw), static_cast<uint32_t>(row.token),
                                           static_cast<uint32_t>(sample), place_},
                                          key);
      const int64_t last = std::min(first + kPerDraw, end);
      for (int64_t i = std::max(first, begin); i < last; ++i) take(i, words[static_cast<size_t>(i - first)]);
    }
  }

 private:
  static constexpr int64_t kPerDraw = 4;

  std::array<uint32_t, 2> key_{};
  uint32_t place_ = 0;
};

/// Turns a random word into dropout's factor: 0 with `probability`, else 1 / (1 - probability).
class DropoutFactor {
 public:
  explicit DropoutFactor(double probability)
      : threshold_(static_cast<uint32_t>(std::llround(probability * 0x1.0p32))),
        scale_(static_cast<float>(1.0 / (1.0 - probability))) {}

  float operator()(uint32_t word) const { return word >= threshold_ ? scale_ : 0.0F; }

 private:
  uint32_t threshold_;  // words below it are dropped
  float scale_;
};

}  // namespace neoloom::model
