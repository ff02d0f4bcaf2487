// SPDX-License-Identifier: Apache-2.0

#include <fmt/format.h>

#include <string>

#include "launch/command_line.h"
#include "launch/commands/checkpoint.h"
#include "launch/commands/doctor.h"
#include "launch/commands/download.h"
#include "launch/commands/evaluate.h"
#include "launch/commands/export.h"
#include "launch/commands/generate.h"
#include "launch/commands/init.h"
#include "launch/commands/plan.h"
#include "launch/commands/predict.h"
#include "launch/commands/prepare.h"
#include "launch/commands/report.h"
#include "launch/commands/status.h"
#include "launch/commands/tokenize.h"
#include "launch/commands/top.h"
#include "launch/commands/train.h"
#include "launch/config/redact.h"
#include "launch/job/test_hooks.h"
#include "runtime/comm/collective_error.h"
#include "runtime/comm/launcher.h"
#include "runtime/comm/mpi_session.h"
#include "runtime/core/error.h"
#include "runtime/core/logger.h"
#include "runtime/core/output.h"
#include "runtime/core/process.h"
#include "runtime/core/text.h"

namespace {

using neoloom::core::ErrorKind;
namespace launch = neoloom::launch;

int run(neoloom::comm::MpiSession& session, const launch::CommandLine& line) {
  if (line.command == "train") return launch::run_train(session, line.train);
  if (line.command == "init") return launch::run_init(session, line.init);
  if (line.command == "prepare") return launch::run_prepare(session, line.prepare);
  if (line.command == "plan") return launch::run_plan(session, line.plan);
  if (line.command == "evaluate") return launch::run_evaluate(session, line.evaluate);
  if (line.command == "predict") return launch::run_predict(session, line.predict);
  if (line.command == "generate") return launch::run_generate(session, line.generate);
  if (line.command == "export") return launch::run_export(session, line.export_);
  if (line.command == "tokenize") return launch::run_tokenize(session, line.tokenize);
  if (line.command == "download") return launch::run_download(session, line.download);
  if (line.command == "status") return session.is_root() ? launch::run_status(line.status) : 0;
  if (line.command == "top") return session.is_root() ? launch::run_top(line.top) : 0;
  if (line.command == "report") return session.is_root() ? launch::run_report(line.report) : 0;
  if (line.command == "doctor") return launch::run_doctor(session, line.doctor);
  return session.is_root() ? launch::run_checkpoint(line.checkpoint.verb, line.checkpoint.path) : 0;
}

// Returns the message of an error, in which contents of files may stand: without control characters, megabytes and
// secrets.
std::string shown(const std::exception& error) {
  constexpr size_t kLongestMessageBytes = 20'000;
  return neoloom::core::printable(launch::redacted(error.what()), kLongestMessageBytes);
}

// Runs the command. An error that every rank has is printed once and ends them together. One rank's own error ends the
// job through MPI, because the others may be waiting for it.
int run_guarded(neoloom::comm::MpiSession& session, const launch::CommandLine& line) {
  int code = 0;
  std::string text;
  try {
    return run(session, line);
  } catch (const neoloom::comm::CollectiveError& error) {
    if (session.is_root()) session.log().error(shown(error));
    return error.exit_code();
  } catch (const neoloom::core::Error& error) {
    text = shown(error);
    code = error.exit_code();
  } catch (const std::exception& error) {
    text = "internal error: " + shown(error);
    code = static_cast<int>(ErrorKind::kInternal);
  }
  if (session.size() == 1) {
    session.log().error(text);
    return code;
  }
  // This logger has no prefix: whatever rank it is, this is why the job ends.
  neoloom::core::Logger().error(fmt::format("{} (rank {} on {})", text, session.rank(), session.host_name()));
  session.abort(code);
}

}  // namespace

int main(int argc, char** argv) {
  neoloom::core::settle_process();
  launch::CommandLine line;
  try {
    line = launch::parse_command_line(argc, argv);
    if (line.command.empty()) {
      neoloom::core::print_output(line.text);
      return 0;
    }
    if (line.command == "train") launch::require_one_world();
  } catch (const neoloom::core::Error& error) {
    if (neoloom::comm::rank_before_world() == 0) neoloom::core::Logger().error(shown(error));
    return error.exit_code();
  }
  try {
    const launch::PhaseHook fault = launch::phase_fault_from_environment();
    if (fault) fault("start");
    neoloom::comm::MpiSession session(&argc, &argv);
    session.on_phase(fault);
    return run_guarded(session, line);
  } catch (const std::exception& error) {
    neoloom::core::Logger().error(shown(error));
    return static_cast<int>(ErrorKind::kPeer);
  }
}
