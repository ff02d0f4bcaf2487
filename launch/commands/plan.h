// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "launch/command_line.h"
#include "launch/job/inputs.h"
#include "runtime/comm/mpi_session.h"

namespace neoloom::launch {

struct PlanRequest {
  int64_t ranks = 1;
  int64_t ranks_per_node = 1;
  int64_t cores = 1;            // of a node like this one
  bool planned = false;         // the ranks are not here: it is said what is assumed about their machines
  bool measures_speed = false;  // CPUs: how long the steps' products take here
};

/// Reads the model's header and the data, prints what a run would do (counts, lengths, label histogram, steps, bytes
/// per all-reduce, memory of a rank, on request the time) on standard output, and leaves nothing behind. On one rank.
/// Throws: whatever the run itself would refuse of data and configuration; Error(kDevice) when the plan does not fit a
/// chosen runtime.memory_budget.
void print_plan(const Inputs& inputs, const PlanRequest& request);

/// `neoloom plan`. Returns 0. Throws: see print_plan.
int run_plan(comm::MpiSession& session, const PlanArguments& arguments);

}  // namespace neoloom::launch
