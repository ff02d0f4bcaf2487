// SPDX-License-Identifier: Apache-2.0
#include "runtime/cuda/device_plugin.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "runtime/core/error.h"
#include "tests/unit/cuda/fake_apis.h"

namespace neoloom::cuda {
namespace {

using testing::AllOf;
using testing::Contains;
using testing::HasSubstr;

class DevicePluginTest : public testing::Test {
 protected:
  std::shared_ptr<FakeMachine> machine_ = std::make_shared<FakeMachine>();
  std::vector<bool> restricted_;
  std::unique_ptr<DevicePlugin> plugin_ =
      make_device_plugin(fake_nccl(machine_), fake_device(machine_), FusedKernels(),
                         [this](bool deterministic) { restricted_.push_back(deterministic); });

  std::string device_error(const std::function<void()>& work) {
    try {
      work();
    } catch (const core::Error& error) {
      EXPECT_EQ(error.kind(), core::ErrorKind::kDevice);
      return error.what();
    }
    return "";
  }
};

TEST_F(DevicePluginTest, ShowsVersionsAsPeopleWriteThem) {
  EXPECT_EQ(plugin_->driver_version(), "13.1");
  EXPECT_EQ(plugin_->runtime_version(), "13.0");
  EXPECT_EQ(plugin_->nccl_version(), "2.28.9");
  EXPECT_EQ(plugin_->compute_capability(0), "9.0");
}

TEST_F(DevicePluginTest, DeviceThatIsNotThereIsRefusedByNumber) {
  EXPECT_THAT(device_error([&] { plugin_->select(2); }), AllOf(HasSubstr("cuda:2"), HasSubstr("there are 2")));
}

TEST_F(DevicePluginTest, SelectedDeviceIsTheOneWhosePeakIsReported) {
  plugin_->select(1);
  EXPECT_THAT(machine_->calls, Contains("select 1"));
  EXPECT_EQ(plugin_->peak_memory_bytes(), 1001);
}

TEST_F(DevicePluginTest, DriverThatFailsSaysWhatToDo) {
  machine_->failing_call = "device_count";
  EXPECT_THAT(device_error([&] { plugin_->device_count(); }),
              AllOf(HasSubstr("cuda text 999"), HasSubstr("nvidia-smi"), HasSubstr("runtime.device: cpu")));
}

TEST_F(DevicePluginTest, PinnedMemoryOutlivesThePluginAndIsFreed) {
  std::shared_ptr<void> memory = plugin_->pinned_memory(64);
  plugin_.reset();
  EXPECT_EQ(machine_->pinned_blocks, 1);
  memory.reset();
  EXPECT_EQ(machine_->pinned_blocks, 0);
}

TEST_F(DevicePluginTest, FailingCallIsNamed) {
  machine_->failing_call = "record 61 on 10";
  EXPECT_THAT(device_error([&] { plugin_->record_event(); }), HasSubstr("CUDA: record event failed: cuda text 999"));
  EXPECT_THAT(machine_->calls, Contains("destroy_event"));
}

TEST_F(DevicePluginTest, MarkTellsWithoutWaitingWhetherTheDeviceHasPassedIt) {
  machine_->events_done = false;
  std::function<bool()> passed = plugin_->record_event();
  EXPECT_THAT(machine_->calls, testing::ElementsAre("create_event", "record 61 on 10"));
  EXPECT_FALSE(passed());
  machine_->events_done = true;
  EXPECT_TRUE(passed());
  passed = nullptr;
  EXPECT_THAT(machine_->calls, Contains("destroy_event"));
}

TEST_F(DevicePluginTest, LoneCommunicatorIsOfOneRankAndWantsADevice) {
  EXPECT_THROW(plugin_->make_lone_communicator(), core::Error);
  plugin_->select(0);
  EXPECT_EQ(plugin_->make_lone_communicator()->description(), "NCCL 2.28.9, device memory, 1 rank");
  EXPECT_THAT(machine_->calls, Contains("init 0/1"));
}

TEST_F(DevicePluginTest, RestrictsKernelsOnlyWhenAsked) {
  EXPECT_THAT(restricted_, testing::IsEmpty());
  plugin_->restrict_kernels(false);
  plugin_->restrict_kernels(true);
  EXPECT_THAT(restricted_, testing::ElementsAre(false, true));
}

}  // namespace
}  // namespace neoloom::cuda
