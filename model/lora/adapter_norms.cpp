// SPDX-License-Identifier: Apache-2.0
#include "model/lora/adapter_norms.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/stack.h>
#include <fmt/format.h>

#include <string_view>
#include <unordered_map>

#include "model/lora/target_modules.h"

namespace neoloom::model {
namespace {

/// Returns the squares of the norms of A, B and s B A, [3]: |B A|^2 is the sum of (A A^T) * (B^T B).
at::Tensor squares_of(const at::Tensor& a, const at::Tensor& b, double scaling, int64_t rank) {
  const at::Tensor gram_a = at::mm(a, a.t());
  const at::Tensor gram_b = at::mm(b.t(), b);
  const auto trained = [rank](const at::Tensor& gram) { return gram.diagonal().narrow(0, 0, rank).sum(); };
  return at::stack({trained(gram_a), trained(gram_b), gram_a.mul(gram_b).sum().mul(scaling * scaling)});
}

}  // namespace

AdapterNorms adapter_norms(const Model& model, const at::Tensor& params) {
  AdapterNorms norms;
  if (!model.setup().lora) return norms;
  std::unordered_map<std::string_view, const ParameterSlot*> slots;
  for (const ParameterSlot& slot : model.layout().slots) slots[slot.name] = &slot;
  const int64_t layers = model.setup().config.num_layers;
  const AdapterMap map = adapter_map(*model.setup().lora, layers);
  std::vector<at::Tensor> rows;
  for (int64_t layer = 0; layer < layers; ++layer) {
    for (const LinearSite site : kLinearSites) {
      const AdapterShape& adapter = map[static_cast<size_t>(layer)][static_cast<size_t>(site)];
      if (!adapter.present()) continue;
      const std::string module = module_name(layer, site);
      const auto view = [&](const at::Tensor& buffer, std::string_view suffix) {
        const ParameterSlot& slot = *slots.at(fmt::format("{}{}{}", kPeftPrefix, module, suffix));
        return buffer.narrow(0, slot.offset_elements, slot.elements()).view(slot.shape).to(at::kDouble);
      };
      at::Tensor a = view(params, kLoraASuffix);
      at::Tensor b = view(params, kLoraBSuffix);
      if (const at::Tensor& initial = model.subtracted(); initial.defined()) {
        a = at::cat({a, view(initial, kLoraASuffix)}, 0);
        b = at::cat({b, view(initial, kLoraBSuffix).neg()}, 1);
      }
      rows.push_back(squares_of(a, b, adapter.scaling, adapter.rank));
    }
  }
  const at::Tensor found = at::stack(rows).clamp_min(0.0).sqrt().to(at::kCPU);  // rounding may leave less than 0
  const auto values = found.accessor<double, 2>();
  for (int64_t i = 0; i < found.size(0); ++i) {
    norms.a.push_back(values[i][0]);
    norms.b.push_back(values[i][1]);
    norms.update.push_back(values[i][2]);
  }
  return norms;
}

}  // namespace neoloom::model
