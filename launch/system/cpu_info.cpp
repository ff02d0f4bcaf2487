// SPDX-License-Identifier: Apache-2.0
#include "launch/system/cpu_info.h"

#include <ATen/Version.h>

#include <set>
#include <sstream>

#include "model/cpu_traits.h"
#include "runtime/core/proc.h"

namespace neoloom::launch {

namespace {
constexpr const char* kCpuInfo = "/proc/cpuinfo";
}

std::string cpu_model() { return core::proc_text(kCpuInfo, "model name").value_or("unknown CPU"); }

std::string instruction_sets() {
  const std::set<std::string> deciding = {"avx2",        "fma",         "avx512f",     "avx512vl",
                                          "avx512_bf16", "avx512_vnni", "avx512_fp16", "amx_tile",
                                          "amx_bf16",    "amx_fp16",    "avx_vnni"};
  std::istringstream words(core::proc_text(kCpuInfo, "flags").value_or(""));
  std::string found;
  for (std::string word; words >> word;) {
    if (deciding.count(word) != 0) found += word + " ";
  }
  found += model::cpu_gemm_kernels();
  return found + "| " + at::get_cpu_capability();
}

}  // namespace neoloom::launch
