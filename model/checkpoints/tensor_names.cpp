// SPDX-License-Identifier: Apache-2.0
#include "model/checkpoints/tensor_names.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <string_view>

#include "runtime/core/error.h"

namespace neoloom::model {
namespace {

constexpr const char* kPrefix = "transformer.";
constexpr size_t kListedTensors = 6;
constexpr std::array<std::string_view, 4> kWrappers = {"_orig_mod", "module", "_fsdp_wrapped_module",
                                                       "_checkpoint_wrapped_module"};

/// Lists the first lines: hundreds more would say the same.
std::string listed(const char* title, const std::vector<std::string>& lines) {
  if (lines.empty()) return "";
  const size_t shown = std::min(lines.size(), kListedTensors);
  const auto end = lines.begin() + static_cast<std::ptrdiff_t>(shown);
  return fmt::format("\n  {} ({}): {}{}", title, lines.size(), fmt::join(lines.begin(), end, ", "),
                     shown == lines.size() ? "" : fmt::format(" and {} more", lines.size() - shown));
}

}  // namespace

std::string without_wrappers(const std::string& name, std::set<std::string>* removed) {
  std::string kept;
  for (size_t begin = 0; begin <= name.size();) {
    const size_t end = std::min(name.find('.', begin), name.size());
    const std::string piece = name.substr(begin, end - begin);
    const bool last = end == name.size();
    if (!last && std::find(kWrappers.begin(), kWrappers.end(), piece) != kWrappers.end()) {
      if (removed != nullptr) removed->insert(piece);
    } else {
      kept += last ? piece : piece + ".";
    }
    begin = end + 1;
  }
  return kept;
}

std::string full_name(const std::string& name) {
  for (const char* start : {"wte.", "wpe.", "h.", "ln_f."}) {
    if (name.starts_with(start)) return kPrefix + name;
  }
  return name;
}

bool is_mask_buffer(const std::string& full_name) {
  return full_name.ends_with(".attn.attention.bias") || full_name.ends_with(".attn.attention.masked_bias");
}

std::string shape_text(const std::vector<int64_t>& shape) { return fmt::format("[{}]", fmt::join(shape, ", ")); }

void TensorReport::missing(const std::string& name, const std::vector<int64_t>& expected) {
  missing_.push_back(fmt::format("{} {}", name, shape_text(expected)));
}

void TensorReport::unexpected(const std::string& name, const std::vector<int64_t>& found) {
  unexpected_.push_back(fmt::format("{} {}", name, shape_text(found)));
}

void TensorReport::misshaped(const std::string& name, const std::vector<int64_t>& expected,
                             const std::vector<int64_t>& found) {
  misshaped_.push_back(fmt::format("{} expected {} found {}", name, shape_text(expected), shape_text(found)));
}

void TensorReport::other(const std::string& line) { other_.push_back(line); }

void TensorReport::raise_unless_empty(const std::string& where, const std::string& hint) const {
  if (empty()) return;
  core::fail(core::ErrorKind::kWeights, "{}: the tensors are not those of this model{}{}{}{}\n  {}", where,
             listed("missing", missing_), listed("unexpected", unexpected_), listed("wrong shape", misshaped_),
             listed("other", other_), hint);
}

}  // namespace neoloom::model
