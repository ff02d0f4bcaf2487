// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "runtime/optim/adamw.h"

namespace neoloom::optim {

enum class OptimizerKind { kAdamW, kSgd, kAdafactor, kLion, kAdamW8bit };

/// What trainer_config says of the optimizer.
struct OptimizerOptions {
  OptimizerKind kind = OptimizerKind::kAdamW;
  AdamWOptions adamw;     // betas: AdamW and Lion; epsilon: AdamW; weight decay: all
  double momentum = 0.0;  // these three: SGD
  double dampening = 0.0;
  bool nesterov = false;
};

/// Names of trainer_config.optim, as Hugging Face has them.
std::vector<std::string> optimizer_names();
/// Returns the one name that stands for all names of an optimizer (adamw_torch_fused: adamw_torch).
std::string canonical_optimizer(const std::string& name);
/// `arguments`: trainer_config.optim_args, "key=value,key=value". Betas, epsilon and weight decay keep their defaults.
/// Throws: Error(kUsage) for an unknown name, an argument that the optimizer does not have, and a value that does not
/// fit.
OptimizerOptions make_optimizer_options(const std::string& name, const std::string& arguments);

/// Lengths of an optimizer's state for n parameters:
///   AdamW       exp_avg [n], exp_avg_sq [n]
///   SGD         exp_avg [n]: torch's momentum_buffer; nothing without momentum
///   Adafactor   exp_avg_sq: of each matrix the means of its rows, then those of its columns; of others each element
///   Lion        exp_avg [n]
///   8-bit AdamW codes [n] and the largest magnitude of each block of 256 elements, for both moments
struct StateSizes {
  int64_t exp_avg = 0;     // elements of fp32
  int64_t exp_avg_sq = 0;  // elements of fp32
  int64_t codes = 0;       // bytes of each moment's codes
  int64_t bytes() const;
};

/// `n_elements`: of the flat buffer. `factored_elements`: sum of factored_elements() over all tensors.
StateSizes state_sizes(const OptimizerOptions& options, int64_t n_elements, int64_t factored_elements);
/// Elements of Adafactor's second moment of one tensor: rows + columns of a matrix, else its elements.
int64_t factored_elements(const std::vector<int64_t>& shape);

/// Name of the state's kind in checkpoints: adamw, sgd, adafactor, lion, adamw_8bit.
std::string state_name(OptimizerKind kind);

}  // namespace neoloom::optim
