// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace neoloom::launch {

/// Called before a rank computes a micro-batch: the step, counted from 1, and the ids of the samples in it.
using MicroBatchHook = std::function<void(int64_t step, const std::vector<int64_t>& sample_ids)>;

/// Called when this rank enters a phase: see MpiSession::on_phase.
using PhaseHook = std::function<void(const std::string& name)>;

/// For tests: what $NEOLOOM_FAULT and $NEOLOOM_TRACE_SAMPLES turn on for this rank; empty for neither.
/// NEOLOOM_FAULT is "KIND:rank=R:step=S[:rows=N]", KIND one of
///   kill   SIGKILL of this process before its first micro-batch of step S
///   oom    std::bad_alloc before micro-batches of at least N rows, from step S on
///   slow   a pause of 0.25 s before each micro-batch, from step S on
/// or a phase fault, which is not for micro-batches. Rank -1 means every rank.
/// NEOLOOM_TRACE_SAMPLES=FILE appends one line "step id id ..." per computed micro-batch to FILE.<rank>.
/// Throws: Error(kUsage) for any other fault, or when the file cannot be opened.
MicroBatchHook micro_batch_hook_from_environment(int rank);

/// For tests: phase faults of $NEOLOOM_FAULT, "stop:rank=R:phase=NAME" (SIGSTOP) or
/// "pause:rank=R:seconds=N:phase=NAME", each time this process enters the phase; "start" is the phase before MPI_Init.
/// Takes the rank from the launcher's variables. Empty when the variable is not set or names another fault.
PhaseHook phase_fault_from_environment();

/// For tests: whether $NEOLOOM_FORBID_WAITS is set. If so, the host must not wait for its GPU in a step, except in the
/// first of a process, which copies the learning rates of thousands of steps to the device.
bool waits_are_forbidden();

/// For tests: whether $NEOLOOM_STEP=device, which makes a CPU run use the GPU's optimizer step. Throws: Error(kUsage)
/// for another value.
bool device_step_from_environment();

}  // namespace neoloom::launch
