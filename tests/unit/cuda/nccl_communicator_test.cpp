// SPDX-License-Identifier: Apache-2.0
#include "runtime/cuda/nccl_communicator.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "runtime/core/clock.h"
#include "runtime/core/error.h"
#include "tests/unit/cuda/fake_apis.h"

namespace neoloom::cuda {
namespace {

using testing::AllOf;
using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

NcclSetup setup_for(int rank, int size) {
  NcclSetup setup;
  setup.rank = rank;
  setup.size = size;
  setup.broadcast = [](void*, size_t) {};
  setup.init_deadline_seconds = 0.1;
  setup.call_deadline_seconds = 0.1;
  setup.abort_deadline_seconds = 0.1;
  return setup;
}

class NcclCommunicatorTest : public testing::Test {
 protected:
  std::unique_ptr<comm::Communicator> make(const NcclSetup& setup) {
    return make_nccl_communicator(setup, fake_nccl(machine_), fake_device(machine_));
  }
  std::string error_of(const std::function<void()>& work) {
    try {
      work();
    } catch (const core::Error& error) {
      kind_ = error.kind();
      return error.what();
    }
    return "";
  }
  std::shared_ptr<FakeMachine> machine_ = std::make_shared<FakeMachine>();
  core::ErrorKind kind_ = core::ErrorKind::kInternal;
};

TEST_F(NcclCommunicatorTest, RankZeroMakesTheIdAndItReachesEveryRank) {
  std::vector<char> wire;
  NcclSetup root = setup_for(0, 2), peer = setup_for(1, 2);
  root.broadcast = [&](void* bytes, size_t count) {
    wire.assign(static_cast<char*>(bytes), static_cast<char*>(bytes) + count);
  };
  peer.broadcast = [&](void* bytes, size_t count) {
    ASSERT_EQ(count, wire.size());
    std::copy(wire.begin(), wire.end(), static_cast<char*>(bytes));
  };
  make(root);
  EXPECT_THAT(machine_->calls, AllOf(Contains("unique_id"), Contains("init 0/2")));
  *machine_ = FakeMachine{};
  make(peer);
  EXPECT_THAT(machine_->calls, AllOf(Not(Contains("unique_id")), Contains("init 1/2")));
  EXPECT_EQ(machine_->joined_with[0], 7);
}

TEST_F(NcclCommunicatorTest, FailureToMakeTheIdReachesRanksThatWaitForIt) {
  std::vector<char> wire;
  NcclSetup root = setup_for(0, 2), peer = setup_for(1, 2);
  root.broadcast = [&](void* bytes, size_t count) {
    wire.assign(static_cast<char*>(bytes), static_cast<char*>(bytes) + count);
  };
  peer.broadcast = [&](void* bytes, size_t) { std::copy(wire.begin(), wire.end(), static_cast<char*>(bytes)); };
  machine_->unique_id_result = 3;
  EXPECT_THAT(error_of([&] { make(root); }), HasSubstr("ncclGetUniqueId (on rank 0) failed"));
  EXPECT_THAT(error_of([&] { make(peer); }), HasSubstr("nccl text 3"));
  EXPECT_EQ(kind_, core::ErrorKind::kPeer);
}

TEST_F(NcclCommunicatorTest, WaitsForAnInitThatIsInProgress) {
  machine_->async_states = {kNcclInProgress, kNcclInProgress, kNcclSuccess};
  make(setup_for(0, 1));
  EXPECT_THAT(machine_->calls, Not(Contains("abort")));
}

TEST_F(NcclCommunicatorTest, InitThatNeverEndsIsAbortedAtItsDeadline) {
  machine_->async_states = {-kNcclInProgress};
  const double start = core::now_seconds();
  EXPECT_THAT(error_of([&] { make(setup_for(1, 4)); }),
              AllOf(HasSubstr("ncclCommInitRankConfig"), HasSubstr("rank 1"), HasSubstr("still in progress")));
  EXPECT_LT(core::now_seconds() - start, 3.0);
  EXPECT_EQ(kind_, core::ErrorKind::kPeer);
  EXPECT_THAT(machine_->calls, Contains("abort"));
}

TEST_F(NcclCommunicatorTest, SumIsOrderedBetweenTheWorkBeforeAndAfterItWithoutTheHost) {
  auto communicator = make(setup_for(0, 1));
  machine_->calls.clear();
  communicator->all_reduce_sum(nullptr, 12, comm::Element::kInt64);
  // 10 is LibTorch's current stream, 50 the communicator's; 61 and 62 are its events, 80 and 81 time the wait.
  EXPECT_THAT(machine_->calls, ElementsAre("record 61 on 10", "50 waits 61", "all_reduce 12 on 50", "record 62 on 50",
                                           "create_timed_event", "create_timed_event", "record 80 on 10", "10 waits 62",
                                           "record 81 on 10"));
  EXPECT_EQ(communicator->reduced_bytes(), 96U);
}

TEST_F(NcclCommunicatorTest, StartedSumsRunBesideTheCurrentStreamWhichWaitsForAllOfThemAtTheEnd) {
  auto communicator = make(setup_for(0, 1));
  machine_->calls.clear();
  communicator->start_sum(nullptr, 12, comm::Element::kInt64);
  communicator->start_sum(nullptr, 5, comm::Element::kFloat32);
  EXPECT_THAT(machine_->calls, ElementsAre("record 61 on 10", "50 waits 61", "all_reduce 12 on 50",  //
                                           "record 61 on 10", "50 waits 61", "all_reduce 5 on 50"));
  EXPECT_EQ(communicator->reduced_bytes(), 116U);
  communicator->finish_sums();
  EXPECT_THAT(machine_->calls, AllOf(Contains("record 62 on 50"), Contains("10 waits 62")));
}

TEST_F(NcclCommunicatorTest, TimeThatTheStreamStoodStillIsReadWhenTheDeviceIsPastIt) {
  auto communicator = make(setup_for(0, 1));
  machine_->events_done = false;
  communicator->all_reduce_sum(nullptr, 1, comm::Element::kInt64);
  communicator->all_reduce_sum(nullptr, 1, comm::Element::kInt64);
  EXPECT_EQ(communicator->take_exposed_seconds(), 0.0);
  machine_->events_done = true;
  communicator->all_reduce_sum(nullptr, 1, comm::Element::kInt64);
  EXPECT_EQ(communicator->take_exposed_seconds(), 0.75);
  EXPECT_EQ(communicator->take_exposed_seconds(), 0.0);
  communicator->all_reduce_sum(nullptr, 1, comm::Element::kInt64);
  EXPECT_EQ(machine_->timed_events, 6) << "events that were read are used again";
}

TEST_F(NcclCommunicatorTest, WhoWaitsForTheDeviceLearnsOfASumThatFailed) {
  auto communicator = make(setup_for(2, 4));
  communicator->start_sum(nullptr, 1, comm::Element::kInt64);
  EXPECT_EQ(error_of([&] { communicator->check(); }), "");
  machine_->async_states = {6};
  EXPECT_THAT(error_of([&] { communicator->check(); }), AllOf(HasSubstr("rank 2"), HasSubstr("socket closed by peer")));
  EXPECT_EQ(kind_, core::ErrorKind::kPeer);
}

TEST_F(NcclCommunicatorTest, SumInProgressIsEnqueuedBeforeItsEventIsRecorded) {
  auto communicator = make(setup_for(0, 1));
  machine_->reduce_result = kNcclInProgress;
  machine_->async_states = {kNcclSuccess, kNcclInProgress, kNcclInProgress, kNcclSuccess};
  communicator->all_reduce_sum(nullptr, 1, comm::Element::kFloat32);
  EXPECT_TRUE(machine_->async_states.empty());
  EXPECT_EQ(communicator->reduced_bytes(), 4U);
}

TEST_F(NcclCommunicatorTest, ErrorOfAnEarlierSumIsReportedByTheNextOneAndTheEndIsAnAbort) {
  auto communicator = make(setup_for(2, 4));
  machine_->async_states = {6};
  EXPECT_THAT(error_of([&] { communicator->all_reduce_sum(nullptr, 1, comm::Element::kInt64); }),
              AllOf(HasSubstr("rank 2"), HasSubstr("nccl text 6"), HasSubstr("socket closed by peer")));
  EXPECT_EQ(kind_, core::ErrorKind::kPeer);
  communicator.reset();
  EXPECT_THAT(machine_->calls, AllOf(Contains("abort"), Not(Contains("finalize"))));
}

TEST_F(NcclCommunicatorTest, OrderlyEndFinalizesThenDestroys) {
  auto communicator = make(setup_for(0, 1));
  machine_->calls.clear();
  communicator.reset();
  EXPECT_THAT(machine_->calls, ElementsAre("finalize", "destroy", "destroy_event", "destroy_event", "destroy_stream"));
}

TEST_F(NcclCommunicatorTest, FinalizeThatHangsBecomesAnAbort) {
  auto communicator = make(setup_for(0, 1));
  machine_->async_states = {-kNcclInProgress};
  communicator.reset();
  EXPECT_THAT(machine_->calls, AllOf(Contains("finalize"), Contains("abort"), Not(Contains("destroy"))));
}

TEST_F(NcclCommunicatorTest, AbortThatHangsIsLeftBehind) {
  auto communicator = make(setup_for(0, 1));
  machine_->async_states = {6};
  error_of([&] { communicator->all_reduce_sum(nullptr, 1, comm::Element::kInt64); });
  machine_->abort_hangs = true;
  const double start = core::now_seconds();
  communicator.reset();
  EXPECT_LT(core::now_seconds() - start, 2.0);
  EXPECT_THAT(machine_->calls, Not(Contains("destroy_stream")));
}

TEST_F(NcclCommunicatorTest, CudaFailureNamesTheCall) {
  machine_->failing_call = "create_stream";
  EXPECT_THAT(error_of([&] { make(setup_for(0, 1)); }), AllOf(HasSubstr("create stream"), HasSubstr("cuda text 999")));
  EXPECT_EQ(kind_, core::ErrorKind::kDevice);
}

TEST_F(NcclCommunicatorTest, DescriptionShowsTheVersion) {
  EXPECT_EQ(make(setup_for(0, 1))->description(), "NCCL 2.28.9, device memory, 1 rank");
}

}  // namespace
}  // namespace neoloom::cuda
