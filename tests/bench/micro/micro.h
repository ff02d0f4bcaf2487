// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>
#include <benchmark/benchmark.h>

#include <functional>
#include <string>

namespace neoloom::bench {

void register_gemms();
void register_layers();
void register_state();
/// Encoding of `text_file` with the tokenizer of `folder`.
void register_tokenizer(const std::string& folder, const std::string& text_file);

/// Registers a benchmark that is timed by the wall clock; `body` gets the state. Its results are checked on the first
/// call only: Google Benchmark calls a benchmark several times.
struct Case {
  std::string name;
  std::function<std::string()> check;  // what is wrong; empty: nothing
  std::function<void()> body;
  double operations = 0.0;  // floating-point operations of a call; 0: not counted
  double bytes = 0.0;       // input bytes of a call; 0: not counted
};
void add_case(Case described);

/// Says how far `found` is from `expected`, relative to the largest expected magnitude; empty within `tolerance`.
std::string difference(const at::Tensor& found, const at::Tensor& expected, double tolerance);

/// N(0, 1) values [rows, columns] fp32, the same for the same seed.
at::Tensor random_matrix(int64_t rows, int64_t columns, uint64_t seed);

}  // namespace neoloom::bench
