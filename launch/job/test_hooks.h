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

/// Fault injection for tests, from $NEOLOOM_FAULT: "KIND:rank=R:step=S[:rows=N]", KIND one of
///   kill   SIGKILL of this process before its first micro-batch of step S
///   oom    std::bad_alloc before micro-batches of at least N rows, from step S on
///   slow   a pause of 0.25 s before each micro-batch, from step S on
/// Rank -1 means every rank. Empty when the variable is not set or holds a fault of phases.
/// Throws: Error(kUsage) for a text of another form.
MicroBatchHook fault_from_environment(int rank);

/// The same with "stop:rank=R:phase=NAME" or "pause:rank=R:seconds=N:phase=NAME": SIGSTOP of this process, or a pause,
/// whenever it enters the phase of this name; "start" is the phase before MPI_Init. The launcher says which rank this
/// is. Empty when the variable is not set or holds another fault.
PhaseHook phase_fault_from_environment();

/// For tests: with $NEOLOOM_TRACE_SAMPLES=FILE, appends one line "step id id ..." per micro-batch to FILE.<rank>.
/// Empty when the variable is not set. Throws: Error(kUsage) when the file cannot be opened.
MicroBatchHook sample_trace_from_environment(int rank);

/// For tests: whether $NEOLOOM_FORBID_WAITS is set: then a GPU's host must not wait in a step, but in the first of a
/// process, which uploads the schedule of the next thousands.
bool waits_are_forbidden();

/// For tests: $NEOLOOM_STEP=device makes the optimizer step of a CPU run as GPUs make it. Throws: Error(kUsage) for
/// another value.
bool device_step_from_environment();

/// The fault and the trace, in this order, so that a trace holds only what was computed. Empty when neither is asked
/// for.
MicroBatchHook micro_batch_hook_from_environment(int rank);

}  // namespace neoloom::launch
