// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string_view>

namespace neoloom::launch {

// Reasons that several tables of foreign keys give.
// clang-format off
inline constexpr std::string_view kNoSecrets = "secrets do not belong in a configuration; set HF_TOKEN in the environment of what downloads or uploads";
inline constexpr std::string_view kCode = "neoloom runs no code from model folders";
inline constexpr std::string_view kReturned = "it changes what Python gets back";
inline constexpr std::string_view kDownloadAgain = "delete the model in Hugging Face's cache to download it again";
inline constexpr std::string_view kOffline = "set HF_HUB_OFFLINE=1 to forbid downloads";
inline constexpr std::string_view kProxy = "HTTPS_PROXY in the environment names a proxy";
inline constexpr std::string_view kDtypes = "runtime.compute_dtype sets the compute dtype, of evaluations too";
inline constexpr std::string_view kWhole = "every rank holds the frozen weights";
inline constexpr std::string_view kKernels = "neoloom has compiled kernels of its own";
inline constexpr std::string_view kHub = "nothing is uploaded; adapter/ of the run folder can be, as it is";
inline constexpr std::string_view kReport = "metrics.jsonl in the run folder holds every figure";
inline constexpr std::string_view kLoader = "one thread of each rank prepares batches; runtime.prefetch_batches says how many";
inline constexpr std::string_view kEval = "evaluations stream and are exact on any number of ranks";
inline constexpr std::string_view kPython = "it is about Python's own machinery";
inline constexpr std::string_view kTpu = "neoloom runs on CPUs and NVIDIA GPUs";
inline constexpr std::string_view kColumns = "data.text_column, data.label_column and similar keys name the columns";
// clang-format on

}  // namespace neoloom::launch
