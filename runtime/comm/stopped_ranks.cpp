// SPDX-License-Identifier: Apache-2.0
#include "runtime/comm/stopped_ranks.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace neoloom::comm {
namespace {

// Reads as much of the file as fits, NUL-terminated; "" when it cannot be read. The stack holds all texts, as in the
// watchdog.
template <size_t N>
void read_text(const char* path, std::array<char, N>& text) {
  size_t length = 0;
  const int file = ::open(path, O_RDONLY | O_CLOEXEC);
  if (file >= 0) {
    ssize_t count = 0;
    while (length + 1 < N && (count = ::read(file, text.data() + length, N - 1 - length)) > 0) {
      length += static_cast<size_t>(count);
    }
    ::close(file);
  }
  text[length] = '\0';
}

bool is_stopped(long pid) {
  std::array<char, 64> path{};
  std::array<char, 512> text{};
  std::snprintf(path.data(), path.size(), "/proc/%ld/stat", pid);
  read_text(path.data(), text);
  const char* name_end = std::strrchr(text.data(), ')');  // "PID (NAME) STATE ..."
  return name_end != nullptr && name_end[1] == ' ' && (name_end[2] == 'T' || name_end[2] == 't');
}

// Returns the rank that a process is, or -1.
int rank_of(long pid) {
  std::array<char, 64> path{};
  std::array<char, 65536> text{};
  std::snprintf(path.data(), path.size(), "/proc/%ld/environ", pid);
  read_text(path.data(), text);
  const char* end = text.data() + text.size() - 1;
  for (const char* entry = text.data(); entry < end && *entry != '\0'; entry += std::strlen(entry) + 1) {
    for (const char* name : {"OMPI_COMM_WORLD_RANK=", "PMIX_RANK=", "PMI_RANK="}) {
      if (std::strncmp(entry, name, std::strlen(name)) == 0) return std::atoi(entry + std::strlen(name));
    }
  }
  return -1;
}

}  // namespace

size_t stopped_ranks_here(char* text, size_t size) {
  std::array<char, 64> path{};
  std::array<char, 8192> children{};
  const auto parent = static_cast<long>(::getppid());
  std::snprintf(path.data(), path.size(), "/proc/%ld/task/%ld/children", parent, parent);
  read_text(path.data(), children);
  size_t length = 0;
  text[0] = '\0';
  char* next = children.data();
  while (true) {
    char* here = next;
    const long pid = std::strtol(here, &next, 10);
    if (next == here) return length;
    if (!is_stopped(pid)) continue;
    const int rank = rank_of(pid);
    if (rank < 0) continue;
    const int count = std::snprintf(text + length, size - length, length == 0 ? "rank %d" : ", %d", rank);
    length = std::min(size - 1, length + static_cast<size_t>(std::max(0, count)));
  }
}

}  // namespace neoloom::comm
