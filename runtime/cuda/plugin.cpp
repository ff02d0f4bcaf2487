// SPDX-License-Identifier: Apache-2.0
#include "runtime/cuda/plugin.h"

#include <dlfcn.h>

#include <filesystem>

#include "runtime/core/environment.h"
#include "runtime/core/error.h"
#include "runtime/core/process.h"

namespace neoloom::cuda {
namespace {

using core::ErrorKind;
namespace fs = std::filesystem;

constexpr const char* kInstead = "Set runtime.device: cpu to run without a GPU";

std::string plugin_path() {
  if (std::string given = core::environment("NEOLOOM_PLUGIN"); !given.empty()) return given;
  return (core::program_folder() / "libneoloom_cuda.so").string();
}

template <typename Function>
Function* symbol(void* library, const char* name, const std::string& path) {
  void* address = dlsym(library, name);
  core::require(address != nullptr, ErrorKind::kDevice, "{} is not a neoloom GPU plug-in: it has no {}. {}", path, name,
                kInstead);
  return reinterpret_cast<Function*>(address);
}

}  // namespace

bool gpu_present() {
  std::error_code error;
  return fs::exists("/dev/nvidiactl", error) || fs::exists("/dev/nvidia0", error);
}

bool plugin_present() {
  std::error_code error;
  return fs::exists(plugin_path(), error);
}

std::unique_ptr<DevicePlugin> load_device_plugin() {
  core::require(gpu_present(), ErrorKind::kDevice,
                "A GPU was requested, but this machine has none (no /dev/nvidiactl, no /dev/nvidia0). {}", kInstead);
  const std::string path = plugin_path();
  core::require(
      plugin_present(), ErrorKind::kDevice,
      "A GPU was requested, but this neoloom is for CPUs alone: there is no plug-in {}. {}, or install CUDA's "
      "libraries (bash cluster/bootstrap/bootstrap.sh) and build again",
      path, kInstead);
  // RTLD_GLOBAL: LibTorch's CUDA library registers its hooks with the copy of LibTorch that is already loaded.
  // RTLD_NODELETE: those hooks cannot be taken back.
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_GLOBAL | RTLD_NODELETE);
  if (library == nullptr) {
    const char* reason = dlerror();
    core::fail(ErrorKind::kDevice, "A GPU was requested, but the plug-in {} cannot be loaded: {}. {}", path,
               reason != nullptr ? reason : "unknown reason", kInstead);
  }
  const int interface = symbol<int()>(library, "neoloom_plugin_interface", path)();
  core::require(interface == kPluginInterface, ErrorKind::kDevice,
                "The GPU plug-in {} belongs to another build of neoloom (interface {}, expected {}). Build again", path,
                interface, kPluginInterface);
  std::unique_ptr<DevicePlugin> plugin(symbol<DevicePlugin*()>(library, "neoloom_create_device_plugin", path)());
  core::require(plugin->device_count() > 0, ErrorKind::kDevice,
                "A GPU was requested, but CUDA sees none (CUDA_VISIBLE_DEVICES is {}). {}",
                core::environment_if_set("CUDA_VISIBLE_DEVICES").value_or("not set"), kInstead);
  return plugin;
}

}  // namespace neoloom::cuda
