// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <c10/core/ScalarType.h>

#include "model/options.h"

namespace neoloom::model {

/// LibTorch's name of a dtype.
inline at::ScalarType scalar_type(Dtype dtype) {
  switch (dtype) {
    case Dtype::kFloat16:
      return at::kHalf;
    case Dtype::kBFloat16:
      return at::kBFloat16;
    case Dtype::kFloat32:
      break;
  }
  return at::kFloat;
}

}  // namespace neoloom::model
