// SPDX-License-Identifier: Apache-2.0
// checkpoint_tool write FOLDER < state.json     publishes a state
// checkpoint_tool read FILE                     prints the state of a checkpoint as the same JSON
// For tests that compare with other HDF5 programs.
#include <iostream>
#include <nlohmann/json.hpp>

#include "runtime/checkpoint/directory.h"
#include "runtime/core/error.h"

namespace {

using neoloom::checkpoint::State;
using nlohmann::json;

// Calls `field(name, member)` for every plain member, in both directions.
template <typename AnyState, typename Field>
void for_each_field(AnyState& state, Field field) {
  field("params", state.params);
  field("exp_avg", state.exp_avg);
  field("exp_avg_sq", state.exp_avg_sq);
  field("step", state.step);
  field("epoch", state.epoch);
  field("step_in_epoch", state.step_in_epoch);
  field("loss_scale", state.loss_scale);
  field("good_steps", state.good_steps);
  field("skipped_steps", state.skipped_steps);
  field("best_metric", state.best_metric);
  field("best_step", state.best_step);
  field("config", state.config);
  field("identity", state.identity);
  field("label_map", state.label_map);
  field("history", state.history);
}

State state_of(const json& document) {
  State state;
  for_each_field(state, [&](const char* name, auto& member) { document.at(name).get_to(member); });
  if (document.contains("best_params")) document["best_params"].get_to(state.best_params);
  if (document.contains("initial_params")) document["initial_params"].get_to(state.initial_params);
  for (const json& entry : document.at("index")) state.index.push_back({entry.at(0), entry.at(1), entry.at(2)});
  return state;
}

json document_of(const State& state) {
  json document = {{"index", json::array()}};
  for_each_field(state, [&](const char* name, const auto& member) { document[name] = member; });
  for (const auto& entry : state.index) {
    document["index"].push_back(json::array({entry.name, entry.shape, entry.offset_elements}));
  }
  if (!state.best_params.empty()) document["best_params"] = state.best_params;
  if (!state.initial_params.empty()) document["initial_params"] = state.initial_params;
  return document;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    const std::string verb = argc == 3 ? argv[1] : "";
    if (verb == "write") {
      neoloom::checkpoint::Directory(argv[2]).publish(state_of(json::parse(std::cin)));
    } else if (verb == "read") {
      std::cout << document_of(neoloom::checkpoint::load(argv[2])).dump() << "\n";
    } else {
      std::cerr << "usage: checkpoint_tool write FOLDER | read FILE\n";
      return 2;
    }
  } catch (const neoloom::core::Error& error) {
    std::cerr << error.what() << "\n";
    return error.exit_code();
  }
  return 0;
}
