// SPDX-License-Identifier: Apache-2.0
#include "runtime/comm/mpi_session.h"

#include <mpi.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <climits>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <optional>
#include <thread>

#include "runtime/comm/collective_error.h"
#include "runtime/comm/heartbeat.h"
#include "runtime/comm/host_communicator.h"
#include "runtime/comm/launcher.h"
#include "runtime/comm/mpi_check.h"
#include "runtime/core/environment.h"
#include "runtime/core/process.h"

namespace neoloom::comm {
namespace {

// Sets variables that Open MPI reads in MPI_Init. What the user has set stays.
void set_mpi_defaults() {
  if (std::atoi(core::environment("OMPI_COMM_WORLD_LOCAL_SIZE").c_str()) > 1) {
    // Waiting ranks yield their core to compute threads of other ranks. On a free core that costs nothing. On shared
    // cores a small all-reduce takes 0.2 to 0.6 ms with it, 10 to 60 ms without it.
    core::set_environment_default("OMPI_MCA_mpi_yield_when_idle", "1");
  }
}

// Tests `request` until it is done. Spins for 0.2 ms, in case the peers are nearly there, then sleeps up to 5 ms at a
// time, so that a rank which works for minutes has the cores of the ranks that wait.
void wait_patiently(MPI_Request& request) {
  using std::chrono::microseconds;
  constexpr microseconds kLongest{5000};
  const auto spin_until = std::chrono::steady_clock::now() + microseconds(200);
  microseconds pause{50};
  while (true) {
    int done = 0;
    NL_MPI_CHECK(MPI_Test(&request, &done, MPI_STATUS_IGNORE));
    if (done != 0) return;
    if (std::chrono::steady_clock::now() < spin_until) {
      std::this_thread::yield();
      continue;
    }
    std::this_thread::sleep_for(pause);
    pause = std::min(pause * 5 / 4, kLongest);
  }
}

void all_reduce(std::span<int64_t> values, MPI_Op op, MPI_Comm world) {
  if (world == MPI_COMM_NULL) return;  // one rank's values are the result
  for_each_piece(values.size(), kMaxElementsPerCall, [&](size_t first, size_t count) {
    NL_MPI_CHECK(MPI_Allreduce(MPI_IN_PLACE, values.data() + first, static_cast<int>(count), MPI_INT64_T, op, world));
  });
}

double timeout_of_environment() {
  const std::optional<std::string> text = core::environment_if_set("NEOLOOM_PEER_TIMEOUT_SECONDS");
  if (!text) return kPeerTimeoutSeconds;
  char* end = nullptr;
  const double seconds = std::strtod(text->c_str(), &end);
  core::require(end != text->c_str() && *end == '\0' && seconds > 0.0, core::ErrorKind::kUsage,
                "NEOLOOM_PEER_TIMEOUT_SECONDS: expected a number of seconds above 0, found '{}'", *text);
  return seconds;
}

// Runs `work` and returns its error, if it throws one.
std::optional<core::Error> error_of(const std::function<void()>& work) {
  try {
    work();
    return std::nullopt;
  } catch (const core::Error& error) {
    return core::Error(error.kind(), error.what());
  } catch (const std::exception& error) {
    return core::Error(core::ErrorKind::kInternal, error.what());
  }
}

}  // namespace

struct MpiSession::State {
  bool initialized = false;  // false without a launcher: MPI is never called
  MPI_Comm world = MPI_COMM_NULL;
  MPI_Comm local = MPI_COMM_NULL;
  int exceptions_at_start = 0;
  Watchdog watchdog{rank_before_world(), core::host_name()};
  std::unique_ptr<Heartbeat> heartbeat;  // null with one rank or without MPI_THREAD_MULTIPLE
};

MpiSession::MpiSession(int* argc, char*** argv)
    : log_(std::make_unique<core::Logger>()),
      state_(std::make_unique<State>()),
      peer_timeout_seconds_(timeout_of_environment()) {
  state_->exceptions_at_start = std::uncaught_exceptions();
  if (!started_by_launcher()) {
    state_->watchdog.be_alone();
    return;
  }
  int initialized = 0;
  NL_MPI_CHECK(MPI_Initialized(&initialized));
  core::require(initialized == 0, core::ErrorKind::kInternal, "MPI is already initialized: one MpiSession per process");
  set_mpi_defaults();
  int provided = MPI_THREAD_SINGLE;
  {
    const auto starting = phase("MPI_Init", kShort);
    const auto bounded = guard();
    NL_MPI_CHECK(MPI_Init_thread(argc, argv, MPI_THREAD_MULTIPLE, &provided));
  }
  state_->initialized = true;
  NL_MPI_CHECK(MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN));
  NL_MPI_CHECK(MPI_Comm_set_errhandler(MPI_COMM_SELF, MPI_ERRORS_RETURN));
  core::require(provided >= MPI_THREAD_FUNNELED, core::ErrorKind::kPeer,
                "This MPI library offers thread level {}, at least {} (MPI_THREAD_FUNNELED) is needed", provided,
                static_cast<int>(MPI_THREAD_FUNNELED));
  NL_MPI_CHECK(MPI_Comm_rank(MPI_COMM_WORLD, &rank_));
  NL_MPI_CHECK(MPI_Comm_size(MPI_COMM_WORLD, &size_));
  if (size_ == 1) state_->watchdog.be_alone();
  if (rank_ > 0) log_ = std::make_unique<core::Logger>(fmt::format("[rank {} on {}] ", rank_, host_name()));
  // Heartbeats need MPI_THREAD_MULTIPLE. Without them only deadlines end a wait.
  if (size_ > 1 && provided == MPI_THREAD_MULTIPLE) {
    state_->heartbeat = std::make_unique<Heartbeat>(rank_, size_, state_->watchdog);
  }
  state_->watchdog.set_peer_timeout(peer_timeout_seconds_);
  const auto meeting = phase("the first message between ranks", kShort);
  const auto bounded = guard();
  // Duplicates keep our messages apart from those of any library that uses MPI_COMM_WORLD. They inherit its error
  // handler.
  NL_MPI_CHECK(MPI_Comm_dup(MPI_COMM_WORLD, &state_->world));
  NL_MPI_CHECK(MPI_Comm_split_type(state_->world, MPI_COMM_TYPE_SHARED, rank_, MPI_INFO_NULL, &state_->local));
  NL_MPI_CHECK(MPI_Comm_rank(state_->local, &local_rank_));
  NL_MPI_CHECK(MPI_Comm_size(state_->local, &local_size_));
}

