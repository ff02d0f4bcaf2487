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

/// Holds the parts of the key that do not depend on row or channel.
struct MaskStream {
  std::array<uint32_t, 2> key{};
  uint32_t place = 0;      // layer and site
  uint32_t threshold = 0;  // words below it are dropped
  float scale = 1.0F;
};

MaskStream stream_of(const DropoutMask& mask) {
  const uint64_t key = core::mix64(core::mix64(mask.seed) ^ static_cast<uint64_t>(mask.epoch));
  MaskStream stream;
  stream.key = {static_cast<uint32_t>(key), static_cast<uint32_t>(key >> 32)};
  stream.place = static_cast<uint32_t>(mask.layer * kSitesPerLayer + mask.site);
  stream.threshold = static_cast<uint32_t>(std::llround(mask.probability * 0x1.0p32));
  stream.scale = static_cast<float>(1.0 / (1.0 - mask.probability));
  return stream;
}

void mask_row(const MaskStream& stream, RowKey row, const float* in, float* out, int64_t channels) {
  const auto sample = static_cast<uint64_t>(row.sample);
  // The counter holds 32 bits of the sample. The upper bits change the key.
  const std::array<uint32_t, 2> key = {stream.key[0] ^ static_cast<uint32_t>(sample >> 32), stream.key[1]};
  for (int64_t channel = 0; channel < channels; channel += kWordsPerDraw) {
    const auto words = core::philox4x32({static_cast<uint32_t>(channel / kWordsPerDraw),
                                         static_cast<uint32_t>(row.token), static_cast<uint32_t>(sample), stream.place},
                                        key);
    const int64_t end = std::min(channel + kWordsPerDraw, channels);
    for (int64_t i = channel; i < end; ++i) {
      out[i] = words[static_cast<size_t>(i - channel)] >= stream.threshold ? in[i] * stream.scale : 0.0F;
    }
  }
}

}  // namespace

at::Tensor DropoutMask::apply(const at::Tensor& x, const std::vector<RowKey>& keys) const {
  core::require(x.size(0) == static_cast<int64_t>(keys.size()), core::ErrorKind::kInternal,
                "dropout: {} rows with {} keys", x.size(0), keys.size());
  // Draws the masks on the host for every device, so that all devices have the same.
  const at::Tensor in = x.cpu().contiguous();
  at::Tensor out = at::empty(in.sizes(), in.options());
  const MaskStream stream = stream_of(*this);
  const float* const source = in.const_data_ptr<float>();
  float* const target = out.mutable_data_ptr<float>();
  const int64_t channels = in.size(1);
  at::parallel_for(0, in.size(0), kRowsPerTask, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      mask_row(stream, keys[static_cast<size_t>(row)], source + row * channels, target + row * channels, channels);
    }
  });
  return out.to(x.device());
}

}  // namespace neoloom::model
