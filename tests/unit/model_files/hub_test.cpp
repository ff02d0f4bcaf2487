// SPDX-License-Identifier: Apache-2.0
#include <cstdlib>
#include <map>
#include <optional>

#include "model/checkpoints/hub.h"
#include "model/weight_cache/weight_cache.h"
#include "tests/support/scratch.h"

namespace neoloom::model {
namespace {

using core::ErrorKind;
using ::testing::AllOf;
using ::testing::HasSubstr;

/// Unsets the variables that say where Hugging Face's cache lies, and restores them after the test.
class HubCache : public ::testing::Test {
 protected:
  void SetUp() override {
    for (const char* name : {"HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME", "HOME"}) {
      const char* value = std::getenv(name);
      kept_[name] = value == nullptr ? std::nullopt : std::optional<std::string>(value);
      ::unsetenv(name);
    }
    ::setenv("HOME", scratch_.path("home").c_str(), 1);
  }
  void TearDown() override {
    for (const auto& [name, value] : kept_) {
      value ? ::setenv(name.c_str(), value->c_str(), 1) : ::unsetenv(name.c_str());
    }
  }
  void put_model(const std::string& cache) {
    const std::string root = cache + "/models--EleutherAI--gpt-neo-125m";
    scratch_.write(root + "/refs/main", "21def0189f5705e2521767faed922f1f15e7d7db\n");
    scratch_.write(root + "/refs/refs/pr/1", "aaaa");
    scratch_.write(root + "/snapshots/21def0189f5705e2521767faed922f1f15e7d7db/config.json", "{}");
    scratch_.write(root + "/snapshots/aaaa/config.json", "{}");
  }
  std::string resolve(const std::string& revision = "main") {
    return resolve_model_folder("EleutherAI/gpt-neo-125m", revision);
  }
  ScratchFolder scratch_;
  std::map<std::string, std::optional<std::string>> kept_;
};

constexpr const char* kSnapshot =
    "/models--EleutherAI--gpt-neo-125m/snapshots/21def0189f5705e2521767faed922f1f15e7d7db";

TEST_F(HubCache, AFolderIsItself) { EXPECT_EQ(resolve_model_folder(scratch_.path(), "main"), scratch_.path()); }

TEST_F(HubCache, EachVariableLeadsToTheSnapshotInHuggingFacesOrder) {
  put_model("home/.cache/huggingface/hub");
  EXPECT_EQ(resolve(), scratch_.path("home/.cache/huggingface/hub") + kSnapshot);
  ::setenv("XDG_CACHE_HOME", scratch_.path("xdg").c_str(), 1);
  put_model("xdg/huggingface/hub");
  EXPECT_EQ(resolve(), scratch_.path("xdg/huggingface/hub") + kSnapshot);
  ::setenv("HF_HOME", scratch_.path("hf").c_str(), 1);
  put_model("hf/hub");
  EXPECT_EQ(resolve(), scratch_.path("hf/hub") + kSnapshot);
  ::setenv("HF_HUB_CACHE", "~/direct", 1);
  put_model("home/direct");
  EXPECT_EQ(resolve(), scratch_.path("home/direct") + kSnapshot);
}

TEST_F(HubCache, RevisionsAreBranchesPullRequestsAndCommits) {
  put_model("home/.cache/huggingface/hub");
  EXPECT_TRUE(resolve("refs/pr/1").ends_with("/snapshots/aaaa"));
  EXPECT_TRUE(resolve("21def0189f5705e2521767faed922f1f15e7d7db").ends_with(kSnapshot));
  EXPECT_THAT(error_of(ErrorKind::kWeights, [&] { resolve("v2"); }),
              HasSubstr("neoloom download EleutherAI/gpt-neo-125m --revision v2"));
}

TEST_F(HubCache, AnAbsentModelNamesPlacesAndCommands) {
  const std::string text = error_of(ErrorKind::kWeights, [&] { resolve(); });
  EXPECT_THAT(text, AllOf(HasSubstr(scratch_.path("home/.cache/huggingface/hub")), HasSubstr("HF_HOME"),
                          HasSubstr("neoloom download EleutherAI/gpt-neo-125m")));
}

TEST_F(HubCache, NamesThatLeaveTheCacheAreRefused) {
  for (const char* name :
       {"../secret", "a/..", "/etc/nothing-here", "a/b/c", "a/", "a..b/c", "", "a b", ".hidden/x", "-x/y"}) {
    EXPECT_THAT(error_of(ErrorKind::kWeights, [&] { resolve_model_folder(name, "main"); }),
                HasSubstr("not the id of a hub model"))
        << name;
  }
  put_model("home/.cache/huggingface/hub");
  for (const char* revision : {"../main", "/main", "a/../../b", ""}) {
    EXPECT_THAT(error_of(ErrorKind::kWeights, [&] { resolve(revision); }), HasSubstr("revision")) << revision;
  }
  scratch_.write("home/.cache/huggingface/hub/models--EleutherAI--gpt-neo-125m/refs/evil", "../../../..");
  EXPECT_THAT(error_of(ErrorKind::kWeights, [&] { resolve("evil"); }), HasSubstr("expected a commit hash"));
}

TEST(HubId, IsToldFromAPathByItsForm) {
  for (const char* name : {"/models/neo", "./neo", "../neo", "models/gpt/neo"})
    EXPECT_TRUE(is_local_path(name)) << name;
  for (const char* name : {"EleutherAI/gpt-neo-125m", "gpt2", "models/neo"}) EXPECT_FALSE(is_local_path(name)) << name;
}

}  // namespace
}  // namespace neoloom::model
