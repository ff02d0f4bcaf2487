// SPDX-License-Identifier: Apache-2.0
#include "runtime/train/nvtx_ranges.h"

#include <ATen/record_function.h>

#include <memory>

#if __has_include(<nvtx3/nvToolsExt.h>)
#include <nvtx3/nvToolsExt.h>
#define NL_HAS_NVTX 1
#else
#define NL_HAS_NVTX 0
#endif

namespace neoloom::train {

#if NL_HAS_NVTX

namespace {

/// NVTX makes a domain only for a tool.
bool a_tool_listens() {
  const nvtxDomainHandle_t domain = nvtxDomainCreateA("neoloom");
  if (domain == nullptr) return false;
  nvtxDomainDestroy(domain);
  return true;
}

std::unique_ptr<at::ObserverContext> begin(const at::RecordFunction& range) {
  nvtxRangePushA(range.name());
  return nullptr;
}

void end(const at::RecordFunction& /*range*/, at::ObserverContext* /*context*/) { nvtxRangePop(); }

}  // namespace

NvtxRanges::NvtxRanges() {
  if (!a_tool_listens()) return;
  callback_ = at::addGlobalCallback(at::RecordFunctionCallback(begin, end).scopes({at::RecordScope::USER_SCOPE}));
}

#else

NvtxRanges::NvtxRanges() = default;

#endif

NvtxRanges::~NvtxRanges() {
  if (callback_) at::removeCallback(*callback_);
}

}  // namespace neoloom::train
