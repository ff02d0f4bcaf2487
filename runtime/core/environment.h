// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>

namespace neoloom::core {

/// One or more environment variables with the same meaning. configs/README.md prints these texts; a test compares them.
struct VariableInfo {
  std::string_view names;          // separated by spaces
  std::string_view default_value;  // value that applies when it is unset; empty: none
  std::string_view reader;         // rooms, scripts and libraries that read it
  std::string_view meaning;
};

/// All of them, also those that only scripts and tests read.
inline constexpr VariableInfo kVariables[] = {
    {"HF_HUB_CACHE HUGGINGFACE_HUB_CACHE", "the folder hub in HF_HOME", "model/checkpoints",
     "cache in which hub ids are looked up, as in Hugging Face's libraries"},
    {"HF_HOME", "the folder huggingface in XDG_CACHE_HOME", "model/checkpoints", "Hugging Face's folder"},
    {"HF_HUB_OFFLINE TRANSFORMERS_OFFLINE", "", "model/checkpoints",
     "1, on, yes or true: hub ids are looked up in the cache only, never downloaded"},
    {"HF_ENDPOINT", "https://huggingface.co", "model/checkpoints", "the hub, or a mirror of it"},
    {"HF_TOKEN HUGGING_FACE_HUB_TOKEN", "what the file of HF_TOKEN_PATH holds", "model/checkpoints",
     "token for private and gated models, sent to the host of HF_ENDPOINT over TLS and to no other"},
    {"HF_TOKEN_PATH", "the file token in HF_HOME", "model/checkpoints", "file with the token of `hf auth login`"},
    {"SSL_CERT_FILE REQUESTS_CA_BUNDLE CURL_CA_BUNDLE", "the system's", "model/checkpoints",
     "file of certificate authorities that downloads trust"},
    {"XDG_CACHE_HOME", "~/.cache", "model/checkpoints, launch/job, cluster/bootstrap",
     "folder of caches. An absolute path also moves neoloom's own cache"},
    {"HOME", "", "model/checkpoints, launch/job, cluster/bootstrap", "what ~ stands for"},
    {"NEOLOOM_DEPS", "~/.cache/neoloom/deps", "cluster/bootstrap",
     "folder of the private Python prefixes that the set-up makes"},
    {"NEOLOOM_PLUGIN", "libneoloom_cuda.so beside the executable", "runtime/cuda", "the GPU plug-in to load"},
    {"NEOLOOM_PEER_TIMEOUT_SECONDS", "300", "runtime/comm",
     "runtime.peer_timeout_seconds until the configuration is read, and of commands that read none"},
    {"NEOLOOM_ROOT", "the folder of sbatch", "cluster/slurm", "the built checkout"},
    {"NEOLOOM_MAX_REQUEUES", "20", "cluster/slurm", "how often a job is requeued"},
    {"NEOLOOM_MAX_RESTARTS", "2", "cluster/slurm", "how often a lost rank is restarted inside the allocation"},
    {"NEOLOOM_RESTART_PAUSE_SECONDS", "10", "cluster/slurm", "seconds before such a restart"},
    {"NO_COLOR", "", "runtime/core, cluster/local", "if set, no colours on the console"},
    {"NEOLOOM_TERMINAL_COLUMNS", "", "runtime/core", "width of the terminal behind mpirun; cluster/local sets it"},
    {"COLUMNS", "80", "runtime/core", "width of a terminal that does not report it"},
    {"LINES", "24", "runtime/core", "height of a terminal that does not report it"},
    {"TERM", "", "runtime/core", "dumb: neither bar nor colours"},
    {"LC_ALL LC_CTYPE LANG", "", "runtime/core", "with UTF-8 in it, the bar is drawn in Unicode"},
    {"OMPI_COMM_WORLD_SIZE", "", "runtime/comm, launch/system", "set by mpirun: there is a launcher"},
    {"OMPI_COMM_WORLD_LOCAL_SIZE", "1", "runtime/comm", "set by mpirun: ranks of this host"},
    {"OMPI_COMM_WORLD_RANK PMIX_RANK PMI_RANK", "0", "runtime/comm",
     "set by the launcher: this rank, for messages before MPI_Init"},
    {"SLURM_PROCID", "0", "runtime/comm", "set by srun: this rank, for messages before MPI_Init"},
    {"SLURM_STEP_ID", "", "runtime/comm", "set by srun: this is a step of a job"},
    {"SLURM_STEP_NUM_TASKS SLURM_NTASKS", "1", "runtime/comm",
     "set by Slurm: tasks of the step. More than one without Open MPI's own variables are refused"},
    {"SLURM_ARRAY_JOB_ID SLURM_ARRAY_TASK_ID", "", "launch/system",
     "set by Slurm in a job array: stand in run_start, beside slurm_job_id"},
    {"SLURM_JOB_NUM_NODES SLURM_CPUS_PER_TASK", "", "launch/system", "set by Slurm: doctor tells them"},
    {"SLURM_JOB_ID SLURM_RESTART_COUNT", "", "launch/commands",
     "set by Slurm: a requeued job takes its run folder back"},
    {"OMPI_MCA_mpi_yield_when_idle", "1 with several ranks on a host", "Open MPI", "waiting ranks yield their core"},
    {"OMPI_MCA_hwloc_base_binding_policy PRTE_MCA_hwloc_default_binding_policy OMPI_MCA_hwloc_base_cpu_list "
     "OMPI_MCA_rmaps_base_cpus_per_rank OMPI_MCA_rmaps_rank_file_path OMPI_MCA_rmaps_base_mapping_policy "
     "PRTE_MCA_rmaps_default_mapping_policy",
     "", "Open MPI, launch/system", "set by mpirun's options: ranks keep a binding that the user chose"},
    {"CUDA_VISIBLE_DEVICES", "all", "CUDA", "GPUs that a rank sees"},
    {"NCCL_HOSTID", "", "NCCL", "set where ranks share a GPU (NEOLOOM_SHARE_GPU)"},
    {"MKL_CBWR", "AVX512,STRICT", "MKL", "kernels whose results do not depend on alignment; part of the run identity"},
    {"CUBLAS_WORKSPACE_CONFIG", ":4096:8", "cuBLAS", "workspaces that keep bits equal; part of the run identity"},
    {"ONEDNN_MAX_CPU_ISA DNNL_MAX_CPU_ISA", "", "oneDNN, model/cpu",
     "largest instruction set of oneDNN's kernels and neoloom's; part of the run identity"},
    {"MKL_ENABLE_INSTRUCTIONS ONEDNN_DEFAULT_FPMATH_MODE DNNL_DEFAULT_FPMATH_MODE ATEN_CPU_CAPABILITY OMP_THREAD_LIMIT "
     "OMP_DYNAMIC NVIDIA_TF32_OVERRIDE TORCH_ALLOW_TF32_CUBLAS_OVERRIDE",
     "", "MKL, oneDNN, LibTorch, OpenMP, cuBLAS", "choose kernels; part of the run identity"},
    {"MALLOC_MMAP_THRESHOLD_ MALLOC_TRIM_THRESHOLD_ MALLOC_TOP_PAD_", "values that keep pages for the next step",
     "glibc", "when memory goes back to the system"},
    {"NEOLOOM_FAULT", "", "launch/job",
     "for tests: a fault on purpose, e.g. kill:rank=R:step=S; CONTRIBUTING.md lists them. "
     "The quick start kills a rank with it"},
    {"NEOLOOM_TRACE_SAMPLES", "", "launch/job",
     "for tests: a file name; each rank appends the sample ids of its micro-batches to FILE.RANK"},
    {"NEOLOOM_STEP", "", "launch/job",
     "for tests: device makes a CPU run compute its optimizer step as a GPU run does: "
     "in operators whose results the host reads one step later"},
    {"NEOLOOM_FORBID_WAITS", "", "launch/job",
     "for tests: if set, a GPU run ends where an operator would make the host wait during a step"},
    {"NEOLOOM_SHARE_GPU", "", "launch/system",
     "for tests: if set, all ranks of a host take its first GPU, which is slow and otherwise refused"},
    {"NEOLOOM_WRITE_TABLES", "", "tests/unit",
     "if set, build/unit_model and build/unit_config write the table of operators per block "
     "(tests/unit/model/block_operators.txt) and configs/KEYS.md before they compare with them"},
    {"NEOLOOM_SHOW_PLANS", "", "tests/unit/model", "if set, build/unit_model prints planned and measured memory"},
    {"NEOLOOM_MUTATIONS", "400", "tests/unit/checkpoint", "how many damaged checkpoints build/unit_checkpoint tries"},
    {"NEOLOOM_JOBS", "the number of cores", "tests", "parallel compilers; at most 2 tests run at once"},
    {"NEOLOOM_SOURCE_DIR NEOLOOM_BUILD_DIR", "", "tests", "set by ctest: the checkout and its build"},
    {"NEOLOOM_SHARED", "", "tests", "folder of large test inputs; without it their tests are skipped"},
};

/// Name of a variable in kVariables. Another name does not compile, so the list is complete.
class Variable {
 public:
  // NOLINTNEXTLINE(google-explicit-constructor): a name is written as text
  consteval Variable(const char* name) : name_(name) {
    if (!is_listed(name)) throw "add this variable to kVariables and to configs/README.md";
  }
  constexpr const char* name() const { return name_; }

 private:
  static constexpr bool is_listed(std::string_view name) {
    for (const VariableInfo& info : kVariables) {
      const std::string_view names = info.names;
      const size_t at = names.find(name);
      const size_t end = at + name.size();
      if (at != names.npos && (at == 0 || names[at - 1] == ' ') && (end == names.size() || names[end] == ' '))
        return true;
    }
    return false;
  }
  const char* name_;
};

using Variables = std::initializer_list<Variable>;

/// The variable's value; empty when it is not set.
std::string environment(Variable variable);
/// The first value that is not empty.
std::string environment(Variables variables);
/// Tells a variable that is empty from one that is not set.
std::optional<std::string> environment_if_set(Variable variable);

/// Sets a variable for libraries that read it later (setenv). Not thread-safe: no other thread may read the environment
/// meanwhile.
void set_environment(Variable variable, const std::string& value);
/// The same, unless the user has set it.
void set_environment_default(Variable variable, const std::string& value);

}  // namespace neoloom::core
