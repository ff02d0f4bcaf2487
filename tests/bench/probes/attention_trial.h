// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <map>
#include <memory>

#include "model/cpu/attention.h"
#include "tests/bench/probes/attention_cases.h"
#include "tests/bench/probes/cudnn_graph.h"
#include "tests/bench/probes/measure.h"

namespace neoloom::probes {

/// Inputs of a case on the GPU: N(0, 1) rows [N, H, d], q and k times 0.3, which gives scores of about 1.
struct AttentionInputs {
  explicit AttentionInputs(const AttentionCase& attention_case);

  AttentionCase layer;
  at::Tensor q, k, v, grad;
  model::CuSeqlens rows;
  std::map<RowLayout, std::shared_ptr<AttentionGraph>> forward_graphs;  // built so far
};

/// Results [N, H, d] of a candidate. `backward` follows a `forward`, whose results it reads.
struct AttentionPasses {
  std::function<at::Tensor()> forward;
  std::function<model::AttentionGradients()> backward;
  Json notes = Json::object();  // for the line
};

/// Makes the candidate of an item; its backward only if the item is one. Throws what the library says if it has none.
AttentionPasses make_passes(const AttentionItem& item, AttentionInputs& inputs);

/// Measures one item after the other. Keeps the inputs as long as the case stays the same.
class AttentionTrials {
 public:
  Json operator()(const AttentionItem& item);

 private:
  std::unique_ptr<AttentionInputs> inputs_;
};

}  // namespace neoloom::probes
