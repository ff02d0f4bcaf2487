// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <nlohmann/json_fwd.hpp>

namespace neoloom::launch {

/// Returns slurm_job_id and, of a job array, slurm_array_job_id and slurm_array_task_id; an empty object outside of
/// Slurm.
nlohmann::ordered_json slurm_ids();

}  // namespace neoloom::launch
