// SPDX-License-Identifier: Apache-2.0
#include "launch/job/run_folder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "runtime/core/error.h"

namespace neoloom::launch {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

/// Makes a folder where a run was trained, with a base model beside it, and the working directory elsewhere.
class MovedRun : public testing::Test {
 protected:
  MovedRun() : before_(fs::current_path()), root_((fs::temp_directory_path() / "neoloom-run-XXXXXX").string()) {
    if (mkdtemp(root_.data()) == nullptr) throw std::runtime_error("no temporary folder");
    fs::create_directories(root_ + "/house/base");
    fs::create_directories(root_ + "/house/desk/run");
    fs::create_directories(root_ + "/elsewhere");
    std::ofstream(root_ + "/house/dev.jsonl") << "{}\n";
    fs::current_path(root_ + "/house/desk");
    std::ofstream("run/config.yaml") << run_config_text(parse_config(
        "model_config: {pretrained_model_name: ../base}\ndata: {validation: ../dev.jsonl}\n", "run.yaml", {}));
  }
  ~MovedRun() override {
    fs::current_path(before_);
    fs::remove_all(root_);
  }
  fs::path before_;
  std::string root_;
};

TEST_F(MovedRun, IsReadAsItWasWhereItWasTrained) {
  const RunConfig config = read_run_config("run", {});
  EXPECT_EQ(config.model_config.pretrained_model_name, "../base");
  EXPECT_THAT(config.warnings, IsEmpty());
}

TEST_F(MovedRun, FindsWhatItsRelativePathsMeantFromElsewhere) {
  fs::rename("run", root_ + "/elsewhere/moved");
  fs::current_path(root_ + "/elsewhere");
  const RunConfig config = read_run_config("moved", {});
  EXPECT_TRUE(fs::equivalent(config.model_config.pretrained_model_name, root_ + "/house/base"));
  EXPECT_TRUE(fs::equivalent(config.data.validation.front().files.text(), root_ + "/house/dev.jsonl"));
  require_base_there("moved", config);
}

TEST_F(MovedRun, FindsTheFilesOfAPatternFromElsewhere) {
  std::ofstream("run/config.yaml") << run_config_text(
      parse_config("data: {validation: [../d*.jsonl, x.csv]}\n", "run.yaml", {}));
  fs::current_path(root_ + "/elsewhere");
  const RunConfig config = read_run_config("../house/desk/run", {});
  EXPECT_THAT(config.data.validation.front().files.names, testing::ElementsAre(root_ + "/house/d*.jsonl", "x.csv"));
  EXPECT_THAT(config.warnings, IsEmpty());
  fs::current_path(root_ + "/house/desk");
  EXPECT_THAT(read_run_config("run", {}).data.validation.front().files.names,
              testing::ElementsAre("../d*.jsonl", "x.csv"));
  EXPECT_THAT(read_run_config("run", {}).warnings, IsEmpty());
}

TEST_F(MovedRun, TakesWhatIsHereAndSaysThatAnotherWasTrainedWith) {
  fs::create_directories(root_ + "/base");
  fs::current_path(root_ + "/elsewhere");
  const RunConfig config = read_run_config("../house/desk/run", {});
  EXPECT_EQ(config.model_config.pretrained_model_name, "../base");
  EXPECT_THAT(config.warnings, SizeIs(1));
}

TEST_F(MovedRun, NamesThePlacesAndTheKeyWhenItsBaseIsGone) {
  fs::remove_all(root_ + "/house/base");
  fs::current_path(root_ + "/elsewhere");
  const RunConfig config = read_run_config("../house/desk/run", {});
  try {
    require_base_there("../house/desk/run", config);
    FAIL() << "no error";
  } catch (const core::Error& error) {
    EXPECT_EQ(error.kind(), core::ErrorKind::kWeights);
    EXPECT_THAT(error.what(), AllOf(HasSubstr(root_ + "/base"), HasSubstr(root_ + "/house/base"),
                                    HasSubstr("--set model_config.pretrained_model_name=FOLDER")));
  }
}

}  // namespace
}  // namespace neoloom::launch
