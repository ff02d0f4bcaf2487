// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/checkpoint/fixtures.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <iterator>

#include "runtime/core/error.h"
#include "runtime/core/hash.h"

// The leak checker of sanitizer builds calls this: HDF5 leaks when it gives up on a damaged structure, which these
// tests give it with a correct hash.
// NOLINTBEGIN(bugprone-reserved-identifier,readability-identifier-naming): the sanitizer names it
extern "C" const char* __lsan_default_suppressions();
extern "C" const char* __lsan_default_suppressions() { return "leak:libhdf5"; }
// NOLINTEND(bugprone-reserved-identifier,readability-identifier-naming)

namespace neoloom::checkpoint {

State make_state(int64_t step, size_t elements) {
  State state;
  const auto half = static_cast<int64_t>(elements / 2);
  state.index = {{"layer.lora_A.weight", {2, half / 2}, 0}, {"layer.lora_B.weight", {half}, half}};
  for (size_t i = 0; i < elements; ++i) {
    const float value = static_cast<float>(i) * 0.25F + static_cast<float>(step);
    state.params.push_back(value);
    state.exp_avg.push_back(-value);
    state.exp_avg_sq.push_back(value * value);
  }
  state.step = step;
  state.epoch = step / 10;
  state.step_in_epoch = step % 10;
  state.loss_scale = 65536.0;
  state.good_steps = step;
  state.skipped_steps = 1;
  state.best_metric = 0.1 + static_cast<double>(step);
  state.best_step = step / 2;
  state.config = "trainer_config:\n  learning_rate: 2.0e-4\n";
  state.identity = R"({"model":"abc"})";
  state.label_map = "[\"ham\",\"spam \U0001F600\"]";
  state.history = R"([{"event":"train","step":1,"loss":0.5}])";
  return state;
}

bool equal(const State& a, const State& b) {
  return a.index == b.index && a.params == b.params && a.exp_avg == b.exp_avg && a.exp_avg_sq == b.exp_avg_sq &&
         a.step == b.step && a.epoch == b.epoch && a.step_in_epoch == b.step_in_epoch && a.loss_scale == b.loss_scale &&
         a.good_steps == b.good_steps && a.skipped_steps == b.skipped_steps && a.best_metric == b.best_metric &&
         a.best_step == b.best_step && a.config == b.config && a.identity == b.identity && a.label_map == b.label_map &&
         a.history == b.history && a.best_params == b.best_params && a.initial_params == b.initial_params &&
         a.optimizer == b.optimizer && a.exp_avg_codes == b.exp_avg_codes && a.exp_avg_sq_codes == b.exp_avg_sq_codes;
}

std::string refusal(const std::function<void()>& act) {
  try {
    act();
  } catch (const core::Error& error) {
    EXPECT_EQ(error.kind(), core::ErrorKind::kCheckpoint) << error.what();
    return error.what();
  }
  return "";
}

std::string read_bytes(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

void write_bytes(const std::string& path, const std::string& bytes) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file << bytes;
}

void sign(const std::string& checkpoint_path) {
  const std::filesystem::path path(checkpoint_path);
  write_bytes(std::filesystem::path(path).replace_extension(".sha256"),
              core::sha256_of_file(checkpoint_path) + "  " + path.filename().string() + "\n");
}

}  // namespace neoloom::checkpoint
