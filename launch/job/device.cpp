// SPDX-License-Identifier: Apache-2.0
#include "launch/job/device.h"

#include <ATen/Parallel.h>

#include <cstdlib>

#include "runtime/metrics/events.h"

namespace neoloom::launch {

int device_index(const std::string& name) { return std::stoi(name.substr(name.find(':') + 1)); }

Device::Device(comm::MpiSession& session, const RunConfig& config)
    : placement_(assign_devices(session, config.runtime.device, config.runtime.threads_per_rank)) {
  const auto phase = session.phase("choosing devices");
  set_threads(placement_.threads);
  if (is_cpu()) {
    communicator_ = session.make_host_communicator();
    return;
  }
  session.run_on_all_or_fail([&] {
    plugin_ = cuda::load_device_plugin();
    plugin_->restrict_kernels(config.runtime.deterministic);
    plugin_->select(device_index(name()));
    traits_ = gpu_traits(*plugin_, device_index(name()));
    traits_.deterministic = config.runtime.deterministic;
  });
  if (config.runtime.cuda_graphs) {
    graphs_ = plugin_->make_graph_cache([&session](const std::string& text) {
      if (session.is_root()) session.log().info(text);
    });
  }
  const auto bounded = session.guard();
  communicator_ = plugin_->make_communicator(session);
}

model::DeviceTraits gpu_traits(cuda::DevicePlugin& plugin, int index) {
  model::DeviceTraits traits;
  traits.cuda = true;
  const std::string capability = plugin.compute_capability(index);  // "9.0"
  traits.capability_major = std::stoi(capability);
  traits.capability_minor = std::stoi(capability.substr(capability.find('.') + 1));
  return traits;
}

std::string Device::kind() const { return is_cpu() ? "cpu" : plugin_->device_name(device_index(name())); }

int64_t Device::peak_memory_bytes() const {
  return is_cpu() ? metrics::peak_resident_bytes() : plugin_->peak_memory_bytes();
}

std::function<void(const cuda::RepeatedWork&)> Device::micro_step_runner() const {
  if (!graphs_) return {};
  return [graphs = graphs_.get()](const cuda::RepeatedWork& work) { graphs->run(work); };
}

train::DeviceReadback Device::readback() const {
  if (is_cpu()) {
    return {[] { return [] { return true; }; },
            [](size_t count_bytes) { return std::shared_ptr<void>(std::malloc(count_bytes), std::free); }};
  }
  return {[this] { return plugin_->record_event(); },
          [this](size_t count_bytes) { return plugin_->pinned_memory(count_bytes); }};
}

void set_threads(int64_t threads) { at::set_num_threads(static_cast<int>(threads)); }

}  // namespace neoloom::launch
