// SPDX-License-Identifier: Apache-2.0
#include "launch/commands/doctor.h"

#include <ATen/Parallel.h>
#include <ATen/Version.h>
#include <fmt/format.h>
#include <torch/headeronly/version.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <vector>

#include "launch/job/device.h"
#include "launch/selftest/cpu_self_test.h"
#include "launch/selftest/gpu_self_test.h"
#include "launch/system/cpu_info.h"
#include "launch/system/placement.h"
#include "launch/version.h"
#include "runtime/comm/communicator.h"
#include "runtime/core/clock.h"
#include "runtime/core/error.h"
#include "runtime/core/output.h"
#include "runtime/core/proc.h"
#include "runtime/cuda/plugin.h"

namespace neoloom::launch {
namespace {

constexpr int kDeviceIsWrong = static_cast<int>(core::ErrorKind::kDevice);

/// Holds a text for people, and whether all is well.
struct Findings {
  std::string text;
  bool good = true;

  void add(const Findings& other) {
    text += other.text;
    good = good && other.good;
  }
};

double memory_gib() { return static_cast<double>(core::proc_bytes("/proc/meminfo", "MemTotal")) / (1 << 30); }

std::string first_words(const std::string& text) { return text.substr(0, text.find(" (")); }

std::string versions(const comm::MpiSession& session) {
  return fmt::format("neoloom {}\n  LibTorch {}\n  {}\n  {}\n  {}\n", version(), TORCH_VERSION,
                     first_words(at::get_mkldnn_version()), first_words(at::get_mkl_version()),
                     session.library_version());
}

Findings findings_of(const std::vector<KernelTest>& tests) {
  const std::vector<KernelResult> results = run_tests(tests);
  return {table_of(results), std::none_of(results.begin(), results.end(), std::mem_fn(&KernelResult::wrong))};
}

std::vector<KernelTest> joined(std::vector<KernelTest> tests, const std::vector<KernelTest>& more) {
  tests.insert(tests.end(), more.begin(), more.end());
  return tests;
}

Findings cpu_findings(const Placement& placement) {
  Findings findings{
      fmt::format("  cpu: {}, {:.0f} GiB, LibTorch's kernels for {}, {} thread{} per rank\n", cpu_model(), memory_gib(),
                  at::get_cpu_capability(), placement.threads, placement.threads == 1 ? "" : "s"),
      true};
  findings.add(findings_of(joined(cpu_kernel_tests(), libtorch_tests("cpu"))));
  return findings;
}

Findings gpu_findings(cuda::DevicePlugin& plugin) {
  Findings findings{fmt::format("  CUDA runtime {}, driver for CUDA {}, NCCL {}\n", plugin.runtime_version(),
                                plugin.driver_version(), plugin.nccl_version()),
                    true};
  const auto make_graph_cache = [&plugin](std::function<void(const std::string&)> log) {
    return plugin.make_graph_cache(std::move(log));
  };
  for (int i = 0; i < plugin.device_count(); ++i) {
    findings.text += fmt::format("  cuda:{}: {}, {:.0f} GiB, compute capability {}, PCI {}\n", i, plugin.device_name(i),
                                 static_cast<double>(plugin.total_memory_bytes(i)) / (1 << 30),
                                 plugin.compute_capability(i), plugin.device_id(i));
    plugin.select(i);
    const std::string device = fmt::format("cuda:{}", i);
    const std::unique_ptr<comm::Communicator> alone = plugin.make_lone_communicator();
    std::vector<KernelTest> tests =
        joined(libtorch_tests(device), device_operator_tests(gpu_traits(plugin, i), device));
    tests.push_back(graph_test(make_graph_cache, device));
    findings.add(findings_of(joined(tests, lone_sum_tests(*alone, device))));
  }
  return findings;
}

// Tests all devices of a host on one of its ranks, so that no two ranks load one device.
Findings host_findings(comm::MpiSession& session, const Placement& placement, cuda::DevicePlugin* plugin) {
  Findings findings;
  session.run_on_all_or_fail([&] {
    if (session.local_rank() != 0) return;
    findings.text = fmt::format("host {} ({} rank{})\n", session.host_name(), session.local_size(),
                                session.local_size() == 1 ? "" : "s");
    findings.add(cpu_findings(placement));
    if (plugin != nullptr) findings.add(gpu_findings(*plugin));
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

}  // namespace

int run_doctor(comm::MpiSession& session, const std::string& device) {
  const auto phase = session.phase("testing devices");
  const Placement placement = assign_devices(session, device, 0);
  at::set_num_threads(placement.threads);
  const std::unique_ptr<cuda::DevicePlugin> plugin = plugin_for(session, placement);
  const Findings host = host_findings(session, placement, plugin.get());
  const Findings transport = host_all_reduce(session);
  const std::vector<std::string> hosts = session.all_gather(host.text);
  const std::vector<std::string> lines = session.all_gather(
      fmt::format("  rank {} on {}: {}\n", session.rank(), session.host_name(), placement.explanation));
  int64_t bad = host.good && transport.good ? 0 : 1;
  session.all_reduce_sum({&bad, 1});
  session.run_on_root([&]() -> std::string {
    std::string report = versions(session);
    for (const std::string& text : hosts) report += text;
    report += "placement\n";
    for (const std::string& text : lines) report += text;
    report += transport.text;
    report +=
        bad == 0 ? "All is well.\n" : "Some results are WRONG: do not train on this machine until this is fixed.\n";
    core::print_output(report);
    return "";
  });
  return bad == 0 ? 0 : kDeviceIsWrong;
}

}  // namespace neoloom::launch