MpiSession::~MpiSession() {
  const bool unwinding = std::uncaught_exceptions() > state_->exceptions_at_start;
  // MPI_Finalize would wait for peers that may be waiting for this rank in a collective, and so never come.
  if (!state_->initialized || (unwinding && size_ > 1)) return;
  if (state_->heartbeat) {
    const auto leaving = phase("the end of the run");
    const auto bounded = guard();
    state_->heartbeat->leave();
  }
  const auto ending = phase("MPI_Finalize", kShort);
  // Twice the timeout: rank 0 may still be in leave(), waiting for a lost rank. It can name that rank, so it ends
  // first.
  const auto bounded = guard("MPI_Finalize", 0, 2 * peer_timeout_seconds_);
  MPI_Comm_free(&state_->local);
  MPI_Comm_free(&state_->world);
  MPI_Finalize();
}

MpiSession::Phase::Phase(MpiSession& session, const std::string& name, Patience patience)
    : session_(session), outer_name_(session.phase_name_), outer_patience_(session.patience_) {
  session_.enter(name, patience);
  session_.log().debug(name);
  if (session_.phase_hook_) session_.phase_hook_(name);
}

MpiSession::Phase::~Phase() { session_.enter(outer_name_, outer_patience_); }

void MpiSession::enter(const std::string& name, Patience patience) {
  phase_name_ = name;
  patience_ = patience;
  state_->watchdog.work_in(name);
}

