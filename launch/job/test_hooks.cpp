// SPDX-License-Identifier: Apache-2.0
#include "launch/job/test_hooks.h"

#include <chrono>
#include <csignal>
#include <cstdio>
#include <fstream>
#include <memory>
#include <new>
#include <string>
#include <thread>

#include "runtime/comm/launcher.h"
#include "runtime/core/environment.h"
#include "runtime/core/error.h"

namespace neoloom::launch {

namespace {

MicroBatchHook fault_from_environment(int rank) {
  const std::string text = core::environment("NEOLOOM_FAULT");
  if (text.empty() || text.find(":phase=") != std::string::npos) return {};
  char kind[8] = {};
  int who = 0;
  long long first_step = 0, min_rows = 1;
  const int fields =
      std::sscanf(text.c_str(), "%7[a-z]:rank=%d:step=%lld:rows=%lld", kind, &who, &first_step, &min_rows);
  const std::string name = kind;
  const bool known = name == "kill" || name == "oom" || name == "slow";
  core::require(fields >= 3 && known, core::ErrorKind::kUsage,
                "NEOLOOM_FAULT: expected kill:rank=R:step=S, oom:rank=R:step=S:rows=N or slow:rank=R:step=S, found {}",
                text);
  if (who != -1 && who != rank) return {};
  return [=](int64_t step, const std::vector<int64_t>& sample_ids) {
    const auto rows = static_cast<int64_t>(sample_ids.size());
    if (name == "kill" && step == first_step) std::raise(SIGKILL);
    if (name == "oom" && step >= first_step && rows >= min_rows) throw std::bad_alloc();
    if (name == "slow" && step >= first_step) std::this_thread::sleep_for(std::chrono::milliseconds(250));
  };
}

MicroBatchHook sample_trace_from_environment(int rank) {
  const std::string name = core::environment("NEOLOOM_TRACE_SAMPLES");
  if (name.empty()) return {};
  const std::string path = name + "." + std::to_string(rank);
  auto file = std::make_shared<std::ofstream>(path, std::ios::app);
  core::require(file->is_open(), core::ErrorKind::kUsage, "NEOLOOM_TRACE_SAMPLES: cannot append to {}", path);
  return [file](int64_t step, const std::vector<int64_t>& sample_ids) {
    *file << step;
    for (const int64_t id : sample_ids) *file << ' ' << id;
    *file << std::endl;  // each line at once: the process may be killed
  };
}

}  // namespace

MicroBatchHook micro_batch_hook_from_environment(int rank) {
  MicroBatchHook fault = fault_from_environment(rank);
  MicroBatchHook trace = sample_trace_from_environment(rank);
  if (!fault) return trace;
  if (!trace) return fault;
  // In this order, so that a trace lists only computed micro-batches.
  return [fault, trace](int64_t step, const std::vector<int64_t>& sample_ids) {
    fault(step, sample_ids);
    trace(step, sample_ids);
  };
}

PhaseHook phase_fault_from_environment() {
  const std::string text = core::environment("NEOLOOM_FAULT");
  const size_t at = text.find(":phase=");
  if (at == std::string::npos) return {};
  int who = 0, seconds = 0;
  const bool stops = std::sscanf(text.c_str(), "stop:rank=%d:phase=", &who) == 1;
  core::require(stops || std::sscanf(text.c_str(), "pause:rank=%d:seconds=%d:phase=", &who, &seconds) == 2,
                core::ErrorKind::kUsage,
                "NEOLOOM_FAULT: expected stop:rank=R:phase=NAME or pause:rank=R:seconds=N:phase=NAME, found {}", text);
  if (who != -1 && who != comm::rank_before_world()) return {};
  return [=, wanted = text.substr(at + 7)](const std::string& name) {
    if (name != wanted) return;
    if (stops) std::raise(SIGSTOP);
    std::this_thread::sleep_for(std::chrono::seconds(seconds));
  };
}

bool waits_are_forbidden() { return !core::environment("NEOLOOM_FORBID_WAITS").empty(); }

bool device_step_from_environment() {
  const std::string text = core::environment("NEOLOOM_STEP");
  if (text.empty()) return false;
  core::require(text == "device", core::ErrorKind::kUsage, "NEOLOOM_STEP: expected device, found {}", text);
  return true;
}

}  // namespace neoloom::launch
