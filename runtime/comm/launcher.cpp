// SPDX-License-Identifier: Apache-2.0
#include "runtime/comm/launcher.h"

#include <cstdlib>
#include <initializer_list>

namespace neoloom::comm {
namespace {

const char* first_set(std::initializer_list<const char*> names) {
  for (const char* name : names) {
    if (const char* value = std::getenv(name); value != nullptr && *value != '\0') return value;
  }
  return nullptr;
}

}  // namespace

bool started_by_launcher() { return first_set({"OMPI_COMM_WORLD_SIZE", "PMIX_RANK", "PMI_RANK"}) != nullptr; }

int rank_before_world() {
  const char* const rank = started_by_launcher()    ? first_set({"OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK"})
                           : slurm_step_tasks() > 1 ? first_set({"SLURM_PROCID"})
                                                    : nullptr;
  return rank == nullptr ? 0 : std::atoi(rank);
}

int64_t slurm_step_tasks() {
  if (first_set({"SLURM_STEP_ID"}) == nullptr) return 1;
  // SLURM_NTASKS of an interactive step is the allocation's, but then the step's own number is there, too.
  const char* const tasks = first_set({"SLURM_STEP_NUM_TASKS", "SLURM_NTASKS"});
  return tasks == nullptr ? 1 : std::atoll(tasks);
}

}  // namespace neoloom::comm
