// SPDX-License-Identifier: Apache-2.0
#include "model/device_operators.h"

#include <ATen/ops/_cudnn_attention_backward.h>
#include <ATen/ops/_cudnn_attention_forward.h>
#include <ATen/ops/_flash_attention_backward.h>
#include <ATen/ops/_flash_attention_forward.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>

#include <optional>

#include "model/kernels.h"

namespace neoloom::model {

namespace {

constexpr double kScale = 1.0;  // GPT-Neo does not divide by sqrt(d)
constexpr double kNoDropout = 0.0;

at::Tensor flash_forward(const AttentionCall& call, AttentionSaved& saved) {
  const FlashReach reach = flash_reach(call.window);
  auto [out, logsumexp, rng_state, unused, debug_mask] = at::_flash_attention_forward(
      call.q, call.k, call.v, call.rows.cu_queries, call.rows.cu_keys, call.rows.max_queries, call.rows.max_keys,
      kNoDropout, reach.causal, /*return_debug_mask=*/false, kScale, reach.left, reach.right);
  saved = {logsumexp, rng_state, unused};
  return out;
}

AttentionGradients flash_backward(const at::Tensor& grad, const AttentionCall& call, const at::Tensor& out,
                                  const AttentionSaved& saved) {
  const FlashReach reach = flash_reach(call.window);
  auto [dq, dk, dv] =
      at::_flash_attention_backward(grad, call.q, call.k, call.v, out, saved.logsumexp, call.rows.cu_queries,
                                    call.rows.cu_keys, call.rows.max_queries, call.rows.max_keys, kNoDropout,
                                    reach.causal, saved.seed, saved.offset, kScale, reach.left, reach.right);
  return {dq, dk, dv};
}

at::Tensor cudnn_forward(const AttentionCall& call, AttentionSaved& saved) {
  const auto results = at::_cudnn_attention_forward(
      call.q, call.k, call.v, /*attn_bias=*/std::nullopt, call.rows.cu_queries, call.rows.cu_keys,
      call.rows.max_queries, call.rows.max_keys, /*compute_log_sumexp=*/true, kNoDropout, /*is_causal=*/true,
      /*return_debug_mask=*/false, kScale);
  saved = {std::get<1>(results), std::get<6>(results), std::get<7>(results)};
  return std::get<0>(results);
}

AttentionGradients cudnn_backward(const at::Tensor& grad, const AttentionCall& call, const at::Tensor& out,
                                  const AttentionSaved& saved) {
  auto [dq, dk, dv] = at::_cudnn_attention_backward(
      grad, call.q, call.k, call.v, out, saved.logsumexp, saved.seed, saved.offset, /*attn_bias=*/{},
      call.rows.cu_queries, call.rows.cu_keys, call.rows.max_queries, call.rows.max_keys, kNoDropout,
      /*is_causal=*/true, kScale);
  return {dq, dk, dv};
}

}  // namespace

DeviceOperators libtorch_operators() {
  DeviceOperators operators;
  operators.product = [](const at::Tensor& a, const at::Tensor& b) { return at::mm(a, b, at::kFloat); };
  operators.flash_forward = flash_forward;
  operators.flash_backward = flash_backward;
  operators.cudnn_forward = cudnn_forward;
  operators.cudnn_backward = cudnn_backward;
  return operators;
}

}  // namespace neoloom::model
