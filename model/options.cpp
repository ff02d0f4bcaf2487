// SPDX-License-Identifier: Apache-2.0
#include "model/options.h"

#include <array>
#include <charconv>
#include <cmath>
#include <string_view>

#include "runtime/core/error.h"

namespace neoloom::model {

namespace {

using Kind = AdapterInit::Kind;

constexpr std::array<std::pair<std::string_view, Kind>, 6> kInits = {{{"true", Kind::kTrue},
                                                                      {"false", Kind::kFalse},
                                                                      {"gaussian", Kind::kGaussian},
                                                                      {"orthogonal", Kind::kOrthogonal},
                                                                      {"pissa", Kind::kPissa},
                                                                      {"olora", Kind::kOlora}}};
constexpr std::string_view kIterated = "pissa_niter_";

constexpr const char* kStartInPeft =
    "create the adapter once in PEFT, save it and its base model, and name them in peft_config.init_from and "
    "model_config.pretrained_model_name";
/// PEFT's other initialisations, and what to do instead.
constexpr std::array<std::pair<std::string_view, const char*>, 5> kOtherInits = {
    {{"loftq", "it corrects a quantised base model, and ours is never quantised; use true or pissa"},
     {"eva",
      "it needs activations of your data: create the adapter once in PEFT, save it, and name its folder in "
      "peft_config.init_from"},
     {"corda", kStartInPeft},
     {"lora_ga", kStartInPeft},
     {"mica", "it trains A alone, which is not supported; use pissa or true"}}};

}  // namespace

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

std::string init_name(const AdapterInit& init) {
  if (init.iterations >= 0) return fmt::format("{}{}", kIterated, init.iterations);
  for (const auto& [name, kind] : kInits) {
    if (kind == init.kind) return std::string(name);
  }
  core::fail(core::ErrorKind::kInternal, "initialisation {} has no name", static_cast<int>(init.kind));
}

AdapterInit init_from_name(const std::string& name) {
  for (const auto& [known, kind] : kInits) {
    if (known == name) return {kind};
  }
  if (name.starts_with(kIterated)) {
    AdapterInit init{Kind::kPissa, 0};
    const char* const end = name.data() + name.size();
    const auto read = std::from_chars(name.data() + kIterated.size(), end, init.iterations);
    if (read.ec == std::errc() && read.ptr == end && init.iterations >= 0) return init;
  }
  for (const auto& [other, advice] : kOtherInits) {
    core::require(other != name, core::ErrorKind::kUsage, "init_lora_weights \"{}\" is not supported: {}", name,
                  advice);
  }
  core::fail(core::ErrorKind::kUsage,
             "init_lora_weights: expected true, false, gaussian, orthogonal, pissa, pissa_niter_4 (or another number "
             "of iterations) or olora, found \"{}\"",
             name);
}

double LoraOptions::scaling(int64_t rank, double alpha) const {
  core::require(rank > 0, core::ErrorKind::kUsage, "peft_config.r: expected a number above 0, found {}", rank);
  const auto r = static_cast<double>(rank);
  return alpha / (use_rslora ? std::sqrt(r) : r);
}

}  // namespace neoloom::model
