// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <nlohmann/json_fwd.hpp>

#include "launch/system/check.h"

namespace neoloom::launch {

/// Returns slurm_job_id and, of a job array, slurm_array_job_id and slurm_array_task_id; an empty object outside of
/// Slurm.
nlohmann::ordered_json slurm_ids();

/// The job that this process belongs to, and the version of Slurm, which a call of srun tells.
Check slurm_check();

}  // namespace neoloom::launch
