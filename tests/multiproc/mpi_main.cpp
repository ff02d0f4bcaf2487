// SPDX-License-Identifier: Apache-2.0
// Is the main() of test programs that run on several ranks. Every rank runs every test in the same order. A failure on
// any rank fails the program, and a rank that waits for ever ends it.
#include "tests/multiproc/mpi_main.h"

#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <memory>

namespace neoloom::multiproc {
namespace {

comm::MpiSession* current = nullptr;

// Lets rank 0 alone report passes. A failure is shown by the rank that has it.
void keep_quiet_unless_root(const comm::MpiSession& session) {
  if (session.is_root()) return;
  GTEST_FLAG_SET(print_time, false);
  auto& listeners = testing::UnitTest::GetInstance()->listeners();
  class FailuresOnly : public testing::EmptyTestEventListener {
   public:
    explicit FailuresOnly(int rank) : rank_(rank) {}
    void OnTestPartResult(const testing::TestPartResult& result) override {
      if (!result.failed()) return;
      std::fprintf(stderr, "rank %d: %s:%d: %s\n", rank_, result.file_name(), result.line_number(), result.message());
    }

   private:
    int rank_;
  };
  delete listeners.Release(listeners.default_result_printer());
  listeners.Append(new FailuresOnly(session.rank()));
}

int run(comm::MpiSession& session, int wanted_ranks) {
  if (session.size() != wanted_ranks) {
    std::fprintf(stderr, "This test wants %d ranks and was started with %d\n", wanted_ranks, session.size());
    return 1;
  }
  keep_quiet_unless_root(session);
  int64_t failed = RUN_ALL_TESTS();
  session.all_reduce_max({&failed, 1});
  return failed == 0 ? 0 : 1;
}

}  // namespace

comm::MpiSession& session() { return *current; }

}  // namespace neoloom::multiproc

int main(int argc, char** argv) {
  using namespace neoloom;
  testing::InitGoogleTest(&argc, argv);
  comm::MpiSession session(&argc, &argv);
  multiproc::current = &session;
  const auto guard = session.guard("all tests", 0, 60.0);
  return multiproc::run(session, argc > 1 ? std::atoi(argv[1]) : 1);
}
