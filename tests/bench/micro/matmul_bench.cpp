// SPDX-License-Identifier: Apache-2.0
// Measures GEMMs with frozen weights beside LibTorch's own: oneDNN with the weight packed ahead, and at::linear.
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/linear.h>
#include <fmt/format.h>

#include <memory>
#include <optional>

#include "model/cpu/aligned_rows.h"
#include "model/cpu/matmul.h"
#include "model/cpu/packed_gemm.h"
#include "model/cpu/packed_weights.h"
#include "model/scalar_type.h"
#include "tests/bench/micro/micro.h"

namespace neoloom::bench {
namespace {

struct Shape {
  int64_t rows, in, out;
};

/// Holds operands in the dtype of the GEMM, made when first needed.
struct Operands {
  at::Tensor x;         // [rows, in]
  at::Tensor weight;    // [out, in]
  at::Tensor expected;  // [rows, out] fp32
  at::Tensor packed;    // weight as the measured way packs it
  at::Tensor y;
};

using Prepare = std::function<void(Operands&)>;

double tolerance(at::ScalarType type, bool fp32_result) {
  if (type == at::kFloat) return 1e-5;
  return fp32_result ? 1e-5 : 1e-2;  // the library rounds its result to bfloat16
}

void add_way(const std::string& way, Shape shape, at::ScalarType type, const Prepare& pack,
             const std::function<void(Operands&)>& multiply) {
  const auto operands = std::make_shared<Operands>();
  const auto check = [=] {
    operands->x = model::empty_rows(shape.rows, shape.in, type);
    operands->x.copy_(random_matrix(shape.rows, shape.in, 1));
    operands->weight = random_matrix(shape.out, shape.in, 2).to(type);
    const at::Tensor expected = at::linear(operands->x.to(at::kFloat), operands->weight.to(at::kFloat));
    pack(*operands);
    multiply(*operands);
    return difference(operands->y, expected, tolerance(type, operands->y.scalar_type() == at::kFloat));
  };
  const auto rows = static_cast<double>(shape.rows);
  add_case(
      {fmt::format("gemm/{}/{}x{}/{}/{}", type == at::kFloat ? "fp32" : "bf16", shape.in, shape.out, shape.rows, way),
       check, [=] { multiply(*operands); },
       2.0 * rows * static_cast<double>(shape.in) * static_cast<double>(shape.out)});
}

at::Tensor reorder(const at::Tensor& weight, int64_t rows) {
  static const auto handle = c10::Dispatcher::singleton()
                                 .findSchemaOrThrow("mkldnn::_reorder_linear_weight", "")
                                 .typed<at::Tensor(const at::Tensor&, std::optional<int64_t>)>();
  return handle.call(weight, rows);
}

at::Tensor multiply_reordered(const at::Tensor& x, const at::Tensor& packed) {
  static const auto handle =
      c10::Dispatcher::singleton()
          .findSchemaOrThrow("mkldnn::_linear_pointwise", "")
          .typed<at::Tensor(const at::Tensor&, const at::Tensor&, const std::optional<at::Tensor>&, c10::string_view,
                            c10::List<std::optional<at::Scalar>>, std::optional<c10::string_view>)>();
  return handle.call(x, packed, std::nullopt, "none", c10::List<std::optional<at::Scalar>>(), std::nullopt);
}

void add_shape(Shape shape, model::Dtype dtype) {
  const at::ScalarType type = model::scalar_type(dtype);
  if (model::has_packed_gemm(dtype)) {
    add_way(
        "packed weights", shape, type,
        [=](Operands& operands) {
          operands.packed = model::pack_weights(operands.weight.t(), dtype);
          operands.y = model::empty_rows(shape.rows, shape.out, at::kFloat);
        },
        [=](Operands& operands) {
          model::packed_gemm(operands.x, {operands.packed, shape.in, shape.out}, {}, {.y = operands.y});
        });
  }
  if (model::has_packed_gemm(dtype) && type == at::kFloat) {
    // Computes as gradients of inputs are computed in fp32: with the right side as it is stored.
    add_way(
        "stored", shape, type,
        [=](Operands& operands) {
          operands.packed = operands.weight.t().contiguous();
          operands.y = model::empty_rows(shape.rows, shape.out, at::kFloat);
        },
        [=](Operands& operands) {
          model::packed_gemm(operands.x, {operands.packed, shape.in, shape.out}, {}, {.y = operands.y});
        });
  }
  add_way(
      "onednn", shape, type, [=](Operands& operands) { operands.packed = reorder(operands.weight, shape.rows); },
      [](Operands& operands) { operands.y = multiply_reordered(operands.x, operands.packed); });
  add_way(
      "linear", shape, type, [](Operands&) {},
      [](Operands& operands) { operands.y = at::linear(operands.x, operands.weight); });
}

}  // namespace

void register_gemms() {
  for (const model::Dtype dtype : {model::Dtype::kFloat32, model::Dtype::kBFloat16}) {
    if (model::cpu_compute_dtype(dtype) != dtype) continue;  // oneDNN refuses, too
    for (const int64_t rows : {1024, 64}) {
      for (const auto& [in, out] :
           {std::pair{768, 768}, {768, 3072}, {3072, 768}, {2048, 2048}, {2048, 8192}, {8192, 2048}, {768, 50257}}) {
        add_shape({rows, in, out}, dtype);
      }
    }
  }
}

}  // namespace neoloom::bench
