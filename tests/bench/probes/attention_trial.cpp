// SPDX-License-Identifier: Apache-2.0
#include "tests/bench/probes/attention_trial.h"

#include <ATen/Context.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/_cudnn_attention_backward.h>
#include <ATen/ops/_cudnn_attention_forward.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <limits>

#include "model/cuda/operators.h"
#include "tests/bench/probes/attention_reference.h"

namespace neoloom::probes {

namespace {

using model::AttentionCall;
using model::AttentionGradients;
using model::AttentionSaved;

AttentionPasses operator_passes(const AttentionInputs& inputs, model::CudaOperators::Forward forward,
                                model::CudaOperators::Backward backward) {
  struct State {
    at::Tensor out;
    AttentionSaved saved;
  };
  const auto state = std::make_shared<State>();
  const auto call = [&inputs] { return AttentionCall{inputs.q, inputs.k, inputs.v, inputs.rows, inputs.layer.window}; };
  AttentionPasses passes;
  passes.forward = [=] { return state->out = forward(call(), state->saved); };
  passes.backward = [=, &inputs] { return backward(inputs.grad, call(), state->out, state->saved); };
  return passes;
}

/// LibTorch's cuDNN operator on cumulative lengths; neoloom uses it on even rows alone.
at::Tensor ragged_forward(const AttentionCall& call, AttentionSaved& saved) {
  const auto results = at::_cudnn_attention_forward(
      call.q, call.k, call.v, /*attn_bias=*/{}, call.rows.cu_seqlens_q, call.rows.cu_seqlens_k, call.rows.max_seqlen_q,
      call.rows.max_seqlen_k, /*compute_log_sumexp=*/true, /*dropout_p=*/0.0, /*is_causal=*/true,
      /*return_debug_mask=*/false, /*scale=*/1.0);
  saved = {std::get<1>(results), std::get<6>(results), std::get<7>(results)};
  return std::get<0>(results);
}

AttentionGradients ragged_backward(const at::Tensor& grad, const AttentionCall& call, const at::Tensor& out,
                                   const AttentionSaved& saved) {
  auto [dq, dk, dv] = at::_cudnn_attention_backward(
      grad, call.q, call.k, call.v, out, saved.logsumexp, saved.seed, saved.offset, /*attn_bias=*/{},
      call.rows.cu_seqlens_q, call.rows.cu_seqlens_k, call.rows.max_seqlen_q, call.rows.max_seqlen_k,
      /*dropout_p=*/0.0, /*is_causal=*/true, /*scale=*/1.0);
  return {dq, dk, dv};
}

/// The rows of a graph: packed [N, H, d] as they are, or padded [B, T, H, d].
class GraphRows {
 public:
  GraphRows(const AttentionCase& layer, RowLayout layout) : layer_(layer), padded_(layout == RowLayout::kPadded) {}

  at::Tensor to_graph(const at::Tensor& rows) const {
    if (!padded_) return rows;
    at::Tensor padded = at::zeros(padded_shape(), rows.options());
    for_each_sample([&](int64_t sample, const model::SequenceSpan& span) {
      padded.select(0, sample).narrow(0, 0, span.key_rows).copy_(rows.narrow(0, span.key_begin, span.key_rows));
    });
    return padded;
  }

  at::Tensor to_packed(const at::Tensor& rows) const {
    if (!padded_) return rows;
    std::vector<at::Tensor> samples;
    for_each_sample([&](int64_t sample, const model::SequenceSpan& span) {
      samples.push_back(rows.select(0, sample).narrow(0, 0, span.key_rows));
    });
    return at::cat(samples, 0);
  }

 private:
  std::vector<int64_t> padded_shape() const {
    return {static_cast<int64_t>(layer_.lengths.size()), layer_.length, layer_.heads, layer_.head_size};
  }
  template <typename Body>
  void for_each_sample(Body body) const {
    int64_t sample = 0;
    for (const model::SequenceSpan& span : layer_.segments()) body(sample++, span);
  }

