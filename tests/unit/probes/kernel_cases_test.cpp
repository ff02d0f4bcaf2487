// SPDX-License-Identifier: Apache-2.0
// Runs what kernel_probe measures on a GPU on CPU tensors: the own kernels on the host, and LibTorch's operators.
#include "tests/bench/probes/kernel_cases.h"

#include <gtest/gtest.h>

#include <set>

#include "tests/support/fused_kernels_on_host.h"

namespace neoloom::probes {
namespace {

TEST(KernelCases, NamesAreDifferentAndCandidatesComeInPairs) {
  const std::vector<KernelItem> items = kernel_items();
  std::set<std::string> titles;
  for (const KernelItem& item : items) titles.insert(item.title());
  EXPECT_EQ(titles.size(), items.size());
  EXPECT_EQ(items.size(), 2U * 2 * 3 * 4 * 2);  // types, rows, models, operations, candidates
  for (size_t i = 0; i < items.size(); i += 2) {
    EXPECT_EQ(items[i].name, items[i + 1].name);
    EXPECT_TRUE(items[i].own && !items[i + 1].own);
  }
}

TEST(KernelCases, BothCandidatesComputeTheReferenceAndRepeatTheirBits) {
  const cuda::FusedKernels kernels = support::fused_kernels_on_host();
  for (KernelItem item : kernel_items()) {
    if (item.rows != 8192 || item.columns > 3072) continue;
    item.rows = 3;
    SCOPED_TRACE(item.title());
    const Work work = work_of(item, kernels, nullptr, at::kCPU);
    const auto results = [&] {
      if (work.reset) work.reset();
      std::vector<at::Tensor> copies;
      for (const at::Tensor& result : work.run()) copies.push_back(result.clone());
      return copies;
    };
    const std::vector<at::Tensor> first = results(), second = results();
    // One rounding to the type; LibTorch also rounds the bias before it adds it.
    EXPECT_LT(work.error(first), item.dtype == at::kHalf ? 0x1p-10 : 0x1p-7);
    for (size_t i = 0; i < first.size(); ++i) EXPECT_TRUE(first[i].equal(second[i])) << i;
  }
}

}  // namespace
}  // namespace neoloom::probes
