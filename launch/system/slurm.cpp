// SPDX-License-Identifier: Apache-2.0
#include "launch/system/slurm.h"

#include <fmt/format.h>

#include <array>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "runtime/core/environment.h"

namespace neoloom::launch {
namespace {

// "slurm 23.11.4"; empty: there is no srun.
std::string srun_version() {
  const std::unique_ptr<FILE, int (*)(FILE*)> answer(
      ::popen("command -v srun >/dev/null && timeout 5 srun --version 2>/dev/null", "r"), ::pclose);
  std::array<char, 128> line{};
  if (!answer || std::fgets(line.data(), line.size(), answer.get()) == nullptr) return "";
  const std::string text = line.data();
  return text.substr(0, text.find('\n'));
}

}  // namespace

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

Check slurm_check() {
  const std::string version = srun_version();
  const std::string job = core::environment("SLURM_JOB_ID");
  std::string text = job.empty() ? "not in a job" : "job " + job;
  const auto add = [&](core::Variable variable, const char* what) {
    const std::string value = core::environment(variable);
    if (!job.empty() && !value.empty()) text += fmt::format(", {} {}", value, what);
  };
  add("SLURM_JOB_NUM_NODES", "nodes");
  add("SLURM_NTASKS", "tasks");
  add("SLURM_CPUS_PER_TASK", "cores a task");
  add("SLURM_RESTART_COUNT", "restarts");
  if (job.empty() && version.empty()) return {"Slurm", Health::kOk, "not here"};
  return {"Slurm", Health::kOk, (version.empty() ? "version unknown: no srun here" : version) + ", " + text};
}

}  // namespace neoloom::launch
