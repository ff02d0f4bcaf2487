// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <iosfwd>
#include <limits>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace neoloom::probes {

using Json = nlohmann::ordered_json;

struct Options {
  bool list = false;                                         // print the items, measure nothing
  double seconds = std::numeric_limits<double>::infinity();  // time for all items together
  std::string only;                                          // measure items whose name contains this
};

/// Reads --list, --seconds N, --only TEXT. Prints the help and exits with 0 on --help, with 2 on a wrong argument.
Options read_options(int argc, char** argv, const std::string& purpose);

/// What one candidate computes in one case.
struct Item {
  std::string name;  // of the case
  Json shape;
  std::string candidate;
  double flops = 0.0;

  std::string title() const { return name + ": " + candidate; }
};

/// Time that is left for the items. Keeps as much as the longest item has taken so far, so that the last one ends in
/// time.
class Budget {
 public:
  explicit Budget(double seconds) : seconds_(seconds) {}
  /// Whether another item fits after `elapsed` seconds, of which the last one took `last`.
  bool fits(double elapsed, double last);

 private:
  double seconds_;
  double longest_ = 0.0;
};

/// Removes the items that Options::only does not name.
template <typename AnyItem>
std::vector<AnyItem> chosen(std::vector<AnyItem> items, const Options& options) {
  std::erase_if(items, [&](const AnyItem& item) { return item.title().find(options.only) == std::string::npos; });
  return items;
}

/// Returns {"case", "shape", "candidate", "flops"}.
Json line_of(const Item& item);

/// Measures item by item in their order, and prints a line for each as soon as it is known: line_of() with what
/// `measure` returns, or with "error". Then prints {"left_out": [titles]} of the items that did not fit into the time.
/// `measure` gets the index of the item. `usable` tells after an error whether the device still works.
/// Returns the exit code: 8 if the device no longer works, else 0.
int measure_items(const std::vector<const Item*>& items, const Options& options,
                  const std::function<Json(size_t)>& measure, const std::function<bool()>& usable, std::ostream& out);

/// The main function of a probe. Prints `items` for --list. Otherwise `prepare` checks the device and returns the first
/// line, then measure_items() runs. Returns the exit code.
template <typename AnyItem>
int run(const Options& options, const std::vector<AnyItem>& items, const std::function<Json()>& prepare,
        const std::function<Json(const AnyItem&)>& measure, const std::function<bool()>& usable);

/// The part of run() that does not depend on the type of the items.
int run_items(const Options& options, const std::vector<const Item*>& items, const std::function<Json()>& prepare,
              const std::function<Json(size_t)>& measure, const std::function<bool()>& usable);

template <typename AnyItem>
int run(const Options& options, const std::vector<AnyItem>& items, const std::function<Json()>& prepare,
        const std::function<Json(const AnyItem&)>& measure, const std::function<bool()>& usable) {
  const std::vector<AnyItem> wanted = chosen(items, options);
  std::vector<const Item*> plain;
  for (const AnyItem& item : wanted) plain.push_back(&item);
  return run_items(
      options, plain, prepare, [&](size_t index) { return measure(wanted[index]); }, usable);
}

}  // namespace neoloom::probes
