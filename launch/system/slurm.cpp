// SPDX-License-Identifier: Apache-2.0
#include "launch/system/slurm.h"

#include <nlohmann/json.hpp>
#include <string>

#include "runtime/core/environment.h"

namespace neoloom::launch {

nlohmann::ordered_json slurm_ids() {
  nlohmann::ordered_json ids = nlohmann::ordered_json::object();
  const auto add = [&ids](const char* key, const std::string& id) {
    if (!id.empty()) ids[key] = id;
  };
  add("slurm_job_id", core::environment("SLURM_JOB_ID"));
  add("slurm_array_job_id", core::environment("SLURM_ARRAY_JOB_ID"));
  add("slurm_array_task_id", core::environment("SLURM_ARRAY_TASK_ID"));
  return ids;
}

}  // namespace neoloom::launch
