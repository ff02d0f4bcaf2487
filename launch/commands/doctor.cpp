// SPDX-License-Identifier: Apache-2.0
#include "launch/commands/doctor.h"

#include <ATen/Parallel.h>
#include <ATen/Version.h>
#include <fmt/format.h>
#include <torch/headeronly/version.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <vector>

#include "launch/job/device.h"
#include "launch/job/run_identity.h"
#include "launch/selftest/cpu_self_test.h"
#include "launch/selftest/gpu_self_test.h"
#include "launch/selftest/rank_checks.h"
#include "launch/system/check.h"
#include "launch/system/cpu_info.h"
#include "launch/system/disk.h"
#include "launch/system/limits.h"
#include "launch/system/placement.h"
#include "launch/system/slurm.h"
#include "launch/version.h"
#include "runtime/comm/communicator.h"
#include "runtime/core/clock.h"
#include "runtime/core/error.h"
#include "runtime/core/json.h"
#include "runtime/core/output.h"
#include "runtime/core/proc.h"
#include "runtime/cuda/plugin.h"

namespace neoloom::launch {
namespace {

using nlohmann::ordered_json;

constexpr int kDeviceIsWrong = static_cast<int>(core::ErrorKind::kDevice);

/// Holds a text for people, the same for programs, and whether all is well.
struct Findings {
  std::string text;
  bool good = true;
  ordered_json devices = ordered_json::array();  // {"device", "kernels"} each
  std::vector<Check> checks = {};
};

// As text whose broken UTF-8, in names of devices or messages of libraries, is replaced.
std::string dumped(const ordered_json& json) {
  return json.dump(-1, ' ', false, ordered_json::error_handler_t::replace);
}

double memory_gib() { return static_cast<double>(core::proc_bytes("/proc/meminfo", "MemTotal")) / (1 << 30); }

std::string first_words(const std::string& text) { return text.substr(0, text.find(" (")); }

std::string versions(const comm::MpiSession& session) {
  return fmt::format("neoloom {}\n  LibTorch {}\n  {}\n  {}\n  {}\n", version(), TORCH_VERSION,
                     first_words(at::get_mkldnn_version()), first_words(at::get_mkl_version()),
                     session.library_version());
}

void test(const std::vector<KernelTest>& tests, const std::string& device, const std::string& what,
          Findings& findings) {
  const std::vector<KernelResult> results = run_tests(tests);
  ordered_json kernels = ordered_json::array();
  for (const KernelResult& result : results) {
    ordered_json each = {{"kernel", result.kernel}, {"dtype", result.dtype}};
    each["state"] = result.wrong() ? "fail" : result.passed() ? "ok" : "not used";
    if (!result.not_used.empty()) each["reason"] = result.not_used;
    if (!result.failure.empty()) each["failure"] = result.failure;
    if (result.passed()) each.update({{"error", result.error}, {"limit", result.limit}});
    kernels.push_back(std::move(each));
  }
  findings.devices.push_back({{"device", device}, {"what", what}, {"kernels", std::move(kernels)}});
  findings.text += fmt::format("  {}: {}\n", device, what) + table_of(results);
  findings.good = findings.good && std::none_of(results.begin(), results.end(), std::mem_fn(&KernelResult::wrong));
}

std::vector<KernelTest> joined(std::vector<KernelTest> tests, const std::vector<KernelTest>& more) {
  tests.insert(tests.end(), more.begin(), more.end());
  return tests;
}

void test_cpu(const Placement& placement, Findings& findings) {
  test(joined(cpu_kernel_tests(), libtorch_tests("cpu")), "cpu",
       fmt::format("{}, {:.0f} GiB, LibTorch's kernels for {}, {} thread{} per rank", cpu_model(), memory_gib(),
                   at::get_cpu_capability(), placement.threads, placement.threads == 1 ? "" : "s"),
       findings);
}

void test_gpus(cuda::DevicePlugin& plugin, Findings& findings) {
  const std::string libraries = fmt::format("CUDA runtime {}, driver for CUDA {}, NCCL {}", plugin.runtime_version(),
                                            plugin.driver_version(), plugin.nccl_version());
  findings.text += "  " + libraries + "\n";
  findings.checks.push_back(
      {"CUDA", Health::kOk, libraries, "install the same driver and the same build on all hosts", true});
  const auto make_graph_cache = [&plugin](std::function<void(const std::string&)> log) {
    return plugin.make_graph_cache(std::move(log));
  };
  for (int i = 0; i < plugin.device_count(); ++i) {
    plugin.select(i);
    const std::string device = fmt::format("cuda:{}", i);
    const std::unique_ptr<comm::Communicator> alone = plugin.make_lone_communicator();
    std::vector<KernelTest> tests =
        joined(libtorch_tests(device), device_operator_tests(gpu_traits(plugin, i), device));
    tests.push_back(graph_test(make_graph_cache, device));
    test(joined(tests, lone_sum_tests(*alone, device)), device,
         fmt::format("{}, {:.0f} GiB, compute capability {}, PCI {}", plugin.device_name(i),
                     static_cast<double>(plugin.total_memory_bytes(i)) / (1 << 30), plugin.compute_capability(i),
                     plugin.device_id(i)),
         findings);
  }
}

// Tests all devices of a host on one of its ranks, so that no two ranks load one device.
Findings host_findings(comm::MpiSession& session, const Placement& placement, cuda::DevicePlugin* plugin) {
  Findings findings;
  session.run_on_all_or_fail([&] {
    if (session.local_rank() != 0) return;
    findings.text = fmt::format("host {} ({} rank{})\n", session.host_name(), session.local_size(),
                                session.local_size() == 1 ? "" : "s");
    test_cpu(placement, findings);
    if (plugin != nullptr) test_gpus(*plugin, findings);
    if (!cuda::plugin_present()) findings.text += "  no GPU plug-in: this neoloom is for CPUs alone\n";
  });
  return findings;
}

// Tests an all-reduce over host memory. Element i of rank r is r + i, so every rank knows the sum and sees an error.
Findings host_all_reduce(comm::MpiSession& session) {
  constexpr size_t kElements = size_t{1} << 19;  // 4 MiB
  const std::unique_ptr<comm::Communicator> communicator = session.make_host_communicator();
  std::vector<int64_t> data(kElements);
  session.sleeping_barrier();
  const double start = core::now_seconds();
  for (size_t i = 0; i < kElements; ++i) data[i] = session.rank() + static_cast<int64_t>(i);
  communicator->all_reduce_sum(data.data(), data.size(), comm::Element::kInt64);
  const double seconds = core::now_seconds() - start;
  const int64_t ranks = session.size();
  int64_t wrong = 0;
  for (size_t i = 0; i < kElements; ++i) {
    if (data[i] != ranks * (ranks - 1) / 2 + ranks * static_cast<int64_t>(i)) ++wrong;
  }
  session.all_reduce_sum({&wrong, 1});
  return {fmt::format("transport between ranks\n  {}\n    {:<6} exact all-reduce of 4 MiB, {:.2f} ms\n",
                      communicator->description(), wrong == 0 ? "ok" : "WRONG", seconds * 1e3),
          wrong == 0};
}

std::unique_ptr<cuda::DevicePlugin> plugin_for(comm::MpiSession& session, const Placement& placement) {
  std::unique_ptr<cuda::DevicePlugin> plugin;
  session.run_on_all_or_fail([&] {
    if (placement.device == "cpu") return;
    plugin = cuda::load_device_plugin();
    plugin->restrict_kernels(/*deterministic=*/true);
  });
  return plugin;
}

// What train compares over ranks of their machines.
std::vector<Check> machine_checks(const Placement& placement, cuda::DevicePlugin* plugin) {
  ResolvedSettings mine;
  mine.device_kind = plugin == nullptr ? "cpu" : plugin->device_name(device_index(placement.device));
  mine.instruction_sets = instruction_sets();
  mine.kernel_environment = kernel_environment();
  std::vector<Check> checks;
  for (const auto& [name, value] : machine_fingerprint(mine)) {
    checks.push_back({name, Health::kOk, value.empty() ? "none" : value,
                      "train refuses ranks that differ in this: use hosts of one kind with the same variables, or set "
                      "runtime.allow_mixed_devices: true, without the guarantee of equal bits",
                      /*must_agree=*/true});
  }
  return checks;
}

// The checks of this rank. Collective: every rank.
RankChecks check_rank(comm::MpiSession& session, const std::string& output_dir, std::vector<Check> found) {
  RankChecks mine{session.rank(), session.host_name(), std::move(found)};
  const auto add = [&mine](const std::vector<Check>& more) {
    mine.checks.insert(mine.checks.end(), more.begin(), more.end());
  };
  add(limit_checks(session.local_size()));
  add(rank_checks(session, version()));
  session.run_on_all_or_fail([&] {
    if (!session.is_root()) return;
    add(disk_checks(output_dir));
    add({slurm_check()});
  });
  return mine;
}

/// What all ranks found, on rank 0.
struct Report {
  bool right = true;                    // every kernel and every sum
  std::vector<std::string> hosts;       // a text of each rank; empty of all but one a host
  std::vector<ordered_json> devices;    // likewise
  std::vector<std::string> placements;  // of each rank
  Findings transport;
  std::vector<RankChecks> ranks;
  std::vector<Check> checks;  // of all

