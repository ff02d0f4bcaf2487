// SPDX-License-Identifier: Apache-2.0
#include "runtime/core/process.h"
#include "runtime/core/environment.h"

#include <fcntl.h>
#include <malloc.h>
#include <unistd.h>

#include <array>
#include <climits>
#include <csignal>
#include <cstdint>
#include <fstream>
#include <sstream>

namespace neoloom::core {
namespace {

// Opens /dev/null for each of the descriptors 0 to 2 that the caller closed. Otherwise the next file that is opened
// would get that number, and output would go into it. The access mode is the opposite one, so reading standard input
// and writing output fail as on a closed descriptor.
void hold_standard_descriptors() {
  for (int descriptor = STDIN_FILENO; descriptor <= STDERR_FILENO; ++descriptor) {
    if (::fcntl(descriptor, F_GETFD) >= 0) continue;
    const int writes = descriptor == STDIN_FILENO ? O_WRONLY : O_RDONLY;
    if (::open("/dev/null", writes) != descriptor) return;  // open() takes the lowest free number
  }
}

}  // namespace

void settle_process() {
  std::signal(SIGPIPE, SIG_DFL);
  std::signal(SIGXFSZ, SIG_IGN);
  hold_standard_descriptors();
  set_environment_default("MKL_CBWR", "AVX512,STRICT");
  set_environment_default("CUBLAS_WORKSPACE_CONFIG", ":4096:8");
  constexpr int kLargestHeapBlock = 32 << 20;  // glibc accepts no more
  constexpr int kHeapGrowth = 16 << 20;
  if (!environment_if_set("MALLOC_MMAP_THRESHOLD_")) ::mallopt(M_MMAP_THRESHOLD, kLargestHeapBlock);
  if (!environment_if_set("MALLOC_TRIM_THRESHOLD_")) ::mallopt(M_TRIM_THRESHOLD, INT_MAX);
  if (!environment_if_set("MALLOC_TOP_PAD_")) ::mallopt(M_TOP_PAD, kHeapGrowth);
}

std::filesystem::path program_file() {
  // The program's file is the one that this code was mapped from: "begin-end rights offset device inode path".
  const auto here = reinterpret_cast<uintptr_t>(&program_file);
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);) {
    std::istringstream words(line);
    uintptr_t begin = 0, end = 0;
    char dash = 0;
    std::string rights, offset, device, inode, path;
    words >> std::hex >> begin >> dash >> end >> rights >> offset >> device >> inode >> std::ws;
    if (here < begin || here >= end) continue;
    std::getline(words, path);
    return path;
  }
  return {};
}

std::string host_name() {
  std::array<char, 256> name{};
  return ::gethostname(name.data(), name.size() - 1) == 0 ? name.data() : "unknown-host";
}

}  // namespace neoloom::core
