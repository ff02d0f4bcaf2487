// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/ivalue.h>
#include <ATen/record_function.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace neoloom::support {

/// LibTorch's operators as this thread calls them, while the object lives: how many kernels a device would be given,
/// and where the host would wait for it. One object at a time. Work inside at::DisableRecordFunctionGuard is not seen.
class OperatorRecord {
 public:
  OperatorRecord() : handle_(at::addThreadLocalCallback(callback())) { current() = this; }
  ~OperatorRecord() {
    at::removeCallback(handle_);
    current() = nullptr;
  }
  OperatorRecord(const OperatorRecord&) = delete;
  OperatorRecord& operator=(const OperatorRecord&) = delete;

  /// Calls that launch kernels, by name without "aten::". Views and allocations do not count; of operators that are
  /// made of others, the others do.
  const std::map<std::string, int64_t>& kernels() const { return kernels_; }
  int64_t total() const {
    int64_t sum = 0;
    for (const auto& entry : kernels_) sum += entry.second;
    return sum;
  }
  /// Counts what a test's stand-in for an operator did.
  static void count(const std::string& name) {
    if (current() != nullptr) ++current()->kernels_[name];
  }

  /// Calls after which the host would hold values of a device: reads, and moves between devices.
  const std::vector<std::string>& waits() const { return waits_; }

 private:
  struct Depth final : at::ObserverContext {
    bool counted = false;
  };

  static OperatorRecord*& current() {
    static thread_local OperatorRecord* record = nullptr;
    return record;
  }

  template <size_t n>
  static bool is_one_of(std::string_view name, const std::array<std::string_view, n>& names) {
    return std::find(names.begin(), names.end(), name) != names.end();
  }

  static bool is_free(std::string_view name) {
    static constexpr std::array<std::string_view, 22> kFree = {
        "view",    "t",      "transpose",    "as_strided",   "narrow",        "slice",         "select",  "unsqueeze",
        "squeeze", "expand", "empty",        "empty_like",   "empty_strided", "new_empty",     "resize_", "detach",
        "permute", "alias",  "_unsafe_view", "resolve_conj", "resolve_neg",   "_reshape_alias"};
    return is_one_of(name, kFree);
  }
  static bool is_made_of_others(std::string_view name) {
    static constexpr std::array<std::string_view, 10> kMade = {
        "to", "_to_copy", "linear", "matmul", "contiguous", "reshape", "clone", "zeros_like", "zeros", "expand_as"};
    return is_one_of(name, kMade);
  }
  /// Boolean indexing and comparisons of whole tensors read a count or a flag back.
  static bool reads_values(std::string_view name) {
    static constexpr std::array<std::string_view, 8> kReads = {
        "item", "_local_scalar_dense", "is_nonzero", "nonzero", "masked_select", "equal", "allclose", "_unique2"};
    return is_one_of(name, kReads);
  }
  /// A type conversion names no device; Tensor::cpu() and Tensor::to(device) do.
  static bool names_a_device(std::string_view name, const at::RecordFunction& function) {
    if (name != "to" && name != "_to_copy") return false;
    const auto inputs = function.inputs();
    return std::any_of(inputs.begin(), inputs.end(), [](const c10::IValue& value) { return value.isDevice(); });
  }

  void enter(const at::RecordFunction& function, Depth& depth) {
    std::string_view name = function.name();
    constexpr std::string_view kPrefix = "aten::";
    if (name.substr(0, kPrefix.size()) == kPrefix) name.remove_prefix(kPrefix.size());
    if (reads_values(name) || names_a_device(name, function)) waits_.emplace_back(name);
    if (inside_ == 0 && !is_free(name) && !is_made_of_others(name)) {
      ++kernels_[std::string(name)];
      depth.counted = true;
      ++inside_;
    }
  }

  static at::RecordFunctionCallback callback() {
    return at::RecordFunctionCallback(
               [](const at::RecordFunction& function) -> std::unique_ptr<at::ObserverContext> {
                 auto depth = std::make_unique<Depth>();
                 if (current() != nullptr) current()->enter(function, *depth);
                 return depth;
               },
               [](const at::RecordFunction&, at::ObserverContext* context) {
                 if (current() != nullptr && static_cast<Depth*>(context)->counted) --current()->inside_;
               })
        .needsInputs(true)
        .scopes({at::RecordScope::FUNCTION});
  }

  at::CallbackHandle handle_;
  std::map<std::string, int64_t> kernels_;
  std::vector<std::string> waits_;
  int64_t inside_ = 0;  // counted operators around this one
};

}  // namespace neoloom::support
