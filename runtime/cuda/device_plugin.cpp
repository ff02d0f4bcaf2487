// SPDX-License-Identifier: Apache-2.0
#include "runtime/cuda/device_plugin.h"

#include <algorithm>
#include <utility>

#include "runtime/core/error.h"
#include "runtime/cuda/check.h"
#include "runtime/cuda/nccl_communicator.h"

namespace neoloom::cuda {
namespace {

using core::ErrorKind;

// 13000 -> "13.0"
std::string cuda_version_text(int version) { return fmt::format("{}.{}", version / 1000, version % 1000 / 10); }

class DevicePluginImpl final : public DevicePlugin {
 public:
  DevicePluginImpl(NcclApi nccl, DeviceApi device, FusedKernels kernels, std::function<void(bool)> restrict_kernels)
      : nccl_(std::move(nccl)),
        device_(std::move(device)),
        kernels_(std::move(kernels)),
        restrict_kernels_(std::move(restrict_kernels)) {}

  int device_count() override {
    int count = 0;
    const int result = device_.device_count(&count);
    core::require(result == 0, ErrorKind::kDevice,
                  "This machine has a GPU, but CUDA cannot use it: {} (error {}). "
                  "Check the driver with nvidia-smi, or set runtime.device: cpu",
                  result == 0 ? "" : device_.error_text(result), result);
    return count;
  }

  std::string device_name(int i) override {
    std::string text;
    check_device(device_, device_.device_name(i, &text), "device name");
    return text;
  }

  std::string device_id(int i) override {
    std::string text;
    check_device(device_, device_.pci_bus_id(i, &text), "PCI bus id");
    return text;
  }

  int64_t total_memory_bytes(int i) override {
    int64_t bytes = 0;
    check_device(device_, device_.total_memory_bytes(i, &bytes), "device properties");
    return bytes;
  }

  int64_t free_memory_bytes() override {
    int64_t bytes = 0;
    check_device(device_, device_.free_memory_bytes(&bytes), "free device memory");
    return bytes;
  }

  std::string compute_capability(int i) override {
    int major = 0, minor = 0;
    check_device(device_, device_.compute_capability(i, &major, &minor), "compute capability");
    return fmt::format("{}.{}", major, minor);
  }

  std::string driver_version() override {
    int version = 0;
    check_device(device_, device_.driver_version(&version), "driver version");
    return cuda_version_text(version);
  }

  std::string runtime_version() override {
    int version = 0;
    check_device(device_, device_.runtime_version(&version), "runtime version");
    return cuda_version_text(version);
  }

  std::string nccl_version() override {
    int version = 0;
    const int result = nccl_.version(&version);
    core::require(result == kNcclSuccess, ErrorKind::kDevice, "ncclGetVersion failed with {}", result);
    return nccl_version_text(version);
  }

  void select(int i) override {
    const int count = device_count();
    core::require(i >= 0 && i < count, ErrorKind::kDevice,
                  "Device cuda:{} was requested, but there are {} (cuda:0 to cuda:{})", i, count, count - 1);
    check_device(device_, device_.select(i), "select device");
    selected_ = i;
  }

  std::unique_ptr<comm::Communicator> make_communicator(comm::MpiSession& session) override {
    NcclSetup setup;
    setup.rank = session.rank();
    setup.size = session.size();
    // Longer than the peer timeout, so that the watchdog prints first: it can say which rank is missing.
    setup.init_deadline_seconds = 2 * session.peer_timeout_seconds();
    setup.call_deadline_seconds = std::max(setup.call_deadline_seconds, 2 * session.peer_timeout_seconds());
    setup.broadcast = [&session](void* bytes, size_t count_bytes) { session.broadcast(bytes, count_bytes, 0); };
    return join(setup);
  }

  std::unique_ptr<comm::Communicator> make_lone_communicator() override {
    NcclSetup setup;
    setup.broadcast = [](void*, size_t) {};
    return join(setup);
  }

  std::unique_ptr<GraphCache> make_graph_cache(std::function<void(const std::string&)> log) override {
    return std::make_unique<GraphCache>(device_, std::move(log));
  }

  std::function<bool()> record_event() override {
    EventHandle created = nullptr;
    check_device(device_, device_.create_event(&created), "create event");
    const std::shared_ptr<void> event(created, [destroy = device_.destroy_event](void* handle) { destroy(handle); });
    check_device(device_, device_.record_event(created, device_.current_stream()), "record event");
    return [device = device_, event] {
      bool done = false;
      check_device(device, device.query_event(event.get(), &done), "query event");
      return done;
    };
  }

  int64_t peak_memory_bytes() override { return device_.peak_memory_bytes(std::max(selected_, 0)); }

  std::shared_ptr<void> pinned_memory(size_t count_bytes) override {
    void* memory = nullptr;
    check_device(device_, device_.allocate_pinned(&memory, count_bytes), "allocate pinned memory");
    return {memory, [free = device_.free_pinned](void* pointer) { free(pointer); }};
  }

  void restrict_kernels(bool deterministic) override { restrict_kernels_(deterministic); }

  void forbid_waits(bool forbidden) override { device_.forbid_waits(forbidden); }

  const FusedKernels& fused_kernels() const override { return kernels_; }

  StreamHandle current_stream() const override { return device_.current_stream(); }

 private:
  std::unique_ptr<comm::Communicator> join(const NcclSetup& setup) {
    core::require(selected_ >= 0, ErrorKind::kInternal, "Select a device before making its communicator");
    return make_nccl_communicator(setup, nccl_, device_);
  }

  NcclApi nccl_;
  DeviceApi device_;
  FusedKernels kernels_;
  std::function<void(bool)> restrict_kernels_;
  int selected_ = -1;
};

}  // namespace

std::unique_ptr<DevicePlugin> make_device_plugin(NcclApi nccl, DeviceApi device, FusedKernels kernels,
                                                 std::function<void(bool)> restrict_kernels) {
  return std::make_unique<DevicePluginImpl>(std::move(nccl), std::move(device), std::move(kernels),
                                            std::move(restrict_kernels));
}

}  // namespace neoloom::cuda
