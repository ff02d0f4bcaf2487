// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/ops/arange.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/zeros_like.h>
#include <gtest/gtest.h>

#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "model/cuda/operators.h"
#include "tests/support/operator_record.h"

namespace neoloom::model::testing {

/// The device path's operators on CPU tensors, by formulas that share nothing with the model's: each call counts as the
/// one operator that it stands for. Packed rows are read from cu_seqlens_q and cu_seqlens_k alone.
class ReferenceOperators {
 public:
  static std::shared_ptr<const CudaOperators> table() {
    auto operators = std::make_shared<CudaOperators>();
    operators->gemm = [](const at::Tensor& a, const at::Tensor& b) {
      neoloom::support::OperatorRecord::count("mm.dtype");
      const at::DisableRecordFunctionGuard unseen;
      EXPECT_EQ(a.scalar_type(), b.scalar_type());
      EXPECT_NE(a.scalar_type(), at::kFloat);
      return at::mm(a.to(at::kFloat), b.to(at::kFloat));
    };
    operators->add_gemm = [](const at::Tensor& y, const at::Tensor& a, const at::Tensor& b, double beta, double alpha) {
      neoloom::support::OperatorRecord::count("addmm.dtype");
      const at::DisableRecordFunctionGuard unseen;
      EXPECT_EQ(a.scalar_type(), b.scalar_type());
      EXPECT_NE(a.scalar_type(), at::kFloat);
      EXPECT_EQ(y.scalar_type(), at::kFloat);
      y.addmm_(a.to(at::kFloat), b.to(at::kFloat), beta, alpha);
    };
    operators->flash_forward = forward_as("_flash_attention_forward");
    operators->flash_backward = backward_as("_flash_attention_backward");
    operators->cudnn_forward = forward_as("_cudnn_attention_forward");
    operators->cudnn_backward = backward_as("_cudnn_attention_backward");
    return operators;
  }

 private:
  struct Sample {
    at::Tensor q, k, v;  // [H, n, d] fp32
    at::Tensor p;        // [H, queries, keys]
    int64_t query_begin, query_end, key_begin, key_end;
  };

  static at::Tensor heads(const at::Tensor& x, int64_t begin, int64_t end) {
    return x.narrow(0, begin, end - begin).to(at::kFloat).transpose(0, 1);
  }

  static Sample sample_of(const AttentionCall& call, int64_t index) {
    const auto bound = [](const at::Tensor& bounds, int64_t i) { return bounds.const_data_ptr<int32_t>()[i]; };
    Sample sample;
    sample.query_begin = bound(call.rows.cu_seqlens_q, index);
    sample.query_end = bound(call.rows.cu_seqlens_q, index + 1);
    sample.key_begin = bound(call.rows.cu_seqlens_k, index);
    sample.key_end = bound(call.rows.cu_seqlens_k, index + 1);
    sample.q = heads(call.q, sample.query_begin, sample.query_end);
    sample.k = heads(call.k, sample.key_begin, sample.key_end);
    sample.v = heads(call.v, sample.key_begin, sample.key_end);
    const int64_t queries = sample.q.size(1);
    const int64_t keys = sample.k.size(1);
    EXPECT_LE(queries, call.rows.max_seqlen_q);
    EXPECT_LE(keys, call.rows.max_seqlen_k);
    // Queries are aligned with the last keys.
    const at::Tensor distance = at::arange(keys - queries, keys).unsqueeze(1).sub(at::arange(keys));
    at::Tensor hidden = distance.lt(0);
    if (call.window > 0) hidden = hidden.logical_or(distance.ge(call.window));
    const at::Tensor scores = at::bmm(sample.q, sample.k.transpose(1, 2));
    sample.p = at::softmax(scores.masked_fill(hidden, -std::numeric_limits<float>::infinity()), -1);
    return sample;
  }

  static CudaOperators::Forward forward_as(const std::string& name) {
    return [name](const AttentionCall& call, AttentionSaved& saved) {
      neoloom::support::OperatorRecord::count(name);
      const at::DisableRecordFunctionGuard unseen;
      at::Tensor out = at::empty_like(call.q, at::MemoryFormat::Contiguous);
      for (int64_t i = 0; i + 1 < call.rows.cu_seqlens_q.size(0); ++i) {
        const Sample sample = sample_of(call, i);
        out.narrow(0, sample.query_begin, sample.query_end - sample.query_begin)
            .copy_(at::bmm(sample.p, sample.v).transpose(0, 1));
      }
      saved.logsumexp = out.clone();  // backward must be handed this very state
      return out;
    };
  }

  static CudaOperators::Backward backward_as(const std::string& name) {
    return
        [name](const at::Tensor& grad, const AttentionCall& call, const at::Tensor& out, const AttentionSaved& saved) {
          neoloom::support::OperatorRecord::count(name);
          const at::DisableRecordFunctionGuard unseen;
          EXPECT_EQ(grad.scalar_type(), call.q.scalar_type());
          EXPECT_TRUE(saved.logsumexp.equal(out)) << "state of another call";
          AttentionGradients result{at::zeros_like(call.q, at::MemoryFormat::Contiguous),
                                    at::zeros_like(call.k, at::MemoryFormat::Contiguous),
                                    at::zeros_like(call.v, at::MemoryFormat::Contiguous)};
          for (int64_t i = 0; i + 1 < call.rows.cu_seqlens_q.size(0); ++i) {
            const Sample sample = sample_of(call, i);
            const at::Tensor d_out = heads(grad, sample.query_begin, sample.query_end);
            const at::Tensor dp = at::bmm(d_out, sample.v.transpose(1, 2));
            const at::Tensor ds = sample.p.mul(dp.sub(dp.mul(sample.p).sum(-1, /*keepdim=*/true)));
            const auto put = [](const at::Tensor& into, int64_t begin, const at::Tensor& value) {
              into.narrow(0, begin, value.size(1)).copy_(value.transpose(0, 1));
            };
            put(result.dq, sample.query_begin, at::bmm(ds, sample.k));
            put(result.dk, sample.key_begin, at::bmm(ds.transpose(1, 2), sample.q));
            put(result.dv, sample.key_begin, at::bmm(sample.p.transpose(1, 2), d_out));
          }
          return result;
        };
  }
};

}  // namespace neoloom::model::testing
