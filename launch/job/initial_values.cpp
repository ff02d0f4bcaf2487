// SPDX-License-Identifier: Apache-2.0
#include "launch/job/initial_values.h"

#include <ATen/ops/zeros.h>
#include <fmt/format.h>

#include "model/parameter_table.h"

namespace neoloom::launch {
namespace {

// Sends the values of each adapter from the rank that computed them (Model::Share).
void exchange(comm::MpiSession& session, const model::ParameterLayout& layout, at::Tensor& values) {
  int64_t adapters = 0;
  for (const model::ParameterSlot& slot : layout.slots) {
    if (slot.name.ends_with(model::kLoraASuffix)) ++adapters;  // its other tensors follow
    if (!model::is_of_adapter(slot.name)) continue;
    session.broadcast(values.mutable_data_ptr<float>() + slot.offset_elements,
                      static_cast<size_t>(slot.elements()) * sizeof(float),
                      static_cast<int>((adapters - 1) % session.size()));
  }
}

}  // namespace

at::Tensor initial_values(comm::MpiSession& session, const model::Model& model, uint64_t seed) {
  at::Tensor values = at::zeros({model.layout().total_elements}, at::kFloat);
  const auto& lora = model.setup().lora;
  const bool shared = lora && lora->init_lora_weights.decomposes();
  const model::Model::Share share =
      shared ? model::Model::Share{session.rank(), session.size()} : model::Model::Share{};
  const auto phase = session.phase("initialising the adapters", comm::MpiSession::kBuilding);
  if (shared && lora->init_lora_weights.splits_weights() && session.is_root()) {
    session.log().info(fmt::format("init_lora_weights {}: decomposing the frozen weight of each adapter",
                                   model::init_name(lora->init_lora_weights)));
  }
  session.run_on_all_or_fail([&] { model.initialize_share(values, seed, share); });
  if (shared && session.size() > 1) exchange(session, model.layout(), values);
  return values;
}

}  // namespace neoloom::launch
