// SPDX-License-Identifier: Apache-2.0
#include "launch/commands/checkpoint.h"

#include <fmt/ranges.h>

#include <cstdio>
#include <filesystem>

#include "runtime/checkpoint/directory.h"
#include "runtime/core/error.h"

namespace neoloom::launch {
namespace {

namespace fs = std::filesystem;
using core::ErrorKind;

fs::path checkpoint_folder(const std::string& path) {
  core::require(fs::is_directory(path), ErrorKind::kUsage, "checkpoint list: {} is not a folder", path);
  const fs::path inside = fs::path(path) / "checkpoints";
  return fs::is_directory(inside) ? inside : fs::path(path);
}

void list(const std::string& path) {
  const checkpoint::Directory directory(checkpoint_folder(path).string());
  const std::vector<checkpoint::Entry> entries = directory.list();
  if (entries.empty()) {
    fmt::print("no checkpoints in {}\n", directory.path());
    return;
  }
  fmt::print("{:>12}  {:>14}  {}\n", "step", "bytes", "state");
  for (const checkpoint::Entry& entry : entries) {
    const std::string problem = checkpoint::problem_with(entry.path);
    const std::string verdict = problem.empty() ? "valid" : "INVALID: " + problem;
    std::error_code ignored;
    fmt::print("{:>12}  {:>14}  {}\n", entry.step, fs::file_size(entry.path, ignored), verdict);
  }
}

void print_text(const char* name, const std::string& text) {
  fmt::print("\n{} ({} bytes)\n{}{}", name, text.size(), text, text.empty() || text.back() == '\n' ? "" : "\n");
}

void inspect(const std::string& path) {
  const checkpoint::State state = checkpoint::load(path);
  fmt::print("{}: valid, {} bytes\n\nattributes\n", path, fs::file_size(path));
  fmt::print("  step           {}\n  epoch          {}\n  step_in_epoch  {}\n", state.step, state.epoch,
             state.step_in_epoch);
  fmt::print("  loss_scale     {}\n  good_steps     {}\n  skipped_steps  {}\n", state.loss_scale, state.good_steps,
             state.skipped_steps);
  if (state.best_step >= 0) {
    fmt::print("  best_step      {}\n  best_metric    {}\n", state.best_step, state.best_metric);
  } else {
    fmt::print("  best_step      none yet\n");
  }
  fmt::print("\ndatasets\n");
  for (const char* name : {"params", "exp_avg", "exp_avg_sq"}) {
    fmt::print("  {:<11} float32 [{}]\n", name, state.params.size());
  }
  fmt::print("\nindex: {} tensors\n  {:>12}  {:>16}  {}\n", state.index.size(), "offset", "shape", "name");
  for (const checkpoint::IndexEntry& entry : state.index) {
    fmt::print("  {:>12}  {:>16}  {}\n", entry.offset_elements, fmt::format("[{}]", fmt::join(entry.shape, ", ")),
               entry.name);
  }
  print_text("identity", state.identity);
  print_text("label_map", state.label_map);
  print_text("config", state.config);
  fmt::print("\nhistory ({} bytes)\n", state.history.size());
}

}  // namespace

int run_checkpoint(const std::string& verb, const std::string& path) {
  if (verb == "list") {
    list(path);
  } else if (verb == "inspect" || verb == "verify") {
    core::require(fs::exists(path), ErrorKind::kUsage, "checkpoint {}: {} does not exist", verb, path);
    if (verb == "inspect") {
      inspect(path);
    } else {
      const checkpoint::State state = checkpoint::load(path);
      fmt::print("{}: valid, step {}\n", path, state.step);
    }
  } else {
    core::fail(ErrorKind::kUsage, "checkpoint: unknown verb \"{}\"; known are list DIR, inspect FILE, verify FILE",
               verb);
  }
  return 0;
}

}  // namespace neoloom::launch