  AttentionCase layer_;
  bool padded_;
};

/// Returns rows of NaNs, which a kernel must overwrite: reused memory could hold the right values. Padding is 0, so
/// that it has equal bits in two runs also if no kernel writes there.
at::Tensor unwritten(const GraphRows& rows, const AttentionInputs& inputs) {
  return rows.to_graph(at::full_like(inputs.q, std::numeric_limits<float>::quiet_NaN()));
}

/// Inputs and outputs of both graphs of a candidate.
GraphTensors graph_tensors(const AttentionInputs& inputs, RowLayout layout, const GraphRows& rows) {
  const AttentionCase& layer = inputs.layer;
  GraphTensors tensors;
  tensors.q = rows.to_graph(inputs.q);
  tensors.k = rows.to_graph(inputs.k);
  tensors.v = rows.to_graph(inputs.v);
  tensors.out = unwritten(rows, inputs);
  tensors.stats = at::zeros({static_cast<int64_t>(layer.lengths.size()), layer.heads, layer.length, 1},
                            inputs.q.options().dtype(at::kFloat));
  const at::Tensor& begins = inputs.rows.cu_seqlens_k;
  const int64_t samples = begins.size(0) - 1;
  if (layout != RowLayout::kEven) tensors.lengths = begins.narrow(0, 1, samples) - begins.narrow(0, 0, samples);
  if (layout == RowLayout::kRagged) tensors.offsets = begins * (layer.heads * layer.head_size);
  return tensors;
}

AttentionPasses graph_passes(const AttentionItem& item, AttentionInputs& inputs) {
  const GraphRows rows(inputs.layer, item.layout);
  const GraphTensors forward_tensors = graph_tensors(inputs, item.layout, rows);
  std::shared_ptr<AttentionGraph>& forward = inputs.forward_graphs[item.layout];
  if (!forward) {
    forward = std::make_shared<AttentionGraph>(inputs.layer, Pass::kForward, item.layout, SumOrder::kAny);
  }
  AttentionPasses passes;
  passes.forward = [=, graph = forward] {
    graph->run(forward_tensors);
    return forward_tensors.out;
  };
  passes.notes["workspace_bytes"] = forward->workspace_bytes();
  if (item.pass == Pass::kForward) return passes;
  const auto backward = std::make_shared<AttentionGraph>(inputs.layer, Pass::kBackward, item.layout, item.order);
  GraphTensors tensors = forward_tensors;
  tensors.grad = rows.to_graph(inputs.grad);
  tensors.dq = unwritten(rows, inputs);
  tensors.dk = unwritten(rows, inputs);
  tensors.dv = unwritten(rows, inputs);
  passes.backward = [=] {
    backward->run(tensors);
    return AttentionGradients{tensors.dq, tensors.dk, tensors.dv};
  };
  passes.notes["workspace_bytes"] = backward->workspace_bytes();
  return passes;
}

Work work_of(const AttentionItem& item, const AttentionInputs& inputs, const AttentionPasses& passes) {
  const bool forward = item.pass == Pass::kForward;
  Work work;
  work.flops = item.flops;
  if (forward) {
    work.run = [&] { return std::vector<at::Tensor>{passes.forward()}; };
  } else {
    passes.forward();
    work.run = [&] {
      const AttentionGradients found = passes.backward();
      return std::vector<at::Tensor>{found.dq, found.dk, found.dv};
    };
  }
  work.error = [&, forward](const std::vector<at::Tensor>& results) {
    const AttentionSlice slice(inputs.layer);
    const GraphRows rows(inputs.layer, item.layout);
    auto expected = slice.reference(inputs.q, inputs.k, inputs.v, forward ? at::Tensor() : inputs.grad);
    if (!forward) expected.erase(expected.begin());
    double error = 0.0;
    for (size_t i = 0; i < results.size(); ++i) {
      error = std::max(error, relative_error(slice.of(rows.to_packed(results[i])), expected[i]));
    }
    return error;
  };
  return work;
}

}  // namespace

AttentionInputs::AttentionInputs(const AttentionCase& attention_case) : layer(attention_case) {
  constexpr double kSmall = 0.3;
  const std::vector<int64_t> shape = {layer.tokens(), layer.heads, layer.head_size};
  q = random_values(shape, layer.dtype, kSmall, 11);
  k = random_values(shape, layer.dtype, kSmall, 12);
  v = random_values(shape, layer.dtype, 1.0, 13);
  grad = random_values(shape, layer.dtype, 1.0, 14);
  rows = model::cu_seqlens(layer.segments(), at::kCPU);
  rows.cu_seqlens_q = rows.cu_seqlens_q.to(q.device());
  rows.cu_seqlens_k = rows.cu_seqlens_k.to(q.device());
}

AttentionPasses make_passes(const AttentionItem& item, AttentionInputs& inputs) {
  if (item.library == Library::kGraph) return graph_passes(item, inputs);
  const model::CudaOperators operators = model::libtorch_operators();
  if (item.library == Library::kFlash) {
    return operator_passes(inputs, operators.flash_forward, operators.flash_backward);
  }
  if (item.layout == RowLayout::kRagged) return operator_passes(inputs, ragged_forward, ragged_backward);
  return operator_passes(inputs, operators.cudnn_forward, operators.cudnn_backward);
}

Json AttentionTrials::operator()(const AttentionItem& item) {
  if (!inputs_ || inputs_->layer.name() != item.layer.name()) {
    inputs_.reset();
    inputs_ = std::make_unique<AttentionInputs>(item.layer);
  }
  at::globalContext().setDeterministicAlgorithms(item.order != SumOrder::kAny, /*warn_only=*/false);
  const AttentionPasses passes = make_passes(item, *inputs_);
  Json found = measure(work_of(item, *inputs_, passes));
  found.update(passes.notes);
  return found;
}

}  // namespace neoloom::probes
