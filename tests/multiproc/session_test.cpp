// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <chrono>
#include <optional>
#include <thread>

#include "runtime/comm/collective_error.h"
#include "runtime/comm/fingerprint.h"
#include "runtime/comm/fixed_point.h"
#include "runtime/core/clock.h"
#include "runtime/core/rng.h"
#include "tests/multiproc/mpi_main.h"

namespace neoloom::multiproc {
namespace {

using core::ErrorKind;
using testing::AllOf;
using testing::HasSubstr;
using testing::StartsWith;

struct Thrown {
  bool any = false;
  ErrorKind kind = ErrorKind::kInternal;
  std::string text;
};

// Catches collective errors only: anything else would leave peers waiting.
Thrown thrown_by(const std::function<void()>& work) {
  try {
    work();
  } catch (const comm::CollectiveError& error) {
    return {true, error.kind(), error.what()};
  }
  return {};
}

// Returns how often this thread went to sleep by itself. A thread that spins is only ever interrupted.
int64_t voluntary_switches() {
  rusage usage{};
  getrusage(RUSAGE_THREAD, &usage);
  return usage.ru_nvcsw;
}

void sleep_seconds(double seconds) { std::this_thread::sleep_for(std::chrono::duration<double>(seconds)); }

// Half a second of waiting with sleeps of some 5 ms makes about 100 polls; far fewer on crowded cores.
constexpr int64_t kPatientSleeps = 15;

int last_rank() { return session().size() - 1; }

TEST(Session, RanksOfOneHostCountThemselves) {
  EXPECT_EQ(session().local_size(), session().size());
  EXPECT_EQ(session().local_rank(), session().rank());
  EXPECT_THAT(session().library_version(), StartsWith("Open MPI "));
  EXPECT_THAT(session().library_version(), testing::Not(HasSubstr(",")));
}

TEST(HostCommunicator, SumsOfIntegersAreExactBeyondWhatDoublesHold) {
  auto communicator = session().make_host_communicator();
  // Sums of 62 bits: float64 arithmetic anywhere would lose the last ones.
  const int64_t ranks = session().size();
  const int64_t base = ((int64_t{1} << 62) - 1) / ranks;
  for (size_t n : {size_t{1}, size_t{7}, size_t{100000}}) {
    std::vector<int64_t> data(n);
    for (size_t i = 0; i < n; ++i) data[i] = base - static_cast<int64_t>(i) * (session().rank() + 1);
    communicator->all_reduce_sum(data.data(), n, comm::Element::kInt64);
    for (size_t i = 0; i < n; ++i) {
      ASSERT_EQ(data[i], base * ranks - static_cast<int64_t>(i) * ranks * (ranks + 1) / 2) << i;
    }
  }
  EXPECT_EQ(communicator->reduced_bytes(), 8U * 100008U);
}

TEST(HostCommunicator, FloatSumsHaveTheSameBitsOnEveryRank) {
  auto communicator = session().make_host_communicator();
  std::vector<float> data(5000);
  for (uint32_t i = 0; i < data.size(); ++i) {
    const auto word = core::philox4x32({i, static_cast<uint32_t>(session().rank()), 0, 0}, {1, 2});
    data[i] = static_cast<float>(core::uniform01(word[0], word[1])) - 0.5F;
  }
  communicator->all_reduce_sum(data.data(), data.size(), comm::Element::kFloat32);
  std::vector<float> of_root = data;
  session().broadcast(of_root.data(), of_root.size() * sizeof(float));
  EXPECT_EQ(of_root, data);
  EXPECT_EQ(communicator->reduced_bytes(), 20000U);
}

TEST(HostCommunicator, StartedSumsEndTogetherWithTheBitsOfSumsInOnePiece) {
  auto communicator = session().make_host_communicator();
  constexpr size_t kElements = 200001, kCut = 70001;
  std::vector<int64_t> whole(kElements);
  for (size_t i = 0; i < kElements; ++i)
    whole[i] = static_cast<int64_t>(i * 0x9e3779b97f4a7c15ULL) / 8 + session().rank();
  std::vector<int64_t> parts = whole;
  std::vector<float> small(10, 0.5F);
  communicator->all_reduce_sum(whole.data(), kElements, comm::Element::kInt64);
  communicator->start_sum(parts.data() + kCut, kElements - kCut, comm::Element::kInt64);
  communicator->start_sum(small.data(), small.size(), comm::Element::kFloat32);
  communicator->start_sum(parts.data(), kCut, comm::Element::kInt64);
  communicator->finish_sums();
  EXPECT_EQ(parts, whole);
  EXPECT_EQ(small, std::vector<float>(10, 0.5F * static_cast<float>(session().size())));
  EXPECT_EQ(communicator->reduced_bytes(), 16U * kElements + 40U);
  EXPECT_GT(communicator->take_exposed_seconds(), 0.0);
}

// Compares the sum that one rank makes of all micro-batches with shares of them that are summed over ranks.
TEST(HostCommunicator, GradientSumHasTheBitsOfOneRank) {
  constexpr int kMicroBatches = 11;
  constexpr size_t kElements = 999;
  const double scale = comm::fixed_point_scale(64, 1.0), limit = comm::fixed_point_limit(kMicroBatches);
  const auto gradient = [](int micro_batch) {
    std::vector<float> values(kElements);
    for (uint32_t i = 0; i < kElements; ++i) {
      const auto word = core::philox4x32({i, static_cast<uint32_t>(micro_batch), 0, 0}, {3, 4});
      values[i] = static_cast<float>(core::uniform01(word[0], word[1]) * 20 - 10);
    }
    return values;
  };
  std::vector<int64_t> alone(kElements, 0), shared(kElements, 0);
  for (int m = 0; m < kMicroBatches; ++m) {
    comm::add_fixed_point(gradient(m), scale, limit, alone);
    if (m % session().size() == session().rank()) comm::add_fixed_point(gradient(m), scale, limit, shared);
  }
  session().make_host_communicator()->all_reduce_sum(shared.data(), kElements, comm::Element::kInt64);
  EXPECT_EQ(shared, alone);
}

TEST(Session, TextOfAHostsFirstRankReachesTheRanksOfThatHost) {
  std::string text = session().local_rank() == 0 ? session().host_name() + std::string(100, 'x') : "";
  session().broadcast_on_host(text);
  EXPECT_EQ(text, session().host_name() + std::string(100, 'x'));
}

TEST(Session, BroadcastTextOfAnyRankReachesAll) {
  const std::string wanted("a\0b\n", 4);
  std::string text = session().rank() == last_rank() ? wanted : "something longer than the other";
  session().broadcast(text, last_rank());
  EXPECT_EQ(text, wanted);
}

TEST(Session, GatheredTextsAreInRankOrderAndMayBeEmpty) {
  const auto text_of = [](int rank) {
    return std::string(static_cast<size_t>(rank % 3) * 5, static_cast<char>('a' + rank));
  };
  const auto texts = session().all_gather(text_of(session().rank()));
  ASSERT_EQ(texts.size(), static_cast<size_t>(session().size()));
  for (int rank = 0; rank < session().size(); ++rank) EXPECT_EQ(texts[static_cast<size_t>(rank)], text_of(rank));
}

TEST(Session, ReductionsSeeEveryRank) {
  const int64_t rank = session().rank(), last = last_rank();
  std::vector<int64_t> largest{rank, -rank}, smallest{rank, -rank}, sum{1, rank};
  session().all_reduce_max(largest);
  session().all_reduce_min(smallest);
  session().all_reduce_sum(sum);
  EXPECT_EQ(largest, (std::vector<int64_t>{last, 0}));
  EXPECT_EQ(smallest, (std::vector<int64_t>{0, -last}));
  EXPECT_EQ(sum, (std::vector<int64_t>{last + 1, last * (last + 1) / 2}));
}

TEST(OnRoot, ResultOfRankZeroReachesAllAndTheOthersDoNotWork) {
  int runs = 0;
  const std::string result = session().run_on_root([&] {
    ++runs;
    return std::string(100000, 'x') + "end";
  });
  EXPECT_EQ(result.size(), 100003U);
  EXPECT_THAT(result, testing::EndsWith("end"));
  EXPECT_EQ(runs, session().is_root() ? 1 : 0);
}

TEST(OnRoot, ErrorOfRankZeroIsThrownOnEveryRankWithItsKindAndText) {
  const Thrown thrown = thrown_by([] {
    session().run_on_root([]() -> std::string { core::fail(ErrorKind::kData, "train.jsonl: line 3: no label"); });
  });
  EXPECT_TRUE(thrown.any);
  EXPECT_EQ(thrown.kind, ErrorKind::kData);
  EXPECT_EQ(thrown.text, "train.jsonl: line 3: no label");
}

TEST(OnRoot, ForeignExceptionOfRankZeroIsAnInternalErrorOnEveryRank) {
  const Thrown thrown =
      thrown_by([] { session().run_on_root([]() -> std::string { throw std::out_of_range("map::at"); }); });
  EXPECT_EQ(thrown.kind, ErrorKind::kInternal);
  EXPECT_THAT(thrown.text, HasSubstr("map::at"));
}

TEST(OnRoot, WaitingRanksLeaveTheirCoreToTheOneThatWorks) {
  const int64_t before = voluntary_switches();
  session().run_on_root([] {
    sleep_seconds(0.5);
    return std::string();
  });
  if (!session().is_root()) {
    EXPECT_GT(voluntary_switches() - before, kPatientSleeps);
  }
}

TEST(PatientBarrier, HoldsEveryRankUntilTheLastComesWithoutSpinning) {
  session().sleeping_barrier();
  const double start = core::now_seconds();
  const int64_t before = voluntary_switches();
  if (session().rank() == last_rank()) sleep_seconds(0.4);
  session().sleeping_barrier();
  const double waited = core::now_seconds() - start;
  EXPECT_GT(waited, 0.35);
  if (session().rank() != last_rank()) {
    EXPECT_GT(voluntary_switches() - before, kPatientSleeps);
  }
}

TEST(AgreeNoError, NothingHappensWhenNoRankFailed) {
  EXPECT_FALSE(thrown_by([] { session().agree_no_error(std::nullopt); }).any);
}

TEST(AgreeNoError, ErrorOfTheLowestFailedRankIsThrownOnAllAndNamesIt) {
  const bool failed = session().rank() >= session().size() / 2;
  const Thrown thrown = thrown_by([&] {
    std::optional<core::Error> error;
    if (failed) error.emplace(ErrorKind::kWeights, fmt::format("file {} is short", session().rank()));
    session().agree_no_error(error);
  });
  const int guilty = session().size() / 2;
  EXPECT_TRUE(thrown.any);
  EXPECT_EQ(thrown.kind, ErrorKind::kWeights);
  EXPECT_THAT(thrown.text, HasSubstr(fmt::format("file {} is short", guilty)));
  EXPECT_THAT(thrown.text, StartsWith(session().size() > 1 ? fmt::format("rank {} on ", guilty) : "file 0"));
}

TEST(AllOrNone, WorkThatFailsOnOneRankFailsOnAll) {
  int runs = 0;
  const Thrown thrown = thrown_by([&] {
    session().run_on_all_or_fail([&] {
      ++runs;
      core::require(session().rank() != last_rank(), ErrorKind::kDevice, "no memory left");
    });
  });
  EXPECT_EQ(runs, 1);
  EXPECT_EQ(thrown.kind, ErrorKind::kDevice);
  EXPECT_THAT(thrown.text, HasSubstr("no memory left"));
}

TEST(Fingerprint, EqualOnesPass) {
  EXPECT_FALSE(thrown_by([] {
                 comm::require_equal_fingerprints(session(), {{"model hash", "abc"}, {"threads", "2"}});
               }).any);
}

TEST(Fingerprint, FirstDifferingFieldIsNamedWithBothRanksAndValues) {
  if (session().size() == 1) GTEST_SKIP() << "one rank agrees with itself";
  const bool odd = session().rank() == last_rank();
  const Thrown thrown = thrown_by([&] {
    comm::require_equal_fingerprints(
        session(), {{"version", "1"}, {"model hash", odd ? "bb:'\n22" : "aa11"}, {"threads", odd ? "4" : "2"}});
  });
  EXPECT_EQ(thrown.kind, ErrorKind::kUsage);
  EXPECT_THAT(thrown.text, AllOf(HasSubstr("model hash"), HasSubstr("rank 0 on "), HasSubstr("'aa11'"),
                                 HasSubstr(fmt::format("rank {} on ", last_rank())), HasSubstr("'bb:'\n22'")));
  EXPECT_THAT(thrown.text, testing::Not(HasSubstr("threads")));
}

TEST(Fingerprint, FieldThatOnlyOneRankHasIsADifference) {
  if (session().size() == 1) GTEST_SKIP() << "one rank agrees with itself";
  comm::Fingerprint mine{{"version", "1"}};
  if (session().rank() == last_rank()) mine.emplace_back("gpu", "H100");
  const Thrown thrown = thrown_by([&] { comm::require_equal_fingerprints(session(), mine); });
  EXPECT_THAT(thrown.text, AllOf(HasSubstr("gpu"), HasSubstr("rank 0"), HasSubstr("has nothing"), HasSubstr("'H100'")));
}

TEST(StateHash, EqualOnesPassWhateverTheirTopBit) {
  for (uint64_t hash : {uint64_t{0}, uint64_t{1} << 63, ~uint64_t{0}}) {
    EXPECT_FALSE(thrown_by([&] { comm::require_equal_state(session(), hash, 50); }).any);
  }
}

TEST(StateHash, MinorityIsNamedWithTheStep) {
  if (session().size() < 3) GTEST_SKIP() << "two ranks have no majority";
  const Thrown thrown =
      thrown_by([] { comm::require_equal_state(session(), session().rank() == 1 ? ~uint64_t{0} : 5, 150); });
  EXPECT_EQ(thrown.kind, ErrorKind::kNumeric);
  EXPECT_THAT(thrown.text, AllOf(HasSubstr("step 150"), HasSubstr("1 of"), HasSubstr("(rank 1 on ")));
  EXPECT_THAT(thrown.text, testing::Not(HasSubstr("rank 2")));
}

}  // namespace
}  // namespace neoloom::multiproc
