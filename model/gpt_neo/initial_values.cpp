// SPDX-License-Identifier: Apache-2.0
#include "model/gpt_neo/initial_values.h"

#include <ATen/ops/empty.h>

#include <array>
#include <cmath>
#include <numbers>
#include <utility>

#include "runtime/core/hash.h"
#include "runtime/core/rng.h"

namespace neoloom::model {

namespace {

/// Gives two independent uniform doubles in [0, 1) for each index.
class UniformPairs {
 public:
  UniformPairs(uint64_t seed, const std::string& name) {
    const uint64_t key = core::mix64(core::xxh3(name.data(), name.size(), seed));
    key_ = {static_cast<uint32_t>(key), static_cast<uint32_t>(key >> 32)};
  }
  std::pair<double, double> at(uint64_t index) const {
    const auto words = core::philox4x32({static_cast<uint32_t>(index), static_cast<uint32_t>(index >> 32), 0, 0}, key_);
    return {core::uniform01(words[0], words[1]), core::uniform01(words[2], words[3])};
  }

 private:
  std::array<uint32_t, 2> key_{};
};

/// Fills `out` on the host, whatever its device, so that all devices start with the same values.
template <typename PairOf>
void fill_pairs(at::Tensor& out, PairOf pair_of) {
  at::Tensor host = at::empty(out.sizes(), out.options().device(at::kCPU));
  float* const values = host.mutable_data_ptr<float>();
  const int64_t elements = host.numel();
  for (int64_t i = 0; i < elements; i += 2) {
    const auto [first, second] = pair_of(static_cast<uint64_t>(i / 2));
    values[i] = static_cast<float>(first);
    if (i + 1 < elements) values[i + 1] = static_cast<float>(second);
  }
  out.copy_(host);
}

}  // namespace

void fill_uniform(at::Tensor out, double bound, uint64_t seed, const std::string& name) {
  const UniformPairs pairs(seed, name);
  fill_pairs(out, [&](uint64_t index) {
    const auto [first, second] = pairs.at(index);
    return std::pair{(2.0 * first - 1.0) * bound, (2.0 * second - 1.0) * bound};
  });
}

void fill_normal(at::Tensor out, double deviation, uint64_t seed, const std::string& name) {
  const UniformPairs pairs(seed, name);
  fill_pairs(out, [&](uint64_t index) {
    const auto [first, second] = pairs.at(index);
    const double radius = deviation * std::sqrt(-2.0 * std::log1p(-first));  // Box and Muller; 1 - first is above 0
    const double angle = 2.0 * std::numbers::pi * second;
    return std::pair{radius * std::cos(angle), radius * std::sin(angle)};
  });
}

}  // namespace neoloom::model
