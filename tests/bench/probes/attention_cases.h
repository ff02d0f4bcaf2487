// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/ScalarType.h>

#include <cstdint>
#include <string>
#include <vector>

#include "model/batch/rows.h"
#include "tests/bench/probes/probe.h"

namespace neoloom::probes {

/// A layer of GPT-Neo's attention (causal, scale 1) over a packed micro-batch.
struct AttentionCase {
  at::ScalarType dtype = at::kBFloat16;
  int64_t head_size = 0;
  int64_t heads = 0;
  int64_t length = 0;            // of the longest sample
  int64_t window = 0;            // as AttentionCall::window; 0: global
  std::vector<int64_t> lengths;  // of all samples

  bool ragged() const { return lengths.back() != length; }
  int64_t tokens() const;
  std::string name() const;
  Json shape() const;
  std::vector<model::SequenceSpan> segments() const;
};

/// Returns lengths from length / 8 to `length` that sum to `tokens`, the longest first. The last sample is the rest.
/// The same arguments give the same lengths.
std::vector<int64_t> ragged_lengths(int64_t length, int64_t tokens);

/// Pairs of a query and a key that the mask lets through, in all samples. `window` 0: causal alone.
int64_t visible_pairs(const std::vector<int64_t>& lengths, int64_t window);

/// All cases, the most valuable first.
std::vector<AttentionCase> attention_cases();

enum class Pass { kForward, kBackward };
enum class Library { kFlash, kGraph, kLibtorchCudnn };
/// How an attention operator sees the rows: [B, T] without padding or with it, or cumulative lengths.
enum class RowLayout { kEven, kPadded, kRagged };
/// The order of sums in backward: any; fixed; fixed by cuDNN's ordered sum of dQ, whose workspace is linear in the
/// length, not quadratic.
enum class SumOrder { kAny, kFixed, kOrderedDq };

struct AttentionItem : Item {
  AttentionCase layer;
  Pass pass = Pass::kForward;
  Library library = Library::kFlash;
  RowLayout layout = RowLayout::kRagged;
  SumOrder order = SumOrder::kAny;
};

/// All candidates of all cases. The passes of a candidate follow one another. What failed on devices in the past comes
/// last.
std::vector<AttentionItem> attention_items();

}  // namespace neoloom::probes
