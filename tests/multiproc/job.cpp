// SPDX-License-Identifier: Apache-2.0
// Is a small job that test_job_end.py, test_missing_rank.py and test_pmpi_counter.py start under mpirun. Its first
// argument says how it ends. Its main() is written as that of neoloom is. Two more arguments, RANK and PHASE, stop that
// rank where it enters that phase; "start" is the phase before MPI_Init.
#include <mpi.h>
#include <sched.h>

#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include "launch/system/placement.h"
#include "runtime/comm/collective_error.h"
#include "runtime/comm/mpi_session.h"
#include "runtime/comm/signals.h"
#include "runtime/core/error.h"

namespace {

using namespace neoloom;
using comm::MpiSession;
using core::ErrorKind;

void wait_for_peers(MpiSession& session) {
  std::vector<int64_t> flag{1};
  session.all_reduce_sum(flag);
}

// Fails on rank 1, while the other ranks wait in a collective that it never joins.
int fail_on_one_rank(MpiSession& session) {
  if (session.rank() == 1) core::fail(ErrorKind::kWeights, "this rank's file is gone");
  wait_for_peers(session);
  return 0;
}

int fail_together(MpiSession& session) {
  session.run_on_root([]() -> std::string { core::fail(ErrorKind::kCheckpoint, "none of 3 checkpoints is valid"); });
  return 0;
}

int hang_one_rank(MpiSession& session) {
  session.set_peer_timeout(1.0);
  if (session.rank() == 1) raise(SIGSTOP);
  const auto guard = session.guard("gradient sum", 12, 1.0);
  wait_for_peers(session);
  return 0;
}

// Does what a run does, in small. Rank 0 works alone for longer than the timeout, and its peers for longer than rank 0.
int pass_phases(MpiSession& session) {
  using std::chrono::milliseconds;
  session.set_peer_timeout(1.0);
  {
    const auto phase = session.phase("building a cache", MpiSession::kBuilding);
    session.run_on_root([]() -> std::string {
      std::this_thread::sleep_for(milliseconds(2500));
      return "";
    });
  }
  {
    const auto phase = session.phase("uneven work");
    if (!session.is_root()) std::this_thread::sleep_for(milliseconds(2500));
    session.all_gather("done");
  }
  {
    const auto phase = session.phase("sums");
    auto communicator = session.make_host_communicator();
    std::vector<int64_t> gradient(1000, 1);
    communicator->all_reduce_sum(gradient.data(), gradient.size(), comm::Element::kInt64);
    session.sleeping_barrier();
  }
  if (session.is_root()) std::puts("passed");
  return 0;
}

// Waits for rank 1, which lives, but whose work does not end.
int work_for_ever(MpiSession& session) {
  session.set_peer_timeout(1.0);
  const auto phase = session.phase("a long sum", MpiSession::kShort);
  if (session.rank() == 1) std::this_thread::sleep_for(std::chrono::seconds(60));
  wait_for_peers(session);
  return 0;
}

int die_on_one_rank(MpiSession& session) {
  if (session.rank() == 1) raise(SIGKILL);
  wait_for_peers(session);
  return 0;
}

// Works in steps until any rank was asked to stop; all leave at the same step with the code for "resume me".
int stop_on_signal(MpiSession& session) {
  const comm::StopSignal stop;
  session.sleeping_barrier();  // a rank without its handler would die of the signal
  if (session.is_root()) {
    std::puts("running");
    std::fflush(stdout);
  }
  for (int step = 0; step < 2000; ++step) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
    std::vector<int64_t> flag{stop.requested() ? 1 : 0};
    session.all_reduce_max(flag);
    if (flag[0] != 0) return core::kExitStopped;
  }
  return 0;
}

int show_cores(MpiSession& session) {
  launch::assign_devices(session, "cpu", 0);
  cpu_set_t set;
  CPU_ZERO(&set);
  sched_getaffinity(0, sizeof set, &set);
  for (const std::string& text : session.all_gather(std::to_string(CPU_COUNT(&set)))) {
    if (session.is_root()) std::printf("cores %s\n", text.c_str());
  }
  return 0;
}

int tell_of_mpi(MpiSession& /*session*/) {
  int started = 0;
  MPI_Initialized(&started);
  std::printf("%s\n", started != 0 ? "started" : "not started");
  return 0;
}

// Makes two marked steps of known traffic.
int count_bytes(MpiSession& session) {
  auto communicator = session.make_host_communicator();
  std::vector<int64_t> gradient(1000, 1);
  for (int64_t step = 1; step <= 2; ++step) {
    session.mark(step);
    communicator->all_reduce_sum(gradient.data(), 500 * static_cast<size_t>(step), comm::Element::kInt64);
  }
  session.mark(-1);
  char letters[10] = "";
  session.broadcast(letters, sizeof letters);
  session.sleeping_barrier();
  return 0;
}

int run(MpiSession& session, const std::string& mode) {
  static const std::map<std::string, std::function<int(MpiSession&)>> kModes{
      {"fail_on_one_rank", fail_on_one_rank}, {"fail_together", fail_together},
      {"hang_one_rank", hang_one_rank},       {"pass_phases", pass_phases},
      {"work_for_ever", work_for_ever},       {"die_on_one_rank", die_on_one_rank},
      {"stop_on_signal", stop_on_signal},     {"show_cores", show_cores},
      {"count_bytes", count_bytes},           {"tell_of_mpi", tell_of_mpi}};
  try {
    return kModes.at(mode)(session);
  } catch (const comm::CollectiveError& error) {
    if (session.is_root()) std::fprintf(stderr, "error: %s\n", error.what());
    return error.exit_code();
  } catch (const core::Error& error) {
    std::fprintf(stderr, "error: rank %d: %s\n", session.rank(), error.what());
    session.abort(error.exit_code());
  }
}

}  // namespace

int main(int argc, char** argv) {
  const char* own_rank = std::getenv("OMPI_COMM_WORLD_RANK");
  const bool stops = argc > 3 && own_rank != nullptr && std::string(own_rank) == argv[2];
  const std::string where = stops ? argv[3] : "";
  if (where == "start") std::raise(SIGSTOP);
  try {
    MpiSession session(&argc, &argv);
    session.on_phase([&where](const std::string& name) {
      if (name == where) std::raise(SIGSTOP);
    });
    return run(session, argc > 1 ? argv[1] : "");
  } catch (const core::Error& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return error.exit_code();
  }
}
