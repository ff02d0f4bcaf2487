// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>

#include "runtime/comm/communicator.h"

namespace neoloom::cuda {

// Every NCCL and CUDA call of the plug-in, as two function tables. Tests replace them by fakes and need no driver. The
// production tables (nccl_api.cpp, device_api.cpp) only forward the calls.

using NcclHandle = void*;    // ncclComm_t
using StreamHandle = void*;  // cudaStream_t
using EventHandle = void*;   // cudaEvent_t
using GraphHandle = void*;   // a captured at::cuda::CUDAGraph
using NcclUniqueId = std::array<char, 128>;

inline constexpr int kNcclSuccess = 0;
inline constexpr int kNcclInProgress = 7;

/// Results are ncclResult_t.
struct NcclApi {
  std::function<int(int* version)> version;
  std::function<int(NcclUniqueId* id)> unique_id;
  /// ncclCommInitRankConfig with blocking = 0: returns before the communicator is ready.
  std::function<int(NcclHandle* comm, int size, const NcclUniqueId& id, int rank)> init_rank;
  std::function<int(void* data, size_t n_elements, comm::Element element, NcclHandle comm, StreamHandle stream)>
      all_reduce_sum;
  std::function<int(NcclHandle comm, int* state)> async_error;
  std::function<int(NcclHandle comm)> finalize;
  std::function<int(NcclHandle comm)> destroy;
  std::function<int(NcclHandle comm)> abort;
  std::function<std::string(int result)> error_text;
  std::function<std::string(NcclHandle comm)> last_error;
};

/// Results are cudaError_t; 0 is success.
struct DeviceApi {
  std::function<int(int* count)> device_count;
  std::function<int(int device, std::string* text)> device_name;
  std::function<int(int device, std::string* text)> pci_bus_id;
  std::function<int(int device, int64_t* bytes)> total_memory_bytes;
  std::function<int(int64_t* bytes)> free_memory_bytes;  // of the selected device
  std::function<int(int device, int* major, int* minor)> compute_capability;
  std::function<int(int* version)> driver_version;
  std::function<int(int* version)> runtime_version;
  std::function<int(int device)> select;
  std::function<int(StreamHandle* stream)> create_stream;
  std::function<int(StreamHandle stream)> destroy_stream;
  std::function<int(EventHandle* event)> create_event;
  std::function<int(EventHandle* event)> create_timed_event;
  std::function<int(EventHandle event)> destroy_event;
  std::function<int(EventHandle event, StreamHandle stream)> record_event;
  std::function<int(StreamHandle stream, EventHandle event)> wait_event;
  std::function<int(EventHandle event, bool* done)> query_event;  // done: the work before it on its stream is complete
  std::function<int(EventHandle begin, EventHandle end, double* seconds)> seconds_between;  // of timed events
  std::function<int(void** memory, size_t count_bytes)> allocate_pinned;
  std::function<int(void* memory)> free_pinned;
  std::function<std::string(int result)> error_text;
  /// CUDA graphs of the selected device. These functions throw LibTorch's exceptions.
  std::function<GraphHandle()> begin_capture;  // synchronizes the device, then captures this thread's work
  std::function<void(GraphHandle graph)> end_capture;
  std::function<void(GraphHandle graph)> replay_graph;  // on the current stream
  std::function<void(GraphHandle graph)> destroy_graph;
  std::function<size_t(GraphHandle graph)> count_nodes;  // kernels, copies and fills; after end_capture
  std::function<void(bool forbidden)> forbid_waits;      // see DevicePlugin::forbid_waits
  /// LibTorch's current stream on the selected device, and the peak of its allocator.
  std::function<StreamHandle()> current_stream;
  std::function<int64_t(int device)> peak_memory_bytes;
};

/// The production tables; defined in the plug-in only.
NcclApi nccl_api();
DeviceApi device_api();

}  // namespace neoloom::cuda
