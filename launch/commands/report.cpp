// SPDX-License-Identifier: Apache-2.0
#include "launch/commands/report.h"

#include <fmt/format.h>

#include <vector>

#include "launch/job/model_names.h"
#include "launch/report/page.h"
#include "runtime/core/error.h"
#include "runtime/core/output.h"

namespace neoloom::launch {
namespace {

constexpr const char* kFile = "/report.html";

}  // namespace

int run_report(const ReportArguments& arguments) {
  std::vector<RunRecord> runs;
  ModelsArguments words;
  words.runs = arguments.runs;
  for (const auto& [name, model] : name_models(words)) runs.push_back(read_run(model.run, name));
  core::require(runs.size() == 1 || !arguments.output.empty(), core::ErrorKind::kUsage,
                "a report of {} runs belongs to none of their folders: name its file, e.g. --output comparison.html",
                runs.size());
  const std::string path = arguments.output.empty() ? runs.front().folder + kFile : arguments.output;
  core::prepare_output_file(path);
  core::write_output_file(path, report_page(runs));
  core::print_output(path + "\n");
  return 0;
}

std::string write_report_of(const std::string& run) {
  try {
    core::write_output_file(run + kFile, report_page({read_run(run)}));
    return "";
  } catch (const std::exception& error) {
    return fmt::format("report.html was not written: {}. Once that is mended: neoloom report --run {}", error.what(),
                       run);
  }
}

}  // namespace neoloom::launch
