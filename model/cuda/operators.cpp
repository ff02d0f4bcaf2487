// SPDX-License-Identifier: Apache-2.0
#include "model/cuda/operators.h"

#include <ATen/ops/_cudnn_attention_backward.h>
#include <ATen/ops/_cudnn_attention_forward.h>
#include <ATen/ops/_flash_attention_backward.h>
#include <ATen/ops/_flash_attention_forward.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/mm.h>

#include <optional>

#include "model/cuda/attention_choice.h"

namespace neoloom::model {

namespace {

constexpr double kScale = 1.0;  // GPT-Neo does not divide by sqrt(d)
constexpr double kNoDropout = 0.0;

at::Tensor flash_forward(const AttentionCall& call, AttentionSaved& saved) {
  const SlidingWindow reach = sliding_window(call.window);
  auto [out, logsumexp, rng_state, unused, debug_mask] = at::_flash_attention_forward(
      call.q, call.k, call.v, call.rows.cu_seqlens_q, call.rows.cu_seqlens_k, call.rows.max_seqlen_q,
      call.rows.max_seqlen_k, kNoDropout, reach.causal, /*return_debug_mask=*/false, kScale, reach.left, reach.right);
  saved = {logsumexp, rng_state, unused};
  return out;
}

AttentionGradients flash_backward(const at::Tensor& grad, const AttentionCall& call, const at::Tensor& out,
                                  const AttentionSaved& saved) {
  const SlidingWindow reach = sliding_window(call.window);
  auto [dq, dk, dv] =
      at::_flash_attention_backward(grad, call.q, call.k, call.v, out, saved.logsumexp, call.rows.cu_seqlens_q,
                                    call.rows.cu_seqlens_k, call.rows.max_seqlen_q, call.rows.max_seqlen_k, kNoDropout,
                                    reach.causal, saved.seed, saved.offset, kScale, reach.left, reach.right);
  return {dq, dk, dv};
}

/// Returns samples of equal length in cuDNN's dense layout, as a view: [rows, H, d] -> [B, H, T, d]. cuDNN's ragged
/// layout gave wrong results (LibTorch 2.11, cuDNN 9.19, H200).
at::Tensor by_sample(const at::Tensor& rows, const CuSeqlens& packed) {
  return rows.view({packed.equal_samples, -1, rows.size(1), rows.size(2)}).transpose(1, 2);
}

/// Undoes by_sample.
at::Tensor by_row(const at::Tensor& samples) { return samples.transpose(1, 2).flatten(0, 1); }

at::Tensor cudnn_forward(const AttentionCall& call, AttentionSaved& saved) {
  const at::Tensor q = by_sample(call.q, call.rows);
  const auto results = at::_cudnn_attention_forward(
      q, by_sample(call.k, call.rows), by_sample(call.v, call.rows), /*attn_bias=*/std::nullopt,
      /*cum_seq_q=*/std::nullopt, /*cum_seq_k=*/std::nullopt, q.size(2), q.size(2), /*compute_log_sumexp=*/true,
      kNoDropout, /*is_causal=*/true, /*return_debug_mask=*/false, kScale);
  saved = {std::get<1>(results), std::get<6>(results), std::get<7>(results)};
  return by_row(std::get<0>(results));
}

AttentionGradients cudnn_backward(const at::Tensor& grad, const AttentionCall& call, const at::Tensor& out,
                                  const AttentionSaved& saved) {
  const auto samples = [&](const at::Tensor& x) { return by_sample(x, call.rows); };
  const int64_t length = samples(call.q).size(2);
  auto [dq, dk, dv] =
      at::_cudnn_attention_backward(samples(grad), samples(call.q), samples(call.k), samples(call.v), samples(out),
                                    saved.logsumexp, saved.seed, saved.offset, /*attn_bias=*/{}, /*cum_seq_q=*/{},
                                    /*cum_seq_k=*/{}, length, length, kNoDropout, /*is_causal=*/true, kScale);
  return {by_row(dq), by_row(dk), by_row(dv)};
}

}  // namespace

CudaOperators libtorch_operators() {
  CudaOperators operators;
  operators.gemm = [](const at::Tensor& a, const at::Tensor& b) { return at::mm(a, b, at::kFloat); };
  operators.add_gemm = [](const at::Tensor& y, const at::Tensor& a, const at::Tensor& b, double beta, double alpha) {
    at::Tensor out = y;
    at::addmm_out(out, y, a, b, at::kFloat, beta, alpha);
  };
  operators.flash_forward = flash_forward;
  operators.flash_backward = flash_backward;
  operators.cudnn_forward = cudnn_forward;
  operators.cudnn_backward = cudnn_backward;
  return operators;
}

}  // namespace neoloom::model
