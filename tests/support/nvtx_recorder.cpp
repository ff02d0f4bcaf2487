// SPDX-License-Identifier: Apache-2.0
// A tool for NVTX, as NVTX_INJECTION64_PATH names one: writes each range that a thread begins to the file NVTX_RECORD,
// a line each, indented by the ranges around it.
#include <nvtx3/nvToolsExt.h>

#include <cstdio>
#include <cstdlib>

namespace {

thread_local int depth = 0;

std::FILE* record() {
  static std::FILE* const file = std::fopen(std::getenv("NVTX_RECORD"), "w");
  return file;
}

int push(const char* name) {
  std::fprintf(record(), "%*s%s\n", 2 * depth, "", name);
  std::fflush(record());
  return depth++;
}

int pop() { return --depth; }

nvtxDomainHandle_t create_domain(const char* /*name*/) {
  static int domain = 0;
  return reinterpret_cast<nvtxDomainHandle_t>(&domain);
}

}  // namespace

extern "C" int InitializeInjectionNvtx2(NvtxGetExportTableFunc_t export_table) {
  const auto* callbacks = static_cast<const NvtxExportTableCallbacks*>(export_table(NVTX_ETID_CALLBACKS));
  NvtxFunctionTable core = nullptr;
  NvtxFunctionTable core2 = nullptr;
  unsigned int size = 0;
  if (callbacks->GetModuleFunctionTable(NVTX_CB_MODULE_CORE, &core, &size) == 0) return 0;
  if (callbacks->GetModuleFunctionTable(NVTX_CB_MODULE_CORE2, &core2, &size) == 0) return 0;
  *core[NVTX_CBID_CORE_RangePushA] = reinterpret_cast<NvtxFunctionPointer>(push);
  *core[NVTX_CBID_CORE_RangePop] = reinterpret_cast<NvtxFunctionPointer>(pop);
  *core2[NVTX_CBID_CORE2_DomainCreateA] = reinterpret_cast<NvtxFunctionPointer>(create_domain);
  return 1;
}
