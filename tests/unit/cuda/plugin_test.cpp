// SPDX-License-Identifier: Apache-2.0
#include "runtime/cuda/plugin.h"

#include <dlfcn.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <regex>

#include "runtime/core/error.h"

namespace neoloom::cuda {
namespace {

TEST(DevicePlugin, AskingForAGpuWhereThereIsNoneIsOneSentenceAndCodeEight) {
  if (gpu_present()) GTEST_SKIP() << "this machine has a GPU";
  try {
    load_device_plugin();
    FAIL() << "no error";
  } catch (const core::Error& error) {
    EXPECT_EQ(error.exit_code(), 8);
    EXPECT_THAT(error.what(),
                testing::AllOf(testing::HasSubstr("machine has none"), testing::HasSubstr("runtime.device: cpu")));
  }
}

TEST(DevicePlugin, BuildForCpusAloneHasNone) {
  setenv("NEOLOOM_PLUGIN", "/nowhere/libneoloom_cuda.so", 1);
  EXPECT_FALSE(plugin_present());
  unsetenv("NEOLOOM_PLUGIN");
  EXPECT_EQ(plugin_present(), !std::string(NL_PLUGIN).empty());  // beside this program
}

// Loads CUDA and NCCL without a driver: proves that every symbol of the plug-in is found and its tables reach the
// libraries.
TEST(DevicePlugin, LibraryBuiltHereLoadsOnAMachineWithoutADriver) {
  if (std::string(NL_PLUGIN).empty()) GTEST_SKIP() << "this build has no GPU plug-in";
  void* library = dlopen(NL_PLUGIN, RTLD_NOW | RTLD_GLOBAL | RTLD_NODELETE);
  ASSERT_NE(library, nullptr) << dlerror();
  auto* interface = reinterpret_cast<int (*)()>(dlsym(library, "neoloom_plugin_interface"));
  auto* create = reinterpret_cast<DevicePlugin* (*)()>(dlsym(library, "neoloom_create_device_plugin"));
  ASSERT_NE(interface, nullptr);
  ASSERT_NE(create, nullptr);
  EXPECT_EQ(interface(), kPluginInterface);
  const std::unique_ptr<DevicePlugin> plugin(create());
  EXPECT_TRUE(std::regex_match(plugin->nccl_version(), std::regex(R"(2\.\d+\.\d+)"))) << plugin->nccl_version();
  EXPECT_TRUE(std::regex_match(plugin->runtime_version(), std::regex(R"(13\.\d)"))) << plugin->runtime_version();
  plugin->restrict_kernels(true);
  EXPECT_STREQ(getenv("CUBLAS_WORKSPACE_CONFIG"), ":4096:8");
  if (gpu_present()) return;
  if (const FusedKernels& kernels = plugin->fused_kernels(); kernels.residual_norm) {
    const ResidualNorm one_row{.rows = 1, .columns = 8};
    EXPECT_EQ(kernels.residual_norm({.rows = 0, .columns = 8}, nullptr), 0);
    EXPECT_NE(kernels.residual_norm(one_row, nullptr), 0) << "CUDA started a kernel without a driver";
  } else {
    EXPECT_FALSE(NL_HAS_NVCC) << "the plug-in lacks neoloom's own kernels";
  }
  try {
    plugin->device_count();
    FAIL() << "CUDA counted devices without a driver";
  } catch (const core::Error& error) {
    EXPECT_EQ(error.kind(), core::ErrorKind::kDevice);
  }
}

}  // namespace
}  // namespace neoloom::cuda
