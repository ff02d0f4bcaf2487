// SPDX-License-Identifier: Apache-2.0
#include "launch/selftest/rank_checks.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <memory>

#include "launch/system/sizes.h"
#include "runtime/comm/communicator.h"
#include "runtime/comm/cuda_support.h"
#include "runtime/core/clock.h"
#include "runtime/core/hash.h"
#include "runtime/core/process.h"

namespace neoloom::launch {
namespace {

std::string program_text(const std::string& version) {
  constexpr size_t kShownDigits = 12;
  return fmt::format("neoloom {}, {}", version,
                     core::sha256_of_file(core::program_file().string()).substr(0, kShownDigits));
}

std::string mpi_text(comm::MpiSession& session) {
  const std::optional<bool> device = comm::mpi_takes_device_memory();
  const char* support = !device ? "" : *device ? ", takes GPU memory" : ", takes host memory alone";
  return session.library_version() + support + (device ? "; neoloom gives it no other" : "");
}

std::vector<SumTime> measure_sums(comm::MpiSession& session) {
  constexpr std::array<size_t, 4> kSizes{8, size_t{64} << 10, size_t{1} << 20, size_t{16} << 20};
  constexpr int kRepeats = 5;
  const std::unique_ptr<comm::Communicator> communicator = session.make_host_communicator();
  std::vector<int64_t> data(kSizes.back() / sizeof(int64_t));
  std::vector<SumTime> times;
  for (const size_t size : kSizes) {
    int64_t least = std::numeric_limits<int64_t>::max();
    for (int i = 0; i < kRepeats; ++i) {
      session.sleeping_barrier();
      std::array<int64_t, 1> one{1};
      session.all_reduce_sum(one);  // wakes all from the barrier
      const double start = core::now_seconds();
      communicator->all_reduce_sum(data.data(), size / sizeof(int64_t), comm::Element::kInt64);
      std::array<int64_t, 1> slowest{std::llround((core::now_seconds() - start) * 1e9)};
      session.all_reduce_max(slowest);
      least = std::min(least, slowest[0]);
    }
    times.push_back({size, static_cast<double>(least) * 1e-9});
  }
  return times;
}

}  // namespace

ClockOffset measure_clock(comm::MpiSession& session) {
  constexpr int kRepeats = 8;
  ClockOffset mine{0.0, session.is_root() ? 0.0 : std::numeric_limits<double>::infinity()};
  for (int rank = 1; rank < session.size(); ++rank) {
    for (int i = 0; i < kRepeats; ++i) {
      char ping = 0;
      const double sent = core::unix_seconds();
      session.broadcast(&ping, 1, rank);
      double there = core::unix_seconds();
      session.broadcast(&there, sizeof there, 0);
      const double back = core::unix_seconds();
      const double error = (back - sent) / 2;
      if (session.rank() == rank && error < mine.error_seconds) mine = {(sent + back) / 2 - there, error};
    }
  }
  return mine;
}

Check clock_check(const ClockOffset& offset) {
  constexpr double kMostSeconds = 0.5;
  const double least = std::fabs(offset.seconds) - offset.error_seconds;
  if (least <= kMostSeconds) return {"clock", Health::kOk, fmt::format("within {} s of rank 0's", kMostSeconds)};
  return {"clock", Health::kWarn,
          fmt::format("{:.1f} s {} rank 0's", std::fabs(offset.seconds), offset.seconds > 0 ? "ahead of" : "behind"),
          "synchronise the clocks (chronyc tracking, timedatectl): times in logs and of files mislead, and Slurm's "
          "authentication fails from 5 minutes on"};
}

Check sum_speed_check(const std::vector<SumTime>& times, int ranks) {
  constexpr double kSlowSeconds = 2e-3;
  constexpr double kSlowBytesPerSecond = 100e6;
  std::vector<std::string> texts;
  texts.reserve(times.size());
  Check check{"all-reduce", Health::kOk, ""};
  // What each rank sends and receives of a sum that moves as little as it can, a second.
  const auto speed = [ranks](const SumTime& time) {
    return 2.0 * (ranks - 1) / ranks * static_cast<double>(time.size_bytes) / time.seconds;
  };
  for (const SumTime& time : times) {
    texts.push_back(time.size_bytes < 4096
                        ? fmt::format("{} in {:.0f} us", size_text(time.size_bytes), time.seconds * 1e6)
                        : fmt::format("{} in {:.2f} ms ({:.2f} GB/s)", size_text(time.size_bytes), time.seconds * 1e3,
                                      speed(time) * 1e-9));
  }
  check.text = fmt::format("{}", fmt::join(texts, ", "));
  if (times.empty()) return check;
  if (times.front().seconds > kSlowSeconds || speed(times.back()) < kSlowBytesPerSecond) {
    check.health = Health::kWarn;
    check.remedy =
        "more ranks than cores, a busy machine, or a slow network: mpirun --mca btl_base_verbose 30 says which one "
        "Open MPI takes, --mca btl_tcp_if_include chooses it";
  }
  return check;
}

std::vector<Check> rank_checks(comm::MpiSession& session, const std::string& version) {
  std::vector<Check> checks;
  checks.push_back({"program", Health::kOk, program_text(version), "install the same build on all hosts", true});
  checks.push_back({"MPI", Health::kOk, mpi_text(session), "load the same MPI on all hosts", true});
  if (session.size() == 1) return checks;
  checks.push_back(clock_check(measure_clock(session)));
  const std::vector<SumTime> times = measure_sums(session);
  if (session.is_root()) checks.push_back(sum_speed_check(times, session.size()));
  return checks;
}

}  // namespace neoloom::launch
