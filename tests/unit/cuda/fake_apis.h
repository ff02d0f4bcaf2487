// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "runtime/cuda/api.h"

namespace neoloom::cuda {

/// NCCL and CUDA as a list of what was called, with failures on request. Handles are small numbers.
struct FakeMachine {
  std::vector<std::string> calls;
  // NCCL
  int init_result = kNcclInProgress;
  int reduce_result = kNcclSuccess;
  int unique_id_result = kNcclSuccess;
  std::vector<int> async_states;  // consumed one per poll; then kNcclSuccess
  bool abort_hangs = false;
  NcclUniqueId joined_with{};
  // CUDA
  int devices = 2;
  std::string failing_call;  // this call returns 999
  int64_t pinned_blocks = 0;
  int64_t timed_events = 0;
  bool events_done = true;
  std::function<void()> played;  // what a replay does

  int note(const std::string& call) {
    calls.push_back(call);
    return call == failing_call ? 999 : 0;
  }
  int next_state() {
    if (async_states.empty()) return kNcclSuccess;
    const int state = async_states.front();
    // The last one stays when it is negative: "for ever".
    if (async_states.size() > 1 || state >= 0) async_states.erase(async_states.begin());
    return state < 0 ? -state : state;
  }
};

template <typename T>
T* handle(uintptr_t number) {
  return reinterpret_cast<T*>(number);
}

inline NcclApi fake_nccl(std::shared_ptr<FakeMachine> machine) {
  NcclApi api;
  api.version = [](int* version) { return *version = 22809, kNcclSuccess; };
  api.unique_id = [machine](NcclUniqueId* id) {
    id->fill(7);
    return machine->note("unique_id"), machine->unique_id_result;
  };
  api.init_rank = [machine](NcclHandle* comm, int size, const NcclUniqueId& id, int rank) {
    machine->note("init " + std::to_string(rank) + "/" + std::to_string(size));
    machine->joined_with = id;
    *comm = handle<void>(100);
    return machine->init_result;
  };
  api.all_reduce_sum = [machine](void*, size_t n, comm::Element, NcclHandle, StreamHandle stream) {
    machine->note("all_reduce " + std::to_string(n) + " on " + std::to_string(reinterpret_cast<uintptr_t>(stream)));
    return machine->reduce_result;
  };
  api.async_error = [machine](NcclHandle, int* state) { return *state = machine->next_state(), kNcclSuccess; };
  api.finalize = [machine](NcclHandle) { return machine->note("finalize"), kNcclSuccess; };
  api.destroy = [machine](NcclHandle) { return machine->note("destroy"), kNcclSuccess; };
  api.abort = [machine](NcclHandle) {
    if (machine->abort_hangs) {
      while (true) std::this_thread::sleep_for(std::chrono::hours(1));
    }
    return machine->note("abort"), kNcclSuccess;
  };
  api.error_text = [](int result) { return "nccl text " + std::to_string(result); };
  api.last_error = [](NcclHandle) { return std::string("socket closed by peer"); };
  return api;
}

inline DeviceApi fake_device(std::shared_ptr<FakeMachine> machine) {
  DeviceApi api;
  const auto number = [](void* pointer) { return std::to_string(reinterpret_cast<uintptr_t>(pointer)); };
  api.device_count = [machine](int* count) { return *count = machine->devices, machine->note("device_count"); };
  api.device_name = [machine](int i, std::string* text) {
    return *text = "Fake " + std::to_string(i), machine->note("device_name");
  };
  api.pci_bus_id = [machine](int i, std::string* text) {
    return *text = "0000:0" + std::to_string(i), machine->note("pci_bus_id");
  };
  api.total_memory_bytes = [machine](int, int64_t* bytes) { return *bytes = 1 << 30, machine->note("memory"); };
  api.free_memory_bytes = [machine](int64_t* bytes) { return *bytes = 1 << 29, machine->note("free memory"); };
  api.compute_capability = [machine](int, int* major, int* minor) {
    return *major = 9, *minor = 0, machine->note("capability");
  };
  api.driver_version = [machine](int* version) { return *version = 13010, machine->note("driver_version"); };
  api.runtime_version = [machine](int* version) { return *version = 13000, machine->note("runtime_version"); };
  api.select = [machine](int i) { return machine->note("select " + std::to_string(i)); };
  api.create_stream = [machine](StreamHandle* stream) {
    return *stream = handle<void>(50), machine->note("create_stream");
  };
  api.destroy_stream = [machine](StreamHandle) { return machine->note("destroy_stream"); };
  api.create_event = [machine](EventHandle* event) {
    static_cast<void>(machine->note("create_event"));
    const auto made = std::count(machine->calls.begin(), machine->calls.end(), "create_event");
    return *event = handle<void>(60 + static_cast<uintptr_t>(made)), 0;
  };
  api.create_timed_event = [machine](EventHandle* event) {
    static_cast<void>(machine->note("create_timed_event"));
    return *event = handle<void>(80 + static_cast<uintptr_t>(machine->timed_events++)), 0;
  };
  api.query_event = [machine](EventHandle, bool* done) { return *done = machine->events_done, 0; };
  api.seconds_between = [](EventHandle begin, EventHandle end, double* seconds) {
    // Events of a pair have neighbouring numbers.
    return *seconds = 0.25 * static_cast<double>(reinterpret_cast<uintptr_t>(end) - reinterpret_cast<uintptr_t>(begin)),
           0;
  };
  api.destroy_event = [machine](EventHandle) { return machine->note("destroy_event"); };
  api.record_event = [machine, number](EventHandle event, StreamHandle stream) {
    return machine->note("record " + number(event) + " on " + number(stream));
  };
  api.wait_event = [machine, number](StreamHandle stream, EventHandle event) {
    return machine->note(number(stream) + " waits " + number(event));
  };
  api.allocate_pinned = [machine](void** memory, size_t count_bytes) {
    *memory = ::operator new(count_bytes);
    ++machine->pinned_blocks;
    return machine->note("allocate_pinned");
  };
  api.free_pinned = [machine](void* memory) {
    ::operator delete(memory);
    --machine->pinned_blocks;
    return 0;
  };
  api.begin_capture = [machine] {
    if (machine->note("begin_capture") != 0) throw std::runtime_error("cannot record");
    return handle<void>(70);
  };
  api.end_capture = [machine](GraphHandle) {
    if (machine->note("end_capture") != 0) throw std::runtime_error("recording is invalid\nwith more lines");
  };
  api.replay_graph = [machine](GraphHandle) {
    machine->note("replay");
    if (machine->played) machine->played();
  };
  api.count_nodes = [](GraphHandle) { return size_t{7}; };
  api.forbid_waits = [machine](bool forbidden) { machine->note(forbidden ? "forbid waits" : "allow waits"); };
  api.destroy_graph = [machine](GraphHandle) { machine->note("destroy_graph"); };
  api.error_text = [](int result) { return "cuda text " + std::to_string(result); };
  api.current_stream = [] { return handle<void>(10); };
  api.peak_memory_bytes = [](int device) { return int64_t{1000} + device; };
  return api;
}

}  // namespace neoloom::cuda
