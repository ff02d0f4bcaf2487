// SPDX-License-Identifier: Apache-2.0
#include "runtime/comm/launcher.h"

#include <cstdlib>
#include <string>

#include "runtime/core/environment.h"

namespace neoloom::comm {

using core::environment;

bool started_by_launcher() { return !environment({"OMPI_COMM_WORLD_SIZE", "PMIX_RANK", "PMI_RANK"}).empty(); }

int rank_before_world() {
  std::string rank;
  if (started_by_launcher()) {
    rank = environment({"OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK"});
  } else if (slurm_step_tasks() > 1) {
    rank = environment("SLURM_PROCID");
  }
  return std::atoi(rank.c_str());
}

int64_t slurm_step_tasks() {
  if (environment("SLURM_STEP_ID").empty()) return 1;
  // In an interactive step SLURM_NTASKS counts the tasks of the allocation, but SLURM_STEP_NUM_TASKS is set, too.
  const std::string tasks = environment({"SLURM_STEP_NUM_TASKS", "SLURM_NTASKS"});
  return tasks.empty() ? 1 : std::atoll(tasks.c_str());
}

}  // namespace neoloom::comm
