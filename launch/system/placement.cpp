// SPDX-License-Identifier: Apache-2.0
#include "launch/system/placement.h"

#include <fmt/format.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <optional>
#include <set>
#include <sstream>

#include "runtime/comm/collective_error.h"
#include "runtime/core/environment.h"
#include "runtime/core/error.h"
#include "runtime/core/proc.h"
#include "runtime/core/wire.h"
#include "runtime/cuda/plugin.h"

namespace neoloom::launch {
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(RankResources, host, cores, gpu_ids, user_bound)

namespace {

using core::ErrorKind;
namespace fs = std::filesystem;

constexpr int kMaxCores = 8192;

struct FreeCpuSet {
  void operator()(cpu_set_t* set) const { CPU_FREE(set); }
};
using CpuSet = std::unique_ptr<cpu_set_t, FreeCpuSet>;

// Returns the cores that a process may use; nullopt when it is gone or not ours to see.
std::optional<std::vector<int>> affinity_of(pid_t process) {
  CpuSet set(CPU_ALLOC(kMaxCores));
  const size_t bytes = CPU_ALLOC_SIZE(kMaxCores);
  CPU_ZERO_S(bytes, set.get());
  if (sched_getaffinity(process, bytes, set.get()) != 0) return std::nullopt;
  std::vector<int> cores;
  for (int core = 0; core < kMaxCores; ++core) {
    if (CPU_ISSET_S(core, bytes, set.get())) cores.push_back(core);
  }
  return cores;
}

// Moves all threads, because those that exist already (MPI's) would otherwise keep the old cores.
void set_own_affinity(const std::vector<int>& cores) {
  CpuSet set(CPU_ALLOC(kMaxCores));
  const size_t bytes = CPU_ALLOC_SIZE(kMaxCores);
  CPU_ZERO_S(bytes, set.get());
  for (int core : cores) CPU_SET_S(core, bytes, set.get());
  std::error_code error;
  for (const auto& task : fs::directory_iterator("/proc/self/task", error)) {
    // A failure leaves the thread where it is, which costs speed, not correctness.
    (void)sched_setaffinity(std::atoi(task.path().filename().c_str()), bytes, set.get());
  }
}

// Returns the cores that mpirun (or its daemon on this host) was itself allowed: it binds its children, never itself.
std::optional<std::vector<int>> cores_of_launcher() {
  static const std::set<std::string> launchers{"mpirun", "mpiexec", "orterun", "orted", "prterun", "prted", "prte"};
  pid_t process = getppid();
  for (int depth = 0; depth < 8 && process > 1; ++depth) {
    if (launchers.contains(core::first_line(fmt::format("/proc/{}/comm", process)))) return affinity_of(process);
    process = static_cast<pid_t>(core::process_stat(process).value_or(core::ProcessStat{}).parent);
  }
  return std::nullopt;
}

// Returns a container's share of processor time in whole cores; nullopt without a limit. Reads control groups version
// 2, then 1.
std::optional<int> core_quota() {
  double quota = -1, period = 0;
  std::istringstream line(core::first_line("/sys/fs/cgroup/cpu.max"));
  if (!(line >> quota >> period)) {
    quota = std::atof(core::first_line("/sys/fs/cgroup/cpu/cpu.cfs_quota_us").c_str());
    period = std::atof(core::first_line("/sys/fs/cgroup/cpu/cpu.cfs_period_us").c_str());
  }
  if (quota <= 0 || period <= 0) return std::nullopt;
  return std::max(1, static_cast<int>(std::floor(quota / period)));
}

// Returns this rank's cores, after undoing a binding that nobody asked for.
RankResources own_cores(const comm::MpiSession& session) {
  RankResources mine;
  mine.host = session.host_name();
  mine.cores = affinity_of(0).value_or(std::vector<int>{0});
  mine.user_bound = binding_chosen_by_user(core::environment);
  if (mine.user_bound || core::environment("OMPI_COMM_WORLD_SIZE").empty()) return mine;
  const std::optional<std::vector<int>> allowed = cores_of_launcher();
  if (!allowed || *allowed == mine.cores) return mine;
  // Open MPI 4 passes options of mpirun to the ranks as parameters, Open MPI 5 does not.
  mine.user_bound = default_binding_is_off(core::environment);
  if (mine.user_bound) return mine;
  set_own_affinity(*allowed);
  mine.cores = affinity_of(0).value_or(mine.cores);
  return mine;
}

// Cuts the cores to the container's quota, which all ranks of a host share.
void apply_quota(std::vector<int>& cores) {
  const std::optional<int> quota = core_quota();
  if (quota && static_cast<size_t>(*quota) < cores.size()) cores.resize(static_cast<size_t>(*quota));
}

bool want_gpu(const std::string& device_option) {
  core::require(device_option == "auto" || device_option == "cpu" || device_option == "cuda", ErrorKind::kUsage,
                "runtime.device is '{}', expected auto, cpu or cuda", device_option);
  return device_option == "cuda" || (device_option == "auto" && cuda::gpu_present());
}

// Returns the ids of the GPUs visible here. With "auto" a GPU that cannot be used is a reason to compute on the CPU,
// said in `note`.
std::vector<std::string> visible_gpus(const std::string& device_option, std::string& note) {
  if (!want_gpu(device_option)) return {};
  std::vector<std::string> ids;
  try {
    const std::unique_ptr<cuda::DevicePlugin> plugin = cuda::load_device_plugin();
    for (int i = 0; i < plugin->device_count(); ++i) ids.push_back(plugin->device_id(i));
  } catch (const core::Error& error) {
    if (device_option == "cuda") throw;
    note = error.what();
  }
  return ids;
}

int ranks_on(const std::vector<RankResources>& ranks, const std::string& host) {
  return static_cast<int>(std::count_if(ranks.begin(), ranks.end(), [&](const auto& r) { return r.host == host; }));
}

// Throws if some rank has no GPU of its own. Every rank sees the same list, so every rank throws the same error.
void require_gpu_each(const std::vector<RankResources>& ranks) {
  for (int rank = 0; rank < static_cast<int>(ranks.size()); ++rank) {
    if (choose_gpu(ranks, rank) >= 0) continue;
    const RankResources& resources = ranks[static_cast<size_t>(rank)];
    throw comm::CollectiveError(
        ErrorKind::kDevice,
        fmt::format("Host {} runs {} ranks and no GPU is left for rank {} (it sees {}): ranks do not share a GPU. "
                    "Start at most one rank per GPU (mpirun --map-by ppr:N:node), or set runtime.device: cpu",
                    resources.host, ranks_on(ranks, resources.host), rank, resources.gpu_ids.size()));
  }
}

// Returns true in tests in which every rank of a host takes the first GPU it sees.
bool ranks_share_gpus() { return !core::environment("NEOLOOM_SHARE_GPU").empty(); }

// Returns whether every rank has a GPU. Only then does "auto" compute on GPUs: unlike devices would compute unlike
// bits.
bool every_rank_has_gpu(const std::vector<RankResources>& ranks) {
  return std::none_of(ranks.begin(), ranks.end(), [](const auto& r) { return r.gpu_ids.empty(); });
}

std::string explain(const RankResources& mine, const Placement& placement, int64_t threads_option, int local_ranks,
                    const std::string& note) {
  std::string text =
      fmt::format("{} with {} thread{} ({}; {} core{} for {} rank{} on this host{})", placement.device,
                  placement.threads, placement.threads == 1 ? "" : "s", threads_option > 0 ? "as configured" : "auto",
                  mine.cores.size(), mine.cores.size() == 1 ? "" : "s", local_ranks, local_ranks == 1 ? "" : "s",
                  mine.user_bound ? ", bound by the user" : "");
  if (static_cast<size_t>(placement.threads) * static_cast<size_t>(local_ranks) > mine.cores.size() &&
      !mine.user_bound) {
    text += "; more threads than cores: expect it to be slow";
  }
  if (!note.empty()) text += "; no GPU is used: " + note;
  return text;
}

}  // namespace

bool binding_chosen_by_user(std::string (*lookup)(core::Variable)) {
  for (const core::Variable variable : core::Variables{
           "OMPI_MCA_hwloc_base_binding_policy", "OMPI_MCA_hwloc_base_cpu_list", "OMPI_MCA_rmaps_base_cpus_per_rank",
           "OMPI_MCA_rmaps_rank_file_path", "PRTE_MCA_hwloc_default_binding_policy"}) {
    const std::string value = lookup(variable);
    if (!value.empty() && !value.starts_with("none")) return true;
  }
  // A mapping such as ppr:2:node says where ranks go, and only its pe=N modifier says what they are bound to.
  for (const core::Variable variable :
       core::Variables{"OMPI_MCA_rmaps_base_mapping_policy", "PRTE_MCA_rmaps_default_mapping_policy"}) {
    std::string mapping = lookup(variable);
    std::transform(mapping.begin(), mapping.end(), mapping.begin(), [](unsigned char c) { return std::tolower(c); });
    if (mapping.find("pe=") != std::string::npos) return true;
  }
  return false;
}

bool default_binding_is_off(std::string (*lookup)(core::Variable)) {
  return lookup("OMPI_MCA_hwloc_base_binding_policy").starts_with("none");
}

int choose_gpu(const std::vector<RankResources>& ranks, int rank) {
  std::set<std::string> taken;
  const std::string& host = ranks.at(static_cast<size_t>(rank)).host;
  for (int other = 0; other <= rank; ++other) {
    const RankResources& resources = ranks[static_cast<size_t>(other)];
    if (resources.host != host) continue;
    const auto& ids = resources.gpu_ids;
    const auto free = std::find_if(ids.begin(), ids.end(), [&](const auto& id) { return !taken.contains(id); });
    if (other == rank) return free == ids.end() ? -1 : static_cast<int>(free - ids.begin());
    if (free != ids.end()) taken.insert(*free);
  }
  return -1;
}

int shared_thread_count(const std::vector<RankResources>& ranks) {
  int threads = kMaxCores;
  for (const RankResources& mine : ranks) {
    std::set<int> of_host;
    for (const RankResources& other : ranks) {
      if (other.host == mine.host) of_host.insert(other.cores.begin(), other.cores.end());
    }
    const int share = static_cast<int>(of_host.size()) / ranks_on(ranks, mine.host);
    threads = std::min({threads, share, static_cast<int>(mine.cores.size())});
  }
  return std::max(threads, 1);
}

Placement assign_devices(comm::MpiSession& session, const std::string& device_option, int64_t threads_option) {
  core::require(threads_option >= 0 && threads_option <= kMaxCores, ErrorKind::kUsage,
                "runtime.threads_per_rank is {}, expected 0 (auto) to {}", threads_option, kMaxCores);
  RankResources mine = own_cores(session);
  apply_quota(mine.cores);
  std::string note;
  session.run_on_all_or_fail([&] { mine.gpu_ids = visible_gpus(device_option, note); });
  std::vector<RankResources> ranks;
  for (const std::string& text : session.all_gather(core::to_wire(mine)))
    ranks.push_back(core::from_wire<RankResources>(text));

  Placement placement;
  const bool on_gpu = device_option != "cpu" && every_rank_has_gpu(ranks);
  if (on_gpu && ranks_share_gpus()) {
    // NCCL up to 2.29 wants a GPU of its own for each rank of a host. This makes each rank a host of its own.
    core::set_environment("NCCL_HOSTID", fmt::format("rank{}", session.rank()));
    placement.device = "cuda:0";
  } else {
    if (on_gpu) require_gpu_each(ranks);
    placement.device = on_gpu ? fmt::format("cuda:{}", choose_gpu(ranks, session.rank())) : "cpu";
  }
  placement.threads = threads_option > 0 ? static_cast<int>(threads_option) : shared_thread_count(ranks);
  placement.explanation = explain(mine, placement, threads_option, ranks_on(ranks, mine.host), note);
  return placement;
}

}  // namespace neoloom::launch
