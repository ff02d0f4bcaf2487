// SPDX-License-Identifier: Apache-2.0
#include "launch/commands/checkpoint.h"

#include <fmt/ranges.h>

#include <filesystem>

#include "runtime/checkpoint/directory.h"
#include "runtime/core/error.h"
#include "runtime/core/output.h"

namespace neoloom::launch {
namespace {

namespace fs = std::filesystem;
using core::ErrorKind;

fs::path checkpoint_folder(const std::string& path) {
  core::require(fs::is_directory(path), ErrorKind::kUsage, "checkpoint list: {} is not a folder", path);
  const fs::path inside = fs::path(path) / "checkpoints";
  return fs::is_directory(inside) ? inside : fs::path(path);
}

void list(const std::string& path, core::Output& output) {
  const checkpoint::Directory directory(checkpoint_folder(path).string());
  const std::vector<checkpoint::Entry> entries = directory.list();
  if (entries.empty()) {
    output.print("no checkpoints in {}\n", directory.path());
    return;
  }
  output.print("{:>12}  {:>14}  {}\n", "step", "bytes", "state");
  for (const checkpoint::Entry& entry : entries) {
    const std::string problem = checkpoint::problem_with(entry.path);
    const std::string verdict = problem.empty() ? "valid" : "INVALID: " + problem;
    std::error_code ignored;
    output.print("{:>12}  {:>14}  {}\n", entry.step, fs::file_size(entry.path, ignored), verdict);
  }
}

void print_text(const char* name, const std::string& text, core::Output& output) {
  output.print("\n{} ({} bytes)\n{}{}", name, text.size(), text, text.empty() || text.back() == '\n' ? "" : "\n");
}

void inspect(const std::string& path, core::Output& output) {
  const checkpoint::State state = checkpoint::load(path);
  output.print("{}: valid, {} bytes\n\nattributes\n", path, fs::file_size(path));
  output.print("  step           {}\n  epoch          {}\n  step_in_epoch  {}\n", state.step, state.epoch,
               state.step_in_epoch);
  output.print("  loss_scale     {}\n  good_steps     {}\n  skipped_steps  {}\n", state.loss_scale, state.good_steps,
               state.skipped_steps);
  if (state.best_step >= 0) {
    output.print("  best_step      {}\n  best_metric    {}\n", state.best_step, state.best_metric);
  } else {
    output.print("  best_step      none yet\n");
  }
  output.print("  optimizer      {}\n", state.optimizer);
  output.print("\ndatasets\n");
  const auto line = [&output](const char* name, const char* type, size_t elements) {
    if (elements > 0) output.print("  {:<16} {} [{}]\n", name, type, elements);
  };
  line("params", "float32", state.params.size());
  line("exp_avg", "float32", state.exp_avg.size());
  line("exp_avg_sq", "float32", state.exp_avg_sq.size());
  line("exp_avg_codes", "uint8", state.exp_avg_codes.size());
  line("exp_avg_sq_codes", "uint8", state.exp_avg_sq_codes.size());
  output.print("\nindex: {} tensors\n  {:>12}  {:>16}  {}\n", state.index.size(), "offset", "shape", "name");
  for (const checkpoint::IndexEntry& entry : state.index) {
    output.print("  {:>12}  {:>16}  {}\n", entry.offset_elements, fmt::format("[{}]", fmt::join(entry.shape, ", ")),
                 entry.name);
  }
  print_text("identity", state.identity, output);
  print_text("label_map", state.label_map, output);
  print_text("config", state.config, output);
  output.print("\nhistory ({} bytes)\n", state.history.size());
}

}  // namespace

int run_checkpoint(const std::string& verb, const std::string& path) {
  core::Output output;
  if (verb == "list") {
    list(path, output);
  } else if (verb == "inspect" || verb == "verify") {
    core::require(fs::exists(path), ErrorKind::kUsage, "checkpoint {}: {} does not exist", verb, path);
    if (verb == "inspect") {
      inspect(path, output);
    } else {
      const checkpoint::State state = checkpoint::load(path);
      output.print("{}: valid, step {}\n", path, state.step);
    }
  } else {
    core::fail(ErrorKind::kUsage, "checkpoint: unknown verb \"{}\"; expected list DIR, inspect FILE or verify FILE",
               verb);
  }
  output.finish();
  return 0;
}

}  // namespace neoloom::launch