void MpiSession::set_peer_timeout(double seconds) {
  peer_timeout_seconds_ = seconds;
  state_->watchdog.set_peer_timeout(seconds);
  if (state_->heartbeat) state_->heartbeat->set_peer_timeout(seconds);
}

Watchdog::Guard MpiSession::guard(const std::string& name, int64_t step, double deadline_seconds) {
  return state_->watchdog.guard(name, step, deadline_seconds);
}

Watchdog::Guard MpiSession::guard() {
  return guard(phase_name_, 0, static_cast<double>(patience_) * peer_timeout_seconds_);
}

std::string MpiSession::host_name() const { return core::host_name(); }

std::string MpiSession::library_version() const {
  std::array<char, MPI_MAX_LIBRARY_VERSION_STRING> text{};
  int length = 0;
  NL_MPI_CHECK(MPI_Get_library_version(text.data(), &length));
  // The library says "Open MPI v4.1.4, package: Debian Open MPI, ident: ..."
  std::string version(text.data(), static_cast<size_t>(length));
  version = version.substr(0, version.find(','));
  if (const size_t v = version.find(" v"); v != std::string::npos) version.erase(v + 1, 1);
  return version;
}

void MpiSession::broadcast(void* bytes, size_t count_bytes, int root) {
  if (size_ == 1) return;
  const auto bounded = guard();
  for_each_piece(count_bytes, kMaxElementsPerCall, [&](size_t first, size_t count) {
    char* piece = static_cast<char*>(bytes) + first;
    NL_MPI_CHECK(MPI_Bcast(piece, static_cast<int>(count), MPI_BYTE, root, state_->world));
  });
}

void MpiSession::broadcast(std::string& text, int root) {
  if (size_ == 1) return;
  uint64_t length = text.size();
  broadcast(&length, sizeof length, root);
  text.resize(length);
  broadcast(text.data(), text.size(), root);
}

void MpiSession::broadcast_on_host(std::string& text) {
  if (local_size_ == 1) return;
  const auto bounded = guard();
  auto length = static_cast<int>(text.size());
  NL_MPI_CHECK(MPI_Bcast(&length, 1, MPI_INT, 0, state_->local));
  text.resize(static_cast<size_t>(length));
  NL_MPI_CHECK(MPI_Bcast(text.data(), length, MPI_BYTE, 0, state_->local));
}

void MpiSession::all_reduce_max(std::span<int64_t> values) {
  const auto bounded = guard();
  all_reduce(values, MPI_MAX, state_->world);
}
void MpiSession::all_reduce_min(std::span<int64_t> values) {
  const auto bounded = guard();
  all_reduce(values, MPI_MIN, state_->world);
}
void MpiSession::all_reduce_sum(std::span<int64_t> values) {
  const auto bounded = guard();
  all_reduce(values, MPI_SUM, state_->world);
}

std::vector<std::string> MpiSession::all_gather(const std::string& text) {
  if (size_ == 1) return {text};
  const auto bounded = guard();
  const size_t ranks = static_cast<size_t>(size_);
  std::vector<int64_t> lengths(ranks);
  const int64_t mine = static_cast<int64_t>(text.size());
  NL_MPI_CHECK(MPI_Allgather(&mine, 1, MPI_INT64_T, lengths.data(), 1, MPI_INT64_T, state_->world));
  int64_t total = 0;
  std::vector<int> counts(ranks), offsets(ranks);
  for (size_t rank = 0; rank < ranks; ++rank) {
    core::require(total + lengths[rank] <= INT_MAX, core::ErrorKind::kInternal,
                  "all_gather is for short texts; {} ranks together gave more than 2 GiB", size_);
    counts[rank] = static_cast<int>(lengths[rank]);
    offsets[rank] = static_cast<int>(total);
    total += lengths[rank];
  }
  std::string joined(static_cast<size_t>(total), '\0');
  NL_MPI_CHECK(MPI_Allgatherv(text.data(), static_cast<int>(mine), MPI_BYTE, joined.data(), counts.data(),
                              offsets.data(), MPI_BYTE, state_->world));
  std::vector<std::string> texts(ranks);
  for (size_t rank = 0; rank < ranks; ++rank) {
    texts[rank] = joined.substr(static_cast<size_t>(offsets[rank]), static_cast<size_t>(counts[rank]));
  }
  return texts;
}

