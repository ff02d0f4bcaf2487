// SPDX-License-Identifier: Apache-2.0
#include "runtime/optim/block_codes.h"

#include <ATen/ops/bucketize.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/maximum.h>

#include <algorithm>
#include <cmath>
#include <vector>

namespace neoloom::optim {
namespace {

constexpr int kDecades = 7;

// Returns the midpoints of 2^k (signed) or 2^(k+1) equal parts of [0.1, 1], times 10^(k-6), for k = 0 ... 6; with a
// sign also their negatives; 0 and 1.
std::vector<double> dynamic_map(bool is_signed) {
  std::vector<double> values = {0.0, 1.0};
  for (int k = 0; k < kDecades; ++k) {
    const int parts = 1 << (is_signed ? k : k + 1);
    for (int part = 0; part < parts; ++part) {
      const double value = (0.1 + 0.9 * (part + 0.5) / parts) * std::pow(10.0, k - (kDecades - 1));
      values.push_back(value);
      if (is_signed) values.push_back(-value);
    }
  }
  std::sort(values.begin(), values.end());
  return values;
}

at::Tensor on_device(const std::vector<double>& values, at::Device device) {
  at::Tensor host = at::empty({static_cast<int64_t>(values.size())}, at::kFloat);
  std::transform(values.begin(), values.end(), host.mutable_data_ptr<float>(),
                 [](double value) { return static_cast<float>(value); });
  return host.to(device);
}

}  // namespace

BlockCodes::BlockCodes(bool is_signed, at::Device device) : is_signed_(is_signed) {
  const std::vector<double> values = dynamic_map(is_signed);
  std::vector<double> midpoints;
  for (size_t i = 1; i < values.size(); ++i) midpoints.push_back((values[i - 1] + values[i]) / 2.0);
  map_ = on_device(values, device);
  midpoints_ = on_device(midpoints, device);
}

at::Tensor BlockCodes::decode(const at::Tensor& codes, const at::Tensor& scales) const {
  const at::Tensor values = map_.index_select(0, codes.to(at::kInt));
  return values.view({-1, kBlockElements}).mul_(scales.unsqueeze(1)).view(-1);
}

BlockCodes::Encoded BlockCodes::encode(const at::Tensor& values) const {
  const at::Tensor blocks = values.view({-1, kBlockElements});
  const at::Tensor scales = blocks.abs().amax(1);
  // A block of zeros has the scale 0, and 0 / 0 would have no code.
  const at::Tensor shares = blocks.div(scales.clamp_min(std::numeric_limits<float>::min()).unsqueeze(1));
  at::Tensor codes = at::bucketize(shares, midpoints_, /*out_int32=*/true);
  if (!is_signed_) codes = at::maximum(codes, blocks.gt(0.0).to(at::kInt));
  return {codes.to(at::kByte).view(-1), scales};
}

}  // namespace neoloom::optim
