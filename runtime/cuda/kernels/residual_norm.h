// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "runtime/cuda/fused_kernels.h"
#include "runtime/cuda/kernels/pack.h"

namespace neoloom::cuda::kernels {

// LayerNorm of a residual connection, one row for a block of threads. A thread keeps its part of the row in registers:
// packs number lane, lane + lanes, ... The block adds the sums of its threads in a fixed order (see kernels.cu), so
// equal inputs give equal bits.

/// Calls visit(round, column) for each pack of a thread.
template <int kPackSize, int kRounds, class Visit>
NL_HOST_DEVICE void for_each_pack(int64_t columns, int lane, int lanes, Visit&& visit) {
  NL_UNROLL
  for (int round = 0; round < kRounds; ++round) {
    const int64_t column = (static_cast<int64_t>(round) * lanes + lane) * kPackSize;
    if (column < columns) visit(round, column);
  }
}

/// What one thread does of one row of ResidualNorm.
template <class T, int kPackSize, int kRounds>
class ResidualNormThread {
 public:
  NL_HOST_DEVICE ResidualNormThread(const ResidualNorm& norm, int64_t row, int lane, int lanes)
      : norm_(norm), start_(row * norm.columns), lane_(lane), lanes_(lanes) {}

  /// Writes `sum`. Returns the total of the thread's part.
  NL_HOST_DEVICE float add() {
    float total = 0.0F;
    each([&](int round, int64_t column) {
      float(&x)[kPackSize] = values_[round];
      float delta[kPackSize];
      load<kPackSize>(norm_.residual + start_ + column, x);
      load<kPackSize>(static_cast<const T*>(norm_.delta) + start_ + column, delta);
      if (norm_.bias != nullptr) {
        float bias[kPackSize];
        load<kPackSize>(norm_.bias + column, bias);
        NL_UNROLL
        for (int i = 0; i < kPackSize; ++i) x[i] += bias[i];
      }
      NL_UNROLL
      for (int i = 0; i < kPackSize; ++i) {
        x[i] += delta[i];
        total += x[i];
      }
      store<kPackSize>(x, norm_.sum + start_ + column);
    });
    return total;
  }

  /// Returns the sum of the squared distances from the mean.
  NL_HOST_DEVICE float squared_distances(float mean) const {
    float total = 0.0F;
    each([&](int round, int64_t) {
      NL_UNROLL
      for (int i = 0; i < kPackSize; ++i) {
        const float distance = values_[round][i] - mean;
        total += distance * distance;
      }
    });
    return total;
  }

  /// Writes `normed`.
  NL_HOST_DEVICE void normalize(float mean, float rstd) const {
    each([&](int round, int64_t column) {
      float weight[kPackSize];
      float y[kPackSize];
      load<kPackSize>(norm_.weight + column, weight);
      load<kPackSize>(norm_.shift + column, y);
      NL_UNROLL
      for (int i = 0; i < kPackSize; ++i) y[i] += (values_[round][i] - mean) * rstd * weight[i];
      store<kPackSize>(y, static_cast<T*>(norm_.normed) + start_ + column);
    });
  }

 private:
  template <class Visit>
  NL_HOST_DEVICE void each(Visit&& visit) const {
    for_each_pack<kPackSize, kRounds>(norm_.columns, lane_, lanes_, visit);
  }

  const ResidualNorm& norm_;
  int64_t start_;
  int lane_, lanes_;
  float values_[kRounds][kPackSize];
};

/// Two sums over a row.
struct NormGradSums {
  float gradient = 0.0F;    // of g = d_normed * weight
  float projection = 0.0F;  // of g * x, with x = (sum - mean) * rstd
};

/// What one thread does of one row of ResidualNormGrad: d_sum += rstd * (g - mean(g) - x * mean(g x)).
template <int kPackSize, int kRounds>
class ResidualNormGradThread {
 public:
  NL_HOST_DEVICE ResidualNormGradThread(const ResidualNormGrad& norm, int64_t row, int lane, int lanes)
      : norm_(norm),
        start_(row * norm.columns),
        lane_(lane),
        lanes_(lanes),
        mean_(norm.mean[row]),
        rstd_(norm.rstd[row]) {}

  /// Reads the thread's part of the row. Returns its sums.
  NL_HOST_DEVICE NormGradSums read() {
    NormGradSums sums;
    each([&](int round, int64_t column) {
      float(&g)[kPackSize] = gradient_[round];
      float(&x)[kPackSize] = normalized_[round];
      float weight[kPackSize];
      load<kPackSize>(norm_.d_normed + start_ + column, g);
      load<kPackSize>(norm_.sum + start_ + column, x);
      load<kPackSize>(norm_.weight + column, weight);
      NL_UNROLL
      for (int i = 0; i < kPackSize; ++i) {
        g[i] *= weight[i];
        x[i] = (x[i] - mean_) * rstd_;
        sums.gradient += g[i];
        sums.projection += g[i] * x[i];
      }
    });
    return sums;
  }

  /// Adds to d_sum. `sums`: of the whole row.
  NL_HOST_DEVICE void add(NormGradSums sums) const {
    const float scale = 1.0F / static_cast<float>(norm_.columns);
    const float mean_gradient = sums.gradient * scale;
    const float mean_projection = sums.projection * scale;
    each([&](int round, int64_t column) {
      float total[kPackSize];
      load<kPackSize>(norm_.d_sum + start_ + column, total);
      NL_UNROLL
      for (int i = 0; i < kPackSize; ++i)
        total[i] += rstd_ * (gradient_[round][i] - mean_gradient - normalized_[round][i] * mean_projection);
      store<kPackSize>(total, norm_.d_sum + start_ + column);
    });
  }

 private:
  template <class Visit>
  NL_HOST_DEVICE void each(Visit&& visit) const {
    for_each_pack<kPackSize, kRounds>(norm_.columns, lane_, lanes_, visit);
  }

  const ResidualNormGrad& norm_;
  int64_t start_;
  int lane_, lanes_;
  float mean_, rstd_;
  float gradient_[kRounds][kPackSize];
  float normalized_[kRounds][kPackSize];
};

}  // namespace neoloom::cuda::kernels
