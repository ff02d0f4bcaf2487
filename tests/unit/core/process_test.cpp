// SPDX-License-Identifier: Apache-2.0
#include "runtime/core/process.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <string>

namespace neoloom::core {
namespace {

const std::filesystem::path kExecutable = std::filesystem::read_symlink("/proc/self/exe");

TEST(ProgramFolder, IsThatOfTheProgramNotOfTheLoaderThatStartedIt) {
  EXPECT_EQ(program_folder(), kExecutable.parent_path());
  const std::string under_a_loader =
      "/lib64/ld-linux-x86-64.so.2 " + kExecutable.string() +
      " --gtest_also_run_disabled_tests --gtest_filter=ProgramFolder.DISABLED_UnderALoader";
  EXPECT_EQ(std::system(under_a_loader.c_str()), 0);
}

// Runs in the process that the test above starts.
TEST(ProgramFolder, DISABLED_UnderALoader) {
  EXPECT_TRUE(std::filesystem::exists(program_folder() / "unit_core")) << program_folder();
  EXPECT_NE(program_folder(), kExecutable.parent_path()) << "no loader";
}

}  // namespace
}  // namespace neoloom::core
