// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "launch/config/run_config.h"
#include "launch/system/placement.h"
#include "model/device_traits.h"
#include "runtime/comm/communicator.h"
#include "runtime/comm/mpi_session.h"
#include "runtime/cuda/plugin.h"
#include "runtime/train/update.h"

namespace neoloom::launch {

/// Owns this rank's device, ready for kernels, and the communicator over its memory.
class Device {
 public:
  /// Places the rank, selects its GPU, and, with runtime.deterministic, restricts LibTorch to deterministic kernels.
  /// Collective: every rank. Throws: see assign_devices().
  Device(comm::MpiSession& session, const RunConfig& config);

  const std::string& name() const { return placement_.device; }  // "cpu", "cuda:0"
  bool is_cpu() const { return placement_.device == "cpu"; }
  std::string kind() const;  // "cpu", or the GPU's name
  /// The properties by which the model chooses kernels.
  const model::DeviceTraits& traits() const { return traits_; }
  int threads() const { return placement_.threads; }
  const std::string& explanation() const { return placement_.explanation; }
  comm::Communicator& communicator() { return *communicator_; }
  /// Peak resident memory of the process on CPUs, peak allocated memory on a GPU.
  int64_t peak_memory_bytes() const;
  /// How the host reads results of a GPU; on CPUs they are ready at once.
  train::DeviceReadback readback() const;
  /// Memory of a GPU that no process has allocated; 0 on CPUs.
  int64_t free_memory_bytes() const { return plugin_ ? plugin_->free_memory_bytes() : 0; }
  /// Calls DevicePlugin::forbid_waits on GPUs; does nothing on CPUs.
  void forbid_waits(bool forbidden) const {
    if (plugin_) plugin_->forbid_waits(forbidden);
  }
  /// Returns GraphCache::run, which the device must outlive; empty on CPUs and without runtime.cuda_graphs.
  std::function<void(const cuda::RepeatedWork& work)> micro_step_runner() const;

 private:
  Placement placement_;
  model::DeviceTraits traits_;
  std::unique_ptr<cuda::DevicePlugin> plugin_;
  std::unique_ptr<cuda::GraphCache> graphs_;
  std::unique_ptr<comm::Communicator> communicator_;
};

/// Returns the index of a GPU's name, "cuda:0".
int device_index(const std::string& name);

/// Returns the traits of GPU `index` of this process, with deterministic kernels.
model::DeviceTraits gpu_traits(cuda::DevicePlugin& plugin, int index);

/// Sets LibTorch's threads (and oneDNN's, MKL's) for this process.
void set_threads(int64_t threads);

}  // namespace neoloom::launch
