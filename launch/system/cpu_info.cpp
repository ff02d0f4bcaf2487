// SPDX-License-Identifier: Apache-2.0
#include "launch/system/cpu_info.h"

#include <ATen/Version.h>

#include <fstream>
#include <set>
#include <sstream>

#include "model/cpu_traits.h"

namespace neoloom::launch {

std::string cpu_model() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    if (line.rfind("model name", 0) == 0) return line.substr(line.find(':') + 2);
  }
  return "unknown CPU";
}

std::string instruction_sets() {
  std::ifstream info("/proc/cpuinfo");
  std::string flags;
  for (std::string line; std::getline(info, line);) {
    if (line.rfind("flags", 0) == 0) {
      flags = line;
      break;
    }
  }
  const std::set<std::string> deciding = {"avx2",        "fma",         "avx512f",     "avx512vl",
                                          "avx512_bf16", "avx512_vnni", "avx512_fp16", "amx_tile",
                                          "amx_bf16",    "amx_fp16",    "avx_vnni"};
  std::istringstream words(flags);
  std::string found;
  for (std::string word; words >> word;) {
    if (deciding.count(word) != 0) found += word + " ";
  }
  found += model::cpu_gemm_kernels();
  return found + "| " + at::get_cpu_capability();
}

}  // namespace neoloom::launch