void MpiSession::sleeping_barrier() {
  if (size_ == 1) return;
  const auto bounded = guard();
  MPI_Request request = MPI_REQUEST_NULL;
  NL_MPI_CHECK(MPI_Ibarrier(state_->world, &request));
  wait_patiently(request);
}

// Broadcasts how work ended on `root`: with `error`, which every rank then throws, or with `text`.
void MpiSession::broadcast_outcome(const std::optional<core::Error>& error, std::string& text, int root) {
  if (error) text = error->what();
  std::array<int64_t, 2> header{error ? error->exit_code() : 0, static_cast<int64_t>(text.size())};
  if (size_ > 1) {
    const auto bounded = guard();
    MPI_Request request = MPI_REQUEST_NULL;
    NL_MPI_CHECK(MPI_Ibcast(header.data(), 2, MPI_INT64_T, root, state_->world, &request));
    wait_patiently(request);
    text.resize(static_cast<size_t>(header[1]));
    broadcast(text.data(), text.size(), root);
  }
  if (header[0] != 0) throw CollectiveError(static_cast<core::ErrorKind>(header[0]), text);
}

std::string MpiSession::run_on_root(const std::function<std::string()>& work) {
  std::string text;
  std::optional<core::Error> error;
  if (is_root()) error = error_of([&] { text = work(); });
  broadcast_outcome(error, text, 0);
  return text;
}

void MpiSession::agree_no_error(std::optional<core::Error> error) {
  int64_t first_failed = error ? rank_ : INT_MAX;
  if (size_ > 1) {
    const auto bounded = guard();
    MPI_Request request = MPI_REQUEST_NULL;
    NL_MPI_CHECK(MPI_Iallreduce(MPI_IN_PLACE, &first_failed, 1, MPI_INT64_T, MPI_MIN, state_->world, &request));
    wait_patiently(request);
    if (error) error.emplace(error->kind(), fmt::format("rank {} on {}: {}", rank_, host_name(), error->what()));
  }
  if (first_failed == INT_MAX) return;
  std::string text;
  broadcast_outcome(error, text, static_cast<int>(first_failed));
}

void MpiSession::run_on_all_or_fail(const std::function<void()>& work) { agree_no_error(error_of(work)); }

void MpiSession::abort(int exit_code) {
  std::fflush(nullptr);
  state_->heartbeat.reset();
  if (size_ == 1) {
    // No peer waits, so the job can end without MPI_Abort, for which the launcher prints a banner.
    if (state_->initialized) MPI_Finalize();
    std::_Exit(exit_code);
  }
  MPI_Abort(MPI_COMM_WORLD, exit_code);
  std::_Exit(exit_code);
}

void MpiSession::mark(int64_t value) {
  if (state_->initialized) MPI_Pcontrol(static_cast<int>(value));
}

std::unique_ptr<Communicator> MpiSession::make_host_communicator() {
  MPI_Comm own = MPI_COMM_NULL;
  const auto bounded = guard();
  if (state_->initialized) NL_MPI_CHECK(MPI_Comm_dup(state_->world, &own));
  return wrap_host_communicator(&own, size_, library_version(), [this] { return guard(); });
}

}  // namespace neoloom::comm
