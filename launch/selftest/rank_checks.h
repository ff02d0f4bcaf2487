// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "launch/system/check.h"
#include "runtime/comm/mpi_session.h"

namespace neoloom::launch {

/// A clock as another rank reads it.
struct ClockOffset {
  double seconds = 0.0;        // what this rank's clock is ahead of rank 0's
  double error_seconds = 0.0;  // at most
};

/// Measures this rank's clock against rank 0's, as NTP does: a message there and one back, of which the quickest pair
/// of several counts. Collective: every rank.
ClockOffset measure_clock(comm::MpiSession& session);
Check clock_check(const ClockOffset& offset);

/// The seconds of one all-reduce, on the slowest rank.
struct SumTime {
  size_t size_bytes = 0;
  double seconds = 0.0;
};
Check sum_speed_check(const std::vector<SumTime>& times, int ranks);

/// What only several ranks can find out together: clocks, versions of program and MPI library, speed of the all-reduce
/// in host memory that trains on CPUs. Each rank gets its own. Collective: every rank.
std::vector<Check> rank_checks(comm::MpiSession& session, const std::string& version);

}  // namespace neoloom::launch
