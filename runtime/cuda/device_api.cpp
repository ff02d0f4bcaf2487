// SPDX-License-Identifier: Apache-2.0
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAStream.h>
#include <cuda_runtime_api.h>

#include <array>

#include "runtime/cuda/api.h"
#include "runtime/cuda/recorded_graph.h"

namespace neoloom::cuda {
namespace {

cudaStream_t stream_of(StreamHandle stream) { return static_cast<cudaStream_t>(stream); }
cudaEvent_t event_of(EventHandle event) { return static_cast<cudaEvent_t>(event); }

int device_name(int device, std::string* text) {
  cudaDeviceProp properties;
  const cudaError_t result = cudaGetDeviceProperties(&properties, device);
  if (result == cudaSuccess) *text = properties.name;
  return result;
}

int pci_bus_id(int device, std::string* text) {
  std::array<char, 32> id{};
  const cudaError_t result = cudaDeviceGetPCIBusId(id.data(), static_cast<int>(id.size()), device);
  if (result == cudaSuccess) *text = id.data();
  return result;
}

int total_memory_bytes(int device, int64_t* bytes) {
  cudaDeviceProp properties;
  const cudaError_t result = cudaGetDeviceProperties(&properties, device);
  if (result == cudaSuccess) *bytes = static_cast<int64_t>(properties.totalGlobalMem);
  return result;
}

int free_memory_bytes(int64_t* bytes) {
  size_t free = 0;
  size_t total = 0;
  const cudaError_t result = cudaMemGetInfo(&free, &total);
  if (result == cudaSuccess) *bytes = static_cast<int64_t>(free);
  return result;
}

int compute_capability(int device, int* major, int* minor) {
  const cudaError_t result = cudaDeviceGetAttribute(major, cudaDevAttrComputeCapabilityMajor, device);
  if (result != cudaSuccess) return result;
  return cudaDeviceGetAttribute(minor, cudaDevAttrComputeCapabilityMinor, device);
}

int create_stream(StreamHandle* stream) {
  cudaStream_t created = nullptr;
  int least = 0, greatest = 0;
  const cudaError_t known = cudaDeviceGetStreamPriorityRange(&least, &greatest);
  if (known != cudaSuccess) return known;
  // Non-blocking: events alone order this stream, not the legacy default stream. It has the highest priority, because
  // sums are short and peers wait for them.
  const cudaError_t result = cudaStreamCreateWithPriority(&created, cudaStreamNonBlocking, greatest);
  *stream = created;
  return result;
}

int create_event(EventHandle* event) {
  cudaEvent_t created = nullptr;
  const cudaError_t result = cudaEventCreateWithFlags(&created, cudaEventDisableTiming);
  *event = created;
  return result;
}

int create_timed_event(EventHandle* event) {
  cudaEvent_t created = nullptr;
  const cudaError_t result = cudaEventCreate(&created);
  *event = created;
  return result;
}

int query_event(EventHandle event, bool* done) {
  const cudaError_t result = cudaEventQuery(event_of(event));
  *done = result == cudaSuccess;
  return result == cudaErrorNotReady ? cudaSuccess : result;
}

int seconds_between(EventHandle begin, EventHandle end, double* seconds) {
  float milliseconds = 0.0F;
  const cudaError_t result = cudaEventElapsedTime(&milliseconds, event_of(begin), event_of(end));
  *seconds = static_cast<double>(milliseconds) * 1e-3;
  return result;
}

int64_t peak_memory_bytes(int device) {
  using c10::CachingAllocator::StatType;
  const auto stats = c10::cuda::CUDACachingAllocator::getDeviceStats(static_cast<c10::DeviceIndex>(device));
  return stats.allocated_bytes[static_cast<size_t>(StatType::AGGREGATE)].peak;
}

}  // namespace

DeviceApi device_api() {
  DeviceApi api;
  api.device_count = [](int* count) { return static_cast<int>(cudaGetDeviceCount(count)); };
  api.device_name = device_name;
  api.pci_bus_id = pci_bus_id;
  api.total_memory_bytes = total_memory_bytes;
  api.free_memory_bytes = free_memory_bytes;
  api.compute_capability = compute_capability;
  api.driver_version = [](int* version) { return static_cast<int>(cudaDriverGetVersion(version)); };
  api.runtime_version = [](int* version) { return static_cast<int>(cudaRuntimeGetVersion(version)); };
  api.select = [](int device) { return static_cast<int>(cudaSetDevice(device)); };
  api.create_stream = create_stream;
  api.destroy_stream = [](StreamHandle stream) { return static_cast<int>(cudaStreamDestroy(stream_of(stream))); };
  api.create_event = create_event;
  api.create_timed_event = create_timed_event;
  api.destroy_event = [](EventHandle event) { return static_cast<int>(cudaEventDestroy(event_of(event))); };
  api.record_event = [](EventHandle event, StreamHandle stream) {
    return static_cast<int>(cudaEventRecord(event_of(event), stream_of(stream)));
  };
  api.wait_event = [](StreamHandle stream, EventHandle event) {
    return static_cast<int>(cudaStreamWaitEvent(stream_of(stream), event_of(event), 0));
  };
  api.query_event = query_event;
  api.seconds_between = seconds_between;
  api.allocate_pinned = [](void** memory, size_t count_bytes) {
    return static_cast<int>(cudaHostAlloc(memory, count_bytes, cudaHostAllocPortable));
  };
  api.free_pinned = [](void* memory) { return static_cast<int>(cudaFreeHost(memory)); };
  api.error_text = [](int result) { return std::string(cudaGetErrorString(static_cast<cudaError_t>(result))); };
  api.forbid_waits = [](bool forbidden) {
    c10::cuda::warning_state().set_sync_debug_mode(forbidden ? c10::cuda::SyncDebugMode::L_ERROR
                                                             : c10::cuda::SyncDebugMode::L_DISABLED);
  };
  api.current_stream = []() -> StreamHandle { return c10::cuda::getCurrentCUDAStream().stream(); };
  api.peak_memory_bytes = peak_memory_bytes;
  add_graph_calls(api);
  return api;
}

}  // namespace neoloom::cuda
