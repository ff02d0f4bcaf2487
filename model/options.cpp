// SPDX-License-Identifier: Apache-2.0
#include "model/options.h"

#include <cmath>

#include "runtime/core/error.h"

namespace neoloom::model {

std::string dtype_name(Dtype dtype) {
  switch (dtype) {
    case Dtype::kFloat16:
      return "float16";
    case Dtype::kBFloat16:
      return "bfloat16";
    case Dtype::kFloat32:
      return "float32";
  }
  core::fail(core::ErrorKind::kInternal, "dtype {} has no name", static_cast<int>(dtype));
}

Dtype dtype_from_name(const std::string& name) {
  const std::string prefix = "torch.";
  const std::string bare = name.starts_with(prefix) ? name.substr(prefix.size()) : name;
  if (bare == "float16" || bare == "fp16" || bare == "half") return Dtype::kFloat16;
  if (bare == "bfloat16" || bare == "bf16") return Dtype::kBFloat16;
  if (bare == "float32" || bare == "fp32" || bare == "float") return Dtype::kFloat32;
  core::fail(core::ErrorKind::kUsage, "unknown dtype \"{}\": expected float16, bfloat16 or float32", name);
}

double LoraOptions::scaling(int64_t rank, double alpha) const {
  core::require(rank > 0, core::ErrorKind::kUsage, "peft_config.r: expected a number above 0, found {}", rank);
  const auto r = static_cast<double>(rank);
  return alpha / (use_rslora ? std::sqrt(r) : r);
}

}  // namespace neoloom::model
