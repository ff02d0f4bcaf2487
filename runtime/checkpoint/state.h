// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace neoloom::checkpoint {

/// Where a named trainable tensor lies in the flat buffers.
struct IndexEntry {
  std::string name;            // PEFT's key, e.g. base_model.model.transformer.h.0.attn.attention.q_proj.lora_A.weight
  std::vector<int64_t> shape;  // row-major
  int64_t offset_elements = 0;
  bool operator==(const IndexEntry&) const = default;
};

/// Everything a run needs to go on, and nothing that depends on the number of ranks or on the clock.
/// Equal states serialise to equal bytes.
struct State {
  std::vector<IndexEntry> index;
  std::vector<float> params;        // [n], flat
  std::string optimizer = "adamw";  // whose moments these are; FORMAT.md says their lengths, [n] for AdamW
  std::vector<float> exp_avg, exp_avg_sq;
  std::vector<uint8_t> exp_avg_codes, exp_avg_sq_codes;  // of 8-bit moments; else empty
  std::vector<float> best_params;     // [n] of best_step; empty if best_step == step or the run does not keep them
  std::vector<float> initial_params;  // [n] at the start; empty unless the model computes with them (PiSSA, OLoRA)
  int64_t step = 0;                   // optimizer updates done
  int64_t epoch = 0;                  // cursor: the next step is `step_in_epoch` of `epoch`
  int64_t step_in_epoch = 0;
  double loss_scale = 1.0;
  int64_t good_steps = 0;     // since the loss scale last changed
  int64_t skipped_steps = 0;  // so far: non-finite ones and loss spikes
  double best_metric = 0.0;   // meaningful when best_step >= 0
  int64_t best_step = -1;
  std::string config;     // resolved configuration, YAML
  std::string identity;   // JSON object: what must be equal for this state to belong to a run
  std::string label_map;  // JSON array of class names in index order, or "[]"
  std::string history;    // JSON object: the metrics of the run without times, and what evaluations decided; FORMAT.md
};

}  // namespace neoloom::checkpoint
