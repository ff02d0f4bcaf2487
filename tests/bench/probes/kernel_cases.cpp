// SPDX-License-Identifier: Apache-2.0
#include "tests/bench/probes/kernel_cases.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/gelu_backward.h>
#include <ATen/ops/native_layer_norm.h>
#include <ATen/ops/native_layer_norm_backward.h>
#include <ATen/ops/randn.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "runtime/core/error.h"

namespace neoloom::probes {

namespace {

using Tensors = std::vector<at::Tensor>;

constexpr double kEpsilon = 1e-5;
constexpr std::array kOperations = {Operation::kResidualNorm, Operation::kResidualNormGrad, Operation::kBiasGelu,
                                    Operation::kBiasGeluGrad};

std::string name_of(Operation operation) {
  switch (operation) {
    case Operation::kResidualNorm:
      return "residual + bias + LayerNorm";
    case Operation::kResidualNormGrad:
      return "residual + bias + LayerNorm, backward";
    case Operation::kBiasGelu:
      return "bias + GELU";
    case Operation::kBiasGeluGrad:
      return "bias + GELU, backward";
  }
  core::fail(core::ErrorKind::kInternal, "operation {} has no name", static_cast<int>(operation));
}

bool is_norm(Operation operation) {
  return operation == Operation::kResidualNorm || operation == Operation::kResidualNormGrad;
}

cuda::ElementType element_type(at::ScalarType dtype) {
  return dtype == at::kBFloat16 ? cuda::ElementType::kBFloat16
         : dtype == at::kHalf   ? cuda::ElementType::kFloat16
                                : cuda::ElementType::kFloat32;
}

void check_start(int result) {
  core::require(result == 0, core::ErrorKind::kDevice, "the kernel did not start: CUDA error {}", result);
}

/// Returns the largest relative error of all results.
std::function<double(const Tensors&)> compared_with(Tensors expected) {
  return [expected = std::move(expected)](const Tensors& results) {
    double worst = 0.0;
    for (size_t i = 0; i < expected.size(); ++i) worst = std::max(worst, relative_error(results.at(i), expected[i]));
    return worst;
  };
}

/// Inputs of all operations. Matrices [rows, columns]: `fp32` in fp32, the others in the type of the item.
struct Inputs {
  at::Tensor fp32, rounded, gradient, bias, weight, shift;
};

Inputs inputs_of(const KernelItem& item, at::Device device) {
  at::manual_seed(1);
  const auto values = [&](at::IntArrayRef shape) {
    return at::randn(shape, at::TensorOptions().dtype(at::kFloat).device(device));
  };
  Inputs inputs;
  inputs.fp32 = values({item.rows, item.columns});
  inputs.rounded = values({item.rows, item.columns}).to(item.dtype);
  inputs.gradient = values({item.rows, item.columns});
  inputs.bias = values({item.columns});
  inputs.weight = values({item.columns});
  inputs.shift = values({item.columns});
  return inputs;
}

at::Tensor in_fp64(const at::Tensor& x) { return x.to(at::kDouble); }

Work residual_norm(const KernelItem& item, const cuda::FusedKernels& kernels, cuda::StreamHandle stream,
                   const Inputs& in) {
  Work work;
  const at::Tensor sum = in_fp64(in.fp32).add(in_fp64(in.bias)).add(in_fp64(in.rounded));
  const auto [normed, mean, rstd] =
      at::native_layer_norm(sum, {item.columns}, in_fp64(in.weight), in_fp64(in.shift), kEpsilon);
  work.error = compared_with({sum, normed, mean.view(-1), rstd.view(-1)});
  if (!item.own) {
    work.run = [in, item] {
      const at::Tensor x = in.fp32.add(in.bias).add_(in.rounded);
      const auto [y, mean, rstd] = at::native_layer_norm(x, {item.columns}, in.weight, in.shift, kEpsilon);
      return Tensors{x, y.to(item.dtype), mean.view(-1), rstd.view(-1)};
    };
    return work;
  }
  const Tensors out = {at::empty_like(in.fp32), at::empty_like(in.rounded), at::empty({item.rows}, in.fp32.options()),
                       at::empty({item.rows}, in.fp32.options())};
  work.run = [=, &kernels] {
    check_start(kernels.residual_norm({.rows = item.rows,
                                       .columns = item.columns,
                                       .type = element_type(item.dtype),
                                       .residual = in.fp32.const_data_ptr<float>(),
                                       .delta = in.rounded.const_data_ptr(),
                                       .bias = in.bias.const_data_ptr<float>(),
                                       .weight = in.weight.const_data_ptr<float>(),
                                       .shift = in.shift.const_data_ptr<float>(),
                                       .epsilon = static_cast<float>(kEpsilon),
                                       .sum = out[0].mutable_data_ptr<float>(),
                                       .normed = out[1].mutable_data_ptr(),
                                       .mean = out[2].mutable_data_ptr<float>(),
                                       .rstd = out[3].mutable_data_ptr<float>()},
                                      stream));
    return out;
  };
  return work;
}

Work residual_norm_grad(const KernelItem& item, const cuda::FusedKernels& kernels, cuda::StreamHandle stream,
                        const Inputs& in) {
  const auto statistics = at::native_layer_norm(in.fp32, {item.columns}, in.weight, in.shift, kEpsilon);
  const at::Tensor mean = std::get<1>(statistics), rstd = std::get<2>(statistics);
  const auto gradient = [shape = item.columns](const at::Tensor& d_normed, const at::Tensor& x, const at::Tensor& mean,
                                               const at::Tensor& rstd, const at::Tensor& weight) {
    return std::get<0>(
        at::native_layer_norm_backward(d_normed, x, {shape}, mean, rstd, weight, {}, {true, false, false}));
  };
  const at::Tensor before = in.rounded.to(at::kFloat);
  const at::Tensor d_sum = before.clone();
  Work work;
  work.error = compared_with({in_fp64(before).add(
      gradient(in_fp64(in.gradient), in_fp64(in.fp32), in_fp64(mean), in_fp64(rstd), in_fp64(in.weight)))});
  work.reset = [=] { d_sum.copy_(before); };
  if (!item.own) {
    work.run = [=] {
      d_sum.add_(gradient(in.gradient, in.fp32, mean, rstd, in.weight));
      return Tensors{d_sum};
    };
    return work;
  }
  work.run = [=, &kernels] {
    check_start(kernels.residual_norm_grad({.rows = item.rows,
                                            .columns = item.columns,
                                            .d_normed = in.gradient.const_data_ptr<float>(),
                                            .sum = in.fp32.const_data_ptr<float>(),
                                            .weight = in.weight.const_data_ptr<float>(),
                                            .mean = mean.const_data_ptr<float>(),
                                            .rstd = rstd.const_data_ptr<float>(),
                                            .d_sum = d_sum.mutable_data_ptr<float>()},
                                           stream));
    return Tensors{d_sum};
  };
  return work;
}

Work bias_gelu(const KernelItem& item, const cuda::FusedKernels& kernels, cuda::StreamHandle stream, const Inputs& in) {
  const at::Tensor input = in.rounded.clone(), activated = at::empty_like(input);
  const at::Tensor sum = in_fp64(in.rounded).add(in_fp64(in.bias));
  Work work;
  // GELU is taken of the rounded sum, which backward reads.
  work.error = compared_with({sum, at::gelu(in_fp64(sum.to(item.dtype)), "tanh")});
  work.reset = [=] { input.copy_(in.rounded); };
  if (!item.own) {
    const at::Tensor bias = in.bias.to(item.dtype);
    work.run = [=] {
      input.add_(bias);
      return Tensors{input, at::gelu(input, "tanh")};
    };
    return work;
  }
  work.run = [=, &kernels] {
    check_start(kernels.bias_gelu({.rows = item.rows,
                                   .columns = item.columns,
                                   .type = element_type(item.dtype),
                                   .bias = in.bias.const_data_ptr<float>(),
                                   .input = input.mutable_data_ptr(),
                                   .activated = activated.mutable_data_ptr()},
                                  stream));
    return Tensors{input, activated};
  };
  return work;
}

Work bias_gelu_grad(const KernelItem& item, const cuda::FusedKernels& kernels, cuda::StreamHandle stream,
                    const Inputs& in) {
  const at::Tensor d_activated = in.gradient.to(item.dtype), d_input = at::empty_like(d_activated);
  Work work;
  work.error = compared_with({at::gelu_backward(in_fp64(d_activated), in_fp64(in.rounded), "tanh")});
  if (!item.own) {
    work.run = [=] { return Tensors{at::gelu_backward(d_activated, in.rounded, "tanh")}; };
    return work;
  }
  work.run = [=, &kernels] {
    check_start(kernels.bias_gelu_grad({.rows = item.rows,
                                        .columns = item.columns,
                                        .type = element_type(item.dtype),
                                        .input = in.rounded.const_data_ptr(),
                                        .d_activated = d_activated.const_data_ptr(),
                                        .d_input = d_input.mutable_data_ptr()},
                                       stream));
    return Tensors{d_input};
  };
  return work;
}

}  // namespace

std::vector<KernelItem> kernel_items() {
  std::vector<KernelItem> items;
  for (const at::ScalarType dtype : {at::kBFloat16, at::kHalf}) {
    for (const int64_t rows : {8192, 16384}) {
      for (const int64_t hidden : {768, 2048, 2560}) {
        for (const Operation operation : kOperations) {
          KernelItem item;
          item.operation = operation;
          item.dtype = dtype;
          item.rows = rows;
          item.columns = is_norm(operation) ? hidden : 4 * hidden;
          item.name = fmt::format("{}, {} x {}, {}", name_of(operation), rows, item.columns,
                                  dtype == at::kHalf ? "fp16" : "bf16");
          item.shape = {{"rows", rows}, {"columns", item.columns}};
          for (const bool own : {true, false}) {
            item.own = own;
            item.candidate = own ? "own kernel" : "LibTorch";
            items.push_back(item);
          }
        }
      }
    }
  }
  return items;
}

double bytes_of(const KernelItem& item) {
  constexpr double kWide = 4.0, kNarrow = 2.0;
  const auto values = static_cast<double>(item.rows * item.columns);
  switch (item.operation) {
    case Operation::kResidualNorm:  // residual, sum; delta, normed
      return values * (2 * kWide + 2 * kNarrow);
    case Operation::kResidualNormGrad:  // d_normed, sum, and d_sum twice
      return values * 4 * kWide;
    case Operation::kBiasGelu:  // input twice, activated
    case Operation::kBiasGeluGrad:
      return values * 3 * kNarrow;
  }
  return 0.0;
}

Work work_of(const KernelItem& item, const cuda::FusedKernels& kernels, cuda::StreamHandle stream, at::Device device) {
  const Inputs inputs = inputs_of(item, device);
  switch (item.operation) {
    case Operation::kResidualNorm:
      return residual_norm(item, kernels, stream, inputs);
    case Operation::kResidualNormGrad:
      return residual_norm_grad(item, kernels, stream, inputs);
    case Operation::kBiasGelu:
      return bias_gelu(item, kernels, stream, inputs);
    case Operation::kBiasGeluGrad:
      break;
  }
  return bias_gelu_grad(item, kernels, stream, inputs);
}

}  // namespace neoloom::probes
