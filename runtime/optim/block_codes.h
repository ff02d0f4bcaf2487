// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace neoloom::optim {

/// Elements that share one scale.
inline constexpr int64_t kBlockElements = 256;

inline int64_t block_count(int64_t n_elements) { return (n_elements + kBlockElements - 1) / kBlockElements; }

/// Stores fp32 values as 8-bit codes, block by block: a code is the nearest of 256 values between -1 and 1 (or 0 and
/// 1), times the largest magnitude of its block. The values are those of the dynamic map of Dettmers et al., "8-bit
/// Optimizers via Block-wise Quantization" (2022): seven decades, with more values in the higher ones. The error of a
/// value is at most 0.71 % of its block's largest magnitude when signed, 0.36 % else. Down to a tenth of that magnitude
/// it is at most 6.2 % and 3.3 % of the value itself.
/// Operators alone, without a read-back: the same bits for any number of threads.
class BlockCodes {
 public:
  BlockCodes(bool is_signed, at::Device device);

  /// Returns the values of blocks. Shapes: codes [b * 256] uint8, scales [b] fp32; returns [b * 256] fp32.
  at::Tensor decode(const at::Tensor& codes, const at::Tensor& scales) const;

  struct Encoded {
    at::Tensor codes;   // [b * 256] uint8
    at::Tensor scales;  // [b] fp32
  };
  /// Shapes: values [b * 256] fp32. Without a sign, a value above 0 never gets the code of 0: a second moment of 0
  /// would make an update of any size.
  Encoded encode(const at::Tensor& values) const;

 private:
  bool is_signed_;
  at::Tensor map_;        // [256] fp32, ascending
  at::Tensor midpoints_;  // [255] fp32, between neighbours of the map
};

}  // namespace neoloom::optim
