// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "runtime/comm/communicator.h"
#include "runtime/comm/mpi_session.h"
#include "runtime/cuda/graph_cache.h"

namespace neoloom::cuda {

/// The GPU side, implemented in libneoloom_cuda.so so that CPU runs load neither CUDA nor NCCL. No CUDA type appears
/// here. Numbers i count the devices visible to this process.
/// Thread: one thread at a time.
class DevicePlugin {
 public:
  virtual ~DevicePlugin() = default;

  virtual int device_count() = 0;
  virtual std::string device_name(int i) = 0;
  /// PCI bus id: the same for one GPU in every process of a host, whatever CUDA_VISIBLE_DEVICES numbers it.
  virtual std::string device_id(int i) = 0;
  virtual int64_t total_memory_bytes(int i) = 0;
  /// What no process has taken of the selected device's memory.
  virtual int64_t free_memory_bytes() = 0;
  /// "9.0"
  virtual std::string compute_capability(int i) = 0;
  /// E.g. "13.0", "13.0", "2.28.9".
  virtual std::string driver_version() = 0;
  virtual std::string runtime_version() = 0;
  virtual std::string nccl_version() = 0;

  /// Makes device i current for this thread. Throws: Error(kDevice).
  virtual void select(int i) = 0;
  /// A communicator over memory of the selected device. Its unique id travels by MPI.
  /// Collective: every rank, after select. Throws: Error(kPeer).
  virtual std::unique_ptr<comm::Communicator> make_communicator(comm::MpiSession& session) = 0;
  /// A communicator of this rank alone, after select. Throws: Error(kPeer).
  virtual std::unique_ptr<comm::Communicator> make_lone_communicator() = 0;
  /// Graphs of the selected device; `log` gets a line for each shape of work.
  virtual std::unique_ptr<GraphCache> make_graph_cache(std::function<void(const std::string& text)> log) = 0;
  /// The returned function says, without waiting, whether the current stream has done what is enqueued now.
  /// Both throw: Error(kDevice).
  virtual std::function<bool()> mark() = 0;
  /// Largest amount of device memory that LibTorch's allocator held for tensors of the selected device.
  virtual int64_t peak_memory_bytes() = 0;
  /// Page-locked host memory, for copies that overlap with computation. Throws: Error(kDevice).
  virtual std::shared_ptr<void> pinned_memory(size_t count_bytes) = 0;
  /// Matmul accumulate in full precision; with `deterministic` LibTorch is also restricted to kernels with the same
  /// bits in every run. Call before the first kernel.
  virtual void restrict_kernels(bool deterministic) = 0;
  /// While forbidden, an operator of LibTorch that makes the host wait for the device throws c10::Error.
  virtual void forbid_waits(bool forbidden) = 0;
};

/// What the plug-in must have been built with: changes whenever this header or comm's change.
inline constexpr int kPluginInterface = 5;

/// True when an NVIDIA device node exists. Asks CUDA nothing.
bool gpu_present();

/// Loads the plug-in: $NEOLOOM_PLUGIN, else libneoloom_cuda.so beside the executable. Call it before anything asks
/// LibTorch about CUDA, which would keep its CPU-only hooks. It stays loaded; calling again gives another object.
/// Throws: Error(kDevice) saying what is missing: no GPU, no plug-in, a plug-in of another build, no usable driver.
std::unique_ptr<DevicePlugin> load_device_plugin();

}  // namespace neoloom::cuda