  bool has(Health health) const {
    return std::any_of(checks.begin(), checks.end(), [&](const Check& check) { return check.health == health; });
  }
  bool good() const { return right && !has(Health::kFail); }
};

std::string text_of(const Report& report, const comm::MpiSession& session) {
  std::string text = versions(session);
  for (const std::string& host : report.hosts) text += host;
  text += "placement\n";
  for (size_t rank = 0; rank < report.placements.size(); ++rank)
    text += fmt::format("  rank {} on {}: {}\n", rank, report.ranks[rank].host, report.placements[rank]);
  text += report.transport.text + "checks\n" + text_of(report.checks, report.ranks);
  if (!report.right) return text + "Some results are WRONG: do not train on this machine until this is fixed.\n";
  if (!report.good()) return text + "Some checks fail: mend what they name before you train.\n";
  const auto warnings = std::count_if(report.checks.begin(), report.checks.end(),
                                      [](const Check& check) { return check.health == Health::kWarn; });
  if (warnings == 0) return text + "All is well.\n";
  return text +
         fmt::format("{} warning{}: training works, and may be slow or stop.\n", warnings, warnings == 1 ? "" : "s");
}

ordered_json json_of(const Report& report, const comm::MpiSession& session) {
  ordered_json json = {{"neoloom", version()},
                       {"state", !report.good()              ? "fail"
                                 : report.has(Health::kWarn) ? "warn"
                                                             : "ok"},
                       {"exit_code", report.good() ? 0 : kDeviceIsWrong},
                       {"libtorch", TORCH_VERSION},
                       {"onednn", first_words(at::get_mkldnn_version())},
                       {"mkl", first_words(at::get_mkl_version())},
                       {"mpi", session.library_version()}};
  json["ranks"] = ordered_json::array();
  for (size_t rank = 0; rank < report.placements.size(); ++rank) {
    json["ranks"].push_back(
        {{"rank", rank}, {"host", report.ranks[rank].host}, {"placement", report.placements[rank]}});
  }
  json["hosts"] = ordered_json::array();
  for (size_t rank = 0; rank < report.devices.size(); ++rank) {
    if (report.devices[rank].empty()) continue;
    json["hosts"].push_back({{"host", report.ranks[rank].host}, {"devices", report.devices[rank]}});
  }
  json["transport"] = {{"state", report.transport.good ? "ok" : "fail"}, {"text", report.transport.text}};
  json["checks"] = json_of(report.checks, report.ranks);
  return json;
}

}  // namespace

int run_doctor(comm::MpiSession& session, const DoctorArguments& arguments) {
  const auto phase = session.phase("testing devices");
  const Placement placement = assign_devices(session, arguments.device, 0);
  at::set_num_threads(placement.threads);
  const std::unique_ptr<cuda::DevicePlugin> plugin = plugin_for(session, placement);
  Findings host = host_findings(session, placement, plugin.get());
  Report report;
  report.transport = host_all_reduce(session);
  std::vector<Check> found = machine_checks(placement, plugin.get());
  found.insert(found.end(), host.checks.begin(), host.checks.end());
  const RankChecks mine = check_rank(session, arguments.output_dir, std::move(found));
  report.hosts = session.all_gather(host.text);
  report.placements = session.all_gather(placement.explanation);
  for (const std::string& text : session.all_gather(dumped(host.devices)))
    report.devices.push_back(core::parse_json<ordered_json>(text, "a rank's devices", core::ErrorKind::kInternal));
  for (const std::string& text : session.all_gather(pack(mine))) report.ranks.push_back(unpack_checks(text));
  report.checks = merge_checks(report.ranks);
  int64_t wrong = host.good && report.transport.good ? 0 : 1;
  session.all_reduce_sum({&wrong, 1});
  report.right = wrong == 0;
  session.run_on_root([&]() -> std::string {
    core::print_output(arguments.json ? dumped(json_of(report, session)) + "\n" : text_of(report, session));
    return "";
  });
  return report.good() ? 0 : kDeviceIsWrong;
}

}  // namespace neoloom::launch
