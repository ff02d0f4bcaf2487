// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "runtime/comm/communicator.h"
#include "runtime/comm/mpi_session.h"
#include "runtime/cuda/fused_kernels.h"
#include "runtime/cuda/graph_cache.h"

namespace neoloom::cuda {

/// What needs CUDA or NCCL, implemented in libneoloom_cuda.so so that CPU runs load neither. No CUDA type appears here.
/// `i` is the index of a device among those visible to this process.
/// Thread: one thread at a time.
class DevicePlugin {
 public:
  virtual ~DevicePlugin() = default;

  virtual int device_count() = 0;
  virtual std::string device_name(int i) = 0;
  /// PCI bus id: the same for one GPU in every process of a host, whatever index CUDA_VISIBLE_DEVICES gives it.
  virtual std::string device_id(int i) = 0;
  virtual int64_t total_memory_bytes(int i) = 0;
  /// Memory of the selected device that no process has allocated.
  virtual int64_t free_memory_bytes() = 0;
  /// "9.0"
  virtual std::string compute_capability(int i) = 0;
  /// E.g. "13.0", "13.0", "2.28.9".
  virtual std::string driver_version() = 0;
  virtual std::string runtime_version() = 0;
  virtual std::string nccl_version() = 0;

  /// Makes device i current for this thread. Throws: Error(kDevice).
  virtual void select(int i) = 0;
  /// A communicator over memory of the selected device. MPI broadcasts its ncclUniqueId.
  /// Collective: every rank, after select. Throws: Error(kPeer).
  virtual std::unique_ptr<comm::Communicator> make_communicator(comm::MpiSession& session) = 0;
  /// A communicator of this rank alone. Call after select. Throws: Error(kPeer).
  virtual std::unique_ptr<comm::Communicator> make_lone_communicator() = 0;
  /// CUDA graphs of the selected device. `log` gets one line for each shape of work.
  virtual std::unique_ptr<GraphCache> make_graph_cache(std::function<void(const std::string& text)> log) = 0;
  /// Records an event on the current stream. The returned function queries it: whether all work enqueued before is
  /// done.
  /// Both throw: Error(kDevice).
  virtual std::function<bool()> record_event() = 0;
  /// Largest amount of device memory that LibTorch's allocator held for tensors of the selected device.
  virtual int64_t peak_memory_bytes() = 0;
  /// Pinned host memory, for copies that overlap with computation. Throws: Error(kDevice).
  virtual std::shared_ptr<void> pinned_memory(size_t count_bytes) = 0;
  /// Makes LibTorch's matmuls accumulate in full precision. With `deterministic`, also restricts LibTorch to
  /// deterministic kernels. Call before the first kernel.
  virtual void restrict_kernels(bool deterministic) = 0;
  /// While forbidden, an ATen operator that synchronizes the host with the device throws c10::Error.
  virtual void forbid_waits(bool forbidden) = 0;
  /// neoloom's own kernels, for the selected device.
  virtual const FusedKernels& fused_kernels() const = 0;
  /// The stream on which LibTorch starts its kernels, of the selected device.
  virtual StreamHandle current_stream() const = 0;
};

/// ABI version that the plug-in must have been built with. Raise it when this header or those of comm change.
inline constexpr int kPluginInterface = 6;

/// True when an NVIDIA device node exists. Does not call CUDA.
bool gpu_present();

/// Whether the plug-in is where load_device_plugin looks for it; a build for CPUs alone has none.
bool plugin_present();

/// Loads the plug-in: $NEOLOOM_PLUGIN, else libneoloom_cuda.so beside the executable. Call it before anything asks
/// LibTorch about CUDA, since LibTorch would then keep its CPU-only hooks. The library stays loaded; another call
/// returns another object.
/// Throws: Error(kDevice) saying what is missing: no GPU, no plug-in, a plug-in of another build, no usable driver.
std::unique_ptr<DevicePlugin> load_device_plugin();

}  // namespace neoloom::cuda
