// SPDX-License-Identifier: Apache-2.0
#include "launch/planning/device_sheets.h"

#include <algorithm>
#include <array>
#include <cctype>

namespace neoloom::launch {
namespace {

constexpr std::array kSheets = {
    DeviceSheet{"a10", "NVIDIA A10", 8, 6, 24, 600, 31.2, 125},
    DeviceSheet{"a30", "NVIDIA A30", 8, 0, 24, 933, 10.3, 165},
    DeviceSheet{"a40", "NVIDIA A40", 8, 6, 48, 696, 37.4, 149.7},
    DeviceSheet{"a100-40", "NVIDIA A100 40GB", 8, 0, 40, 1555, 19.5, 312},
    DeviceSheet{"a100-80", "NVIDIA A100 80GB PCIe", 8, 0, 80, 1935, 19.5, 312},
    DeviceSheet{"a100-80-sxm", "NVIDIA A100 80GB SXM", 8, 0, 80, 2039, 19.5, 312},
    DeviceSheet{"h100", "NVIDIA H100 SXM", 9, 0, 80, 3350, 67, 989},
    DeviceSheet{"h100-pcie", "NVIDIA H100 PCIe", 9, 0, 80, 2000, 51, 756},
    DeviceSheet{"h200", "NVIDIA H200 SXM", 9, 0, 141, 4800, 67, 989},
    DeviceSheet{"l4", "NVIDIA L4", 8, 9, 24, 300, 30.3, 121},
    DeviceSheet{"l40s", "NVIDIA L40S", 8, 9, 48, 864, 91.6, 362},
    DeviceSheet{"rtx3090", "NVIDIA GeForce RTX 3090", 8, 6, 24, 936, 35.6, 71},
    DeviceSheet{"rtx4090", "NVIDIA GeForce RTX 4090", 8, 9, 24, 1008, 82.6, 165.2},
};

}  // namespace

std::span<const DeviceSheet> device_sheets() { return kSheets; }

const DeviceSheet* find_device_sheet(const std::string& name) {
  std::string lower = name;
  std::transform(lower.begin(), lower.end(), lower.begin(), [](unsigned char c) { return std::tolower(c); });
  const auto found =
      std::find_if(kSheets.begin(), kSheets.end(), [&](const auto& sheet) { return lower == sheet.name; });
  return found == kSheets.end() ? nullptr : &*found;
}

std::string device_names() {
  std::string names;
  for (const DeviceSheet& sheet : kSheets) names += (names.empty() ? "" : ", ") + std::string(sheet.name);
  return names;
}

}  // namespace neoloom::launch
