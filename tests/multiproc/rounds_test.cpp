// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "runtime/comm/collective_error.h"
#include "runtime/core/error.h"
#include "runtime/train/predictor.h"
#include "tests/multiproc/mpi_main.h"

namespace neoloom::multiproc {
namespace {

/// What rounds of so many batches hand over, each batch as one character.
struct HandedOver {
  std::string text;
  std::vector<int64_t> done;  // after each round
};

HandedOver run(int64_t batches) {
  HandedOver result;
  std::string mine;
  train::run_rounds(session(), {.batches = batches,
                                .compute = [&](int64_t batch) { mine += static_cast<char>('a' + batch % 26); },
                                .hand_over =
                                    [&](int64_t done) {
                                      for (const std::string& part : session().all_gather(std::exchange(mine, {}))) {
                                        result.text += part;
                                      }
                                      result.done.push_back(done);
                                    }});
  return result;
}

TEST(Rounds, ResultsJoinInOrderWhateverTheRanks) {
  for (const int64_t batches : {0, 1, 2, 5, 300, 1001}) {
    std::string expected;
    for (int64_t batch = 0; batch < batches; ++batch) expected += static_cast<char>('a' + batch % 26);
    const HandedOver found = run(batches);
    EXPECT_EQ(found.text, expected);
    EXPECT_EQ(found.done.empty() ? 0 : found.done.back(), batches);
  }
}

TEST(Rounds, TheFirstOneIsShortAndNoneIsLong) {
  const std::vector<int64_t> done = run(5000).done;
  EXPECT_EQ(done.front(), session().size());
  for (size_t i = 1; i < done.size(); ++i) EXPECT_LE(done[i] - done[i - 1], 64 * session().size());
}

TEST(Rounds, AnErrorOfOneRankEndsAllOfThem) {
  const int64_t last = session().size() - 1;
  const auto fail_there = [&](int64_t) {
    core::require(session().rank() != last, core::ErrorKind::kDevice, "the last rank fails");
  };
  EXPECT_THROW(train::run_rounds(session(), {.batches = 100, .compute = fail_there, .hand_over = [](int64_t) {}}),
               comm::CollectiveError);
}

}  // namespace
}  // namespace neoloom::multiproc
