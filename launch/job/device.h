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

/// This rank's device, ready for kernels, and the communicator over its memory.
class Device {
 public:
  /// Places the rank, selects its GPU, and, with runtime.deterministic, restricts LibTorch to deterministic kernels.
  /// Collective: every rank. Throws: see place().
  Device(comm::MpiSession& session, const RunConfig& config);

  const std::string& name() const { return placement_.device; }  // "cpu", "cuda:0"
  bool is_cpu() const { return placement_.device == "cpu"; }
  std::string kind() const;  // "cpu", or the GPU's name
  /// What the model's kernels are chosen by.
  const model::DeviceTraits& traits() const { return traits_; }
  int threads() const { return placement_.threads; }
  const std::string& explanation() const { return placement_.explanation; }
  comm::Communicator& communicator() { return *communicator_; }
  /// Peak resident memory of the process on CPUs, peak allocated memory on a GPU.
  int64_t peak_memory_bytes() const;
  /// How the host learns what the device computed; on CPUs it has.
  train::DeviceReads reads() const;
  /// What no process has taken of a GPU's memory; 0 on CPUs.
  int64_t free_memory_bytes() const { return plugin_ ? plugin_->free_memory_bytes() : 0; }
  /// On GPUs: whether LibTorch may make the host wait; see DevicePlugin::forbid_waits.
  void forbid_waits(bool forbidden) const {
    if (plugin_) plugin_->forbid_waits(forbidden);
  }
  /// Plays recorded kernels; empty on CPUs and without runtime.cuda_graphs. The device must outlive it.
  std::function<void(const cuda::RepeatedWork& work)> micro_step_runner() const;

 private:
  Placement placement_;
  model::DeviceTraits traits_;
  std::unique_ptr<cuda::DevicePlugin> plugin_;
  std::unique_ptr<cuda::GraphCache> graphs_;
  std::unique_ptr<comm::Communicator> communicator_;
};

/// What the model's kernels on GPU `index` of this process are chosen by, with deterministic ones.
model::DeviceTraits gpu_traits(cuda::DevicePlugin& plugin, int index);

/// Sets LibTorch's threads (and oneDNN's, MKL's) for this process.
void set_threads(int64_t threads);

}  // namespace neoloom::launch
