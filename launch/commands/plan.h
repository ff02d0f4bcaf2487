// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "launch/command_line.h"
#include "launch/job/inputs.h"
#include "launch/planning/gemm_rates.h"
#include "launch/planning/step_estimate.h"
#include "runtime/comm/mpi_session.h"
#include "runtime/core/progress.h"

namespace neoloom::launch {

struct PlanRequest {
  int64_t ranks = 1;
  int64_t ranks_per_node = 1;
  int64_t cores = 1;           // of a node like this one
  bool planned = false;        // the ranks are hypothetical: the output states the assumptions about their machines
  GemmRates* rates = nullptr;  // for the expected time; null: without it
  bool measures = false;       // measure and save the rates of this configuration first
  StatedDevice device{};       // of a planned rank
  Network network{};
  core::BeginWork show{};  // progress of the tokenisation
};

/// Reads the headers of the model's files and the data, and prints what a run would do to standard output: counts,
/// lengths, label histogram, steps, bytes per all-reduce, memory of a rank, and optionally the largest micro-batch and
/// the time at several numbers of ranks. Leaves no files but measured rates. Call it on one rank. Throws: what the run
/// would throw for its data and configuration; Error(kDevice) when the plan does not fit a runtime.memory_budget other
/// than auto, or the memory of a stated device.
void print_plan(const Inputs& inputs, const PlanRequest& request);

/// `neoloom plan`. Returns 0. Throws: see print_plan.
int run_plan(comm::MpiSession& session, const PlanArguments& arguments);

}  // namespace neoloom::launch
