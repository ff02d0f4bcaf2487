// SPDX-License-Identifier: Apache-2.0
#include "tests/bench/probes/probe.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <iostream>

#include "runtime/core/error.h"

namespace neoloom::probes {

namespace {

double now_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

/// Returns the first line; LibTorch's errors go on with a stack.
std::string first_line(const std::string& text) { return text.substr(0, text.find('\n')); }

void print(std::ostream& out, const Json& line) { out << line.dump() << std::endl; }  // whole lines, even if killed

}  // namespace

Options read_options(int argc, char** argv, const std::string& purpose) {
  Options options;
  CLI::App app(purpose);
  app.add_flag("--list", options.list, "print the cases as JSON lines, measure nothing");
  app.add_option("--seconds", options.seconds, "time for all cases together; what does not fit in is named at the end")
      ->check(CLI::NonNegativeNumber);
  app.add_option("--only", options.only, "measure what has this text in \"CASE: CANDIDATE\"");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    std::exit(app.exit(error) == 0 ? 0 : static_cast<int>(core::ErrorKind::kUsage));
  }
  return options;
}

bool Budget::fits(double elapsed, double last) {
  longest_ = std::max(longest_, last);
  return elapsed + longest_ <= seconds_;
}

Json line_of(const Item& item) {
  return {{"case", item.name}, {"shape", item.shape}, {"candidate", item.candidate}, {"flops", item.flops}};
}

int measure_items(const std::vector<const Item*>& items, const Options& options,
                  const std::function<Json(size_t)>& measure, const std::function<bool()>& usable, std::ostream& out) {
  Budget budget(options.seconds);
  const double begin = now_seconds();
  double last = 0.0;
  bool works = true;
  size_t next = 0;
  for (; next < items.size() && works; ++next) {
    const double started = now_seconds();
    if (!budget.fits(started - begin, last)) break;
    Json line = line_of(*items[next]);
    try {
      line.update(measure(next));
    } catch (const std::exception& error) {
      line["error"] = first_line(error.what());
      works = usable();
    }
    print(out, line);
    last = now_seconds() - started;
  }
  Json left_out = Json::array();
  for (; next < items.size(); ++next) left_out.push_back(items[next]->title());
  print(out, {{"left_out", left_out}});
  return works ? 0 : static_cast<int>(core::ErrorKind::kDevice);
}

int run_items(const Options& options, const std::vector<const Item*>& items, const std::function<Json()>& prepare,
              const std::function<Json(size_t)>& measure, const std::function<bool()>& usable) {
  if (options.list) {
    for (const Item* item : items) print(std::cout, line_of(*item));
    return 0;
  }
  try {
    print(std::cout, prepare());
    return measure_items(items, options, measure, usable, std::cout);
  } catch (const core::Error& error) {
    std::cerr << error.what() << '\n';
    return error.exit_code();
  }
}

}  // namespace neoloom::probes
