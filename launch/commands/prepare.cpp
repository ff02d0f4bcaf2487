// SPDX-License-Identifier: Apache-2.0
#include "launch/commands/prepare.h"

#include <fmt/format.h>

#include "launch/job/data_checks.h"
#include "launch/job/hub.h"
#include "launch/job/run_folder.h"
#include "launch/job/training_job.h"
#include "runtime/core/output.h"

namespace neoloom::launch {
namespace {

std::string ready_text(const TrainingJob& job, const WeightFiles& files, const std::string& cache) {
  std::string text = fmt::format("train        {} samples of {}\n", job.train->size(), job.config.data.train.text());
  for (const train::ValidationSet& set : job.validation) {
    text += fmt::format("validation   {} samples{}\n", set.store->size(), set.name.empty() ? "" : " of " + set.name);
  }
  return text + fmt::format("weights      {}\n             {}\ncache        {} (runtime.cache_dir)\n", job.base.folder,
                            files.packed.empty() ? "without copies for CPUs: a GPU reads them"
                                                 : "with packed copies for CPUs like this one",
                            cache);
}

}  // namespace

int run_prepare(comm::MpiSession& session, const PrepareArguments& arguments) {
  TrainingJob job;
  session.run_on_all_or_fail([&] {
    job.config = read_config(arguments.config, arguments.overrides);
    session.log().set_level(core::log_level_from_name(job.config.logging.level));
    session.set_peer_timeout(static_cast<double>(job.config.runtime.peer_timeout_seconds));
  });
  keep_joined(session, job.config);
  if (session.is_root()) {
    for (const std::string& warning : job.config.warnings) session.log().warning(warning);
  }
  fetch_from_hub(session, job.config);
  session.run_on_all_or_fail([&] { read_everything_small(arguments.config.text(), job); });
  open_stores(session, job);
  session.run_on_root([&]() -> std::string {
    for (const std::string& warning : target_warnings(job, *job.train, job.validation)) session.log().warning(warning);
    return "";
  });
  const std::string device = job.config.runtime.device == "cuda" ? "cuda" : "cpu";
  const WeightFiles files = prepare_weights(session, job.config, device, job.base);
  session.run_on_root([&]() -> std::string {
    core::print_output(ready_text(job, files, cache_directory(session, job.config).directory));
    return "";
  });
  return 0;
}

}  // namespace neoloom::launch
