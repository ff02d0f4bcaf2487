// SPDX-License-Identifier: Apache-2.0
#include "runtime/checkpoint/trial.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <fstream>

#include "runtime/core/error.h"

namespace neoloom::checkpoint {
namespace {

void limit(int resource, uint64_t most) {
  const rlimit both = {most, most};
  ::setrlimit(static_cast<__rlimit_resource_t>(resource), &both);
}

/// Returns the mapped address space of this process. A child begins with as much.
uint64_t mapped_bytes() {
  uint64_t pages = 0;
  std::ifstream("/proc/self/statm") >> pages;
  return pages * static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
}

/// Prepares the child for a crash: no core file, no output on the terminal, no signal handler of a library. Limits its
/// memory and its time.
void keep_to_itself(uint64_t most_bytes) {
  constexpr uint64_t kSlowestBytesASecond = uint64_t{10} << 20;
  const uint64_t seconds = 120 + most_bytes / kSlowestBytesASecond;
  for (const int signal : {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGALRM, SIGXCPU}) ::signal(signal, SIG_DFL);
  limit(RLIMIT_CORE, 0);
  limit(RLIMIT_AS, mapped_bytes() + most_bytes);
  ::alarm(static_cast<unsigned>(seconds));
  if (const int nowhere = ::open("/dev/null", O_WRONLY | O_CLOEXEC); nowhere >= 0) {
    ::dup2(nowhere, STDOUT_FILENO);
    ::dup2(nowhere, STDERR_FILENO);
  }
}

[[noreturn]] void run_and_exit(const std::function<void()>& work) {
  try {
    work();
  } catch (const core::Error&) {  // the file was refused, not a crash
  } catch (...) {
    ::_exit(1);
  }
  ::_exit(0);
}

}  // namespace

std::string failure_in_trial(const std::function<void()>& work, uint64_t most_bytes) {
  const pid_t child = ::fork();
  core::require(child >= 0, core::ErrorKind::kCheckpoint, "cannot make a process to try a checkpoint in: {}",
                std::strerror(errno));
  if (child == 0) {
    keep_to_itself(most_bytes);
    run_and_exit(work);
  }
  int status = 0;
  while (::waitpid(child, &status, 0) < 0) {
    core::require(errno == EINTR, core::ErrorKind::kCheckpoint, "cannot wait for a process: {}", std::strerror(errno));
  }
  if (WIFSIGNALED(status)) return fmt::format("ended by signal {}", WTERMSIG(status));
  return WEXITSTATUS(status) == 0 ? "" : "asked for more memory than the file can need";
}

}  // namespace neoloom::checkpoint
