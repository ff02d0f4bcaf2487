// SPDX-License-Identifier: Apache-2.0
#include "model/weight_cache/weight_cache.h"

#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/randn.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <nlohmann/json.hpp>

#include "model/checkpoints/safetensors.h"
#include "model/checkpoints/tensor_names.h"
#include "model/weight_cache/packed_weights_file.h"
#include "tests/support/scratch.h"

namespace neoloom::model {
namespace {

namespace fs = std::filesystem;
using core::ErrorKind;
using ::testing::AllOf;
using ::testing::HasSubstr;

using NamedTensors = std::vector<std::pair<std::string, at::Tensor>>;

GptNeoConfig small_config() {
  GptNeoConfig config;
  config.vocab_size = 13;
  config.max_position_embeddings = 6;
  config.hidden_size = 4;
  config.num_layers = 2;
  config.num_heads = 2;
  config.intermediate_size = 12;
  return config;
}

NamedTensors random_body(at::ScalarType dtype = at::kFloat) {
  NamedTensors tensors;
  for (const auto& [name, shape] : body_shapes(small_config())) {
    tensors.emplace_back(name, at::randn(shape).to(dtype));
  }
  return tensors;
}

class Loader : public ::testing::Test {
 protected:
  void write(const NamedTensors& tensors, const std::string& name = "model.safetensors") {
    fs::create_directories(scratch_.path("base"));
    write_safetensors(scratch_.path("base/" + name), tensors);
  }
  std::string prepare(Dtype dtype = Dtype::kFloat32, bool verify = false) {
    return prepare_weights(scratch_.path("base"), config_, dtype, scratch_.path("cache"), verify);
  }
  std::string prepare_error() {
    return error_of(ErrorKind::kWeights, [&] { prepare(); });
  }
  void write_index(const std::map<std::string, std::string>& map) {
    scratch_.write("base/model.safetensors.index.json", nlohmann::json{{"weight_map", map}}.dump());
  }
  /// Dates a file back, so that it cannot be one that still changes.
  void settle(const std::string& name, int64_t seconds = 1'000'000'000) {
    const timespec times[2] = {{seconds, 5}, {seconds, 5}};
    ASSERT_EQ(::utimensat(AT_FDCWD, scratch_.path("base/" + name).c_str(), times, 0), 0);
  }
  /// Returns the names of files in a subfolder of the cache, also of those that are not yet published.
  std::vector<std::string> cached(const std::string& subfolder) {
    std::vector<std::string> names;
    std::error_code none;  // no folder, no files
    for (const auto& entry : fs::directory_iterator(scratch_.path("cache/" + subfolder), none)) {
      names.push_back(entry.path().filename().string());
    }
    return names;
  }
  ScratchFolder scratch_;
  GptNeoConfig config_ = small_config();
};

TEST_F(Loader, ValuesArriveUnchangedAndAlignedWhateverTheFileCallsThem) {
  const NamedTensors body = random_body();
  for (const bool prefixed : {true, false}) {
    NamedTensors stored = body;
    if (!prefixed) {
      for (auto& [name, value] : stored) name.erase(0, std::string("transformer.").size());
    }
    write(stored);
    const auto weights = map_weights(prepare(), config_);
    Weights copy = *weights;
    size_t index = 0;
    for_each_body_tensor(copy, [&](const std::string& name, const at::Tensor& value) {
      EXPECT_TRUE(at::equal(value, body[index++].second)) << name;
      EXPECT_EQ(reinterpret_cast<uintptr_t>(value.data_ptr()) % 64, 0U) << name;
    });
    EXPECT_TRUE(weights->lm_head.is_same(weights->wte));
    EXPECT_FALSE(weights->score.defined());
    EXPECT_EQ(weights->source_hash, weights_hash(scratch_.path("base"), scratch_.path("cache"), true));
  }
}

TEST_F(Loader, EveryStoredTypeBecomesEveryFrozenTypeByOneRounding) {
  for (const at::ScalarType from : {at::kDouble, at::kFloat, at::kHalf, at::kBFloat16}) {
    const NamedTensors body = random_body(from);
    write(body);
    for (const auto& [to, scalar] : {std::pair(Dtype::kFloat16, at::kHalf), std::pair(Dtype::kBFloat16, at::kBFloat16),
                                     std::pair(Dtype::kFloat32, at::kFloat)}) {
      const auto weights = map_weights(prepare(to), config_);
      EXPECT_TRUE(at::equal(weights->wte, body.front().second.to(scalar)));
      EXPECT_EQ(weights->ln_f.bias.scalar_type(), scalar);
    }
  }
}

TEST_F(Loader, AllThatIsWrongComesInOneReport) {
  NamedTensors body = random_body();
  body.erase(body.begin() + 1);                                      // wpe
  body[3].second = at::randn({5, 4});                                // h.0 k_proj
  body.emplace_back("transformer.h.7.ln_1.weight", at::randn({4}));  // a layer too many
  body.emplace_back("classifier.weight", at::randn({2, 4}));
  body.emplace_back("lm_head.weight", at::randn({12, 4}));
  write(body);
  EXPECT_THAT(prepare_error(),
              AllOf(HasSubstr("missing (1): transformer.wpe.weight [6, 4]"), HasSubstr("unexpected (2)"),
                    HasSubstr("transformer.h.7.ln_1.weight [4]"), HasSubstr("classifier.weight [2, 4]"),
                    HasSubstr("wrong shape (2)"), HasSubstr("k_proj.weight expected [4, 4] found [5, 4]"),
                    HasSubstr("lm_head.weight expected [13, 4] found [12, 4]")));
  EXPECT_FALSE(fs::exists(scratch_.path("cache/weights")));
}

TEST_F(Loader, AMappedFileThatDoesNotFitTheConfigurationIsReported) {
  write(random_body());
  const std::string path = prepare();
  config_.num_layers = 3;
  EXPECT_THAT(error_of(ErrorKind::kWeights, [&] { map_weights(path, config_); }), HasSubstr("missing (13)"));
  config_.num_layers = 1;
  EXPECT_THAT(error_of(ErrorKind::kWeights, [&] { map_weights(path, config_); }), HasSubstr("unexpected (13)"));
}

TEST_F(Loader, WrappersOfTheSavedModelAreTakenOffTheNamesAndSaid) {
  for (const std::string wrapper : {"_orig_mod.", "module.", "module._orig_mod."}) {
    NamedTensors stored = random_body();
    for (auto& [name, value] : stored) name.insert(0, wrapper);
    stored[2].first = "transformer.h.0._checkpoint_wrapped_module.ln_1.weight";
    write(stored);
    const auto weights = map_weights(prepare(), config_);
    EXPECT_TRUE(at::equal(weights->wte, stored.front().second)) << wrapper;
    ASSERT_EQ(weights->notes.size(), 1U);
    EXPECT_THAT(weights->notes.front(), AllOf(HasSubstr(wrapper.substr(0, wrapper.find('.'))), HasSubstr("wrapper")));
  }
}

TEST_F(Loader, LongListsOfTensorsAreCutWithACount) {
  NamedTensors stored = random_body();
  for (auto& [name, value] : stored) name.insert(0, "gpt2.");
  write(stored);
  const std::string count = std::to_string(stored.size());
  EXPECT_THAT(prepare_error(), AllOf(HasSubstr("missing (" + count + ")"), HasSubstr("unexpected (" + count + ")"),
                                     HasSubstr(" and " + std::to_string(stored.size() - 6) + " more")));
  EXPECT_LT(prepare_error().size(), 1500U);
}

TEST_F(Loader, MaskBuffersOfOldFilesAreNotWeights) {
  NamedTensors body = random_body();
  body.emplace_back("transformer.h.0.attn.attention.bias", at::full({1, 1, 6, 6}, 1, at::kByte));
  body.emplace_back("transformer.h.0.attn.attention.masked_bias", at::full({}, -1e9));
  write(body);
  EXPECT_TRUE(at::equal(map_weights(prepare(), config_)->wte, body.front().second));
}

TEST_F(Loader, AHeadOfItsOwnIsKeptAndSaidAnEqualOneIsTied) {
  NamedTensors body = random_body();
  body.emplace_back("lm_head.weight", body.front().second);
  body.emplace_back("score.weight", at::randn({3, 4}).to(at::kHalf));
  write(body);
  auto weights = map_weights(prepare(Dtype::kFloat16), config_);
  EXPECT_TRUE(weights->lm_head.is_same(weights->wte));
  EXPECT_TRUE(weights->notes.empty());
  EXPECT_EQ(weights->score.scalar_type(), at::kFloat);
  EXPECT_TRUE(at::equal(weights->score, body.back().second.to(at::kFloat)));

  body[body.size() - 2].second = at::randn({13, 4});
  write(body);
  weights = map_weights(prepare(Dtype::kFloat16), config_);
  EXPECT_TRUE(at::equal(weights->lm_head, body[body.size() - 2].second.to(at::kHalf)));
  ASSERT_EQ(weights->notes.size(), 1U);
  EXPECT_THAT(weights->notes[0], HasSubstr("lm_head.weight differs"));
}

TEST_F(Loader, ShardsAreReadThroughTheirIndexAndMustAgreeWithIt) {
  const NamedTensors body = random_body();
  const auto middle = body.begin() + 10;
  std::map<std::string, std::string> map;
  for (auto it = body.begin(); it != body.end(); ++it) map[it->first] = it < middle ? "a.safetensors" : "b.safetensors";
  write({body.begin(), middle}, "a.safetensors");
  write({middle, body.end()}, "b.safetensors");
  write_index(map);
  EXPECT_TRUE(at::equal(map_weights(prepare(), config_)->ln_f.bias, body.back().second));

  map["transformer.wte.weight"] = "b.safetensors";
  write_index(map);
  write({body.begin(), middle + 1}, "a.safetensors");
  EXPECT_THAT(prepare_error(), AllOf(HasSubstr("transformer.wte.weight is not in b.safetensors"),
                                     HasSubstr(middle->first + " is stored twice")));
  for (const char* name : {"../a.safetensors", "/a.safetensors", ".a.safetensors", "a.bin", "absent.safetensors"}) {
    map["transformer.wte.weight"] = name;
    write_index(map);
    EXPECT_THAT(prepare_error(), AllOf(HasSubstr(name), HasSubstr(scratch_.path("base")))) << name;
  }
  scratch_.write("base/model.safetensors.index.json", R"({"weight_map":{"a":"a.safetensors","a":"b.safetensors"}})");
  EXPECT_THAT(prepare_error(), HasSubstr("'a' appears twice"));
}

TEST_F(Loader, AFolderWithoutWeightsNamesTheFilesThatItLacks) {
  scratch_.write("base/pytorch_model.bin", "x");
  EXPECT_THAT(prepare_error(), HasSubstr("torch.save did not write this file"));
  fs::remove(scratch_.path("base/pytorch_model.bin"));
  EXPECT_THAT(prepare_error(), AllOf(HasSubstr("pytorch_model.bin.index.json"), HasSubstr("found none")));
}

TEST_F(Loader, TheConvertedFileIsReusedRepairedAndVerifiedOnRequest) {
  write(random_body());
  const std::string path = prepare();
  const auto inode = [&] {
    struct stat status {};
    EXPECT_EQ(::stat(path.c_str(), &status), 0);
    return status.st_ino;
  };
  const auto first = inode();
  const at::Tensor bias = map_weights(path, config_)->ln_f.bias.clone();  // the last tensor
  EXPECT_EQ(prepare(), path);
  EXPECT_EQ(inode(), first);
  EXPECT_EQ(prepare(Dtype::kFloat32, /*verify=*/true), path);
  EXPECT_EQ(inode(), first) << "equal content is not written again";

  const auto size = static_cast<off_t>(fs::file_size(path));
  ASSERT_EQ(::truncate(path.c_str(), size / 2), 0);
  prepare();
  EXPECT_TRUE(at::equal(map_weights(path, config_)->ln_f.bias, bias)) << "a torn file is made again";
  {
    std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(size - 64);  // 4 values, then padding
    file.put('\x55');
  }
  EXPECT_TRUE(at::equal(map_weights(prepare(), config_)->ln_f.bias, bias)) << "a changed file is made again";
  prepare(Dtype::kFloat32, /*verify=*/true);
  EXPECT_TRUE(at::equal(map_weights(path, config_)->ln_f.bias, bias));
}

TEST_F(Loader, TheHashIsRememberedUntilTheFileChanges) {
  write(random_body());
  const std::string base = scratch_.path("base/model.safetensors");
  const auto hash = [&](bool verify) { return weights_hash(scratch_.path("base"), scratch_.path("cache"), verify); };
  const auto set_time = [&](int64_t seconds) { settle("model.safetensors", seconds); };
  const auto damage = [&] {
    std::fstream file(base, std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(-1, std::ios::end);
    file.put('\x55');
  };
  const std::string fresh = hash(false);
  EXPECT_FALSE(fs::exists(scratch_.path("cache/hashes"))) << "a file written this moment may still change";
  set_time(1'000'000'000);
  EXPECT_EQ(hash(false), fresh);
  damage();
  set_time(1'000'000'000);
  EXPECT_EQ(hash(false), fresh) << "same size and time: not read again";
  const std::string changed = hash(true);
  EXPECT_NE(changed, fresh);
  set_time(1'000'000'001);
  EXPECT_EQ(hash(false), changed);
  for (const auto& record : fs::directory_iterator(scratch_.path("cache/hashes"))) {
    std::ofstream(record.path()) << "{broken";
  }
  EXPECT_EQ(hash(false), changed) << "a damaged record is only a forgotten one";
}

TEST_F(Loader, WhatIsConvertedAndHashedInOnePassIsTheFileOfAKnownHash) {
  config_.vocab_size = 500'000;  // 8 MB: several pieces
  NamedTensors body = random_body();
  body.front().second = at::randn({config_.vocab_size, 4});
  body.emplace_back("transformer.h.0.attn.attention.bias", at::full({1, 1, 1, 3}, 1, at::kByte));
  body.emplace_back("score.weight", at::randn({3, 4}).to(at::kHalf));
  const auto middle = body.begin() + 10;
  std::map<std::string, std::string> map;
  for (auto it = body.begin(); it != body.end(); ++it) map[it->first] = it < middle ? "a.safetensors" : "b.safetensors";
  for (const Dtype dtype : {Dtype::kFloat16, Dtype::kFloat32}) {
    // Files that were written just now are hashed before anything else.
    write({body.begin(), middle}, "a.safetensors");
    write({middle, body.end()}, "b.safetensors");
    write_index(map);
    const std::string path = prepare(dtype);
    const std::string expected = scratch_.read(fs::relative(path, scratch_.path()).string());
    EXPECT_TRUE(cached("hashes").empty());
    settle("a.safetensors");
    settle("b.safetensors");
    for (const size_t known : {0U, 1U, 2U}) {
      fs::remove(path);
      const std::vector<std::string> records = cached("hashes");
      EXPECT_EQ(records.size(), known == 0 ? 0U : 2U);
      if (known == 1) fs::remove(scratch_.path("cache/hashes/" + records.front()));
      EXPECT_EQ(prepare(dtype), path) << known << " hashes known";
      EXPECT_TRUE(scratch_.read(fs::relative(path, scratch_.path()).string()) == expected) << known << " hashes known";
      EXPECT_EQ(cached("weights"), std::vector<std::string>{fs::path(path).filename().string()});
    }
    EXPECT_EQ(weights_hash(scratch_.path("base"), scratch_.path("cache"), true),
              weights_hash(scratch_.path("base"), scratch_.path("cache"), false));
    fs::remove_all(scratch_.path("cache"));
  }
}

TEST_F(Loader, WeightsThatAreThereAlreadyStayAsTheyAreWhenAPassFindsTheirHash) {
  write(random_body());
  const std::string path = prepare();
  fs::create_hard_link(path, scratch_.path("the same file"));
  settle("model.safetensors");
  EXPECT_EQ(prepare(), path);
  EXPECT_TRUE(fs::equivalent(path, scratch_.path("the same file")));
  EXPECT_EQ(cached("weights").size(), 1U);
}

TEST_F(Loader, TensorsThatLieUnalignedInTheirFileArriveInOnePassToo) {
  const NamedTensors body = random_body();
  write(body);
  std::string bytes = scratch_.read("base/model.safetensors");
  ++bytes[0];  // a header one byte longer
  bytes.insert(bytes.begin() + 8 + static_cast<unsigned char>(bytes[0]) - 1 +
                   int64_t{256} * static_cast<unsigned char>(bytes[1]),
               ' ');
  scratch_.write("base/model.safetensors", bytes);
  settle("model.safetensors");
  EXPECT_TRUE(at::equal(map_weights(prepare(), config_)->ln_f.bias, body.back().second));
}

TEST_F(Loader, WeightsThatAPassRefusesLeaveNothingInTheCache) {
  NamedTensors body = random_body();
  body[5].second.view({-1})[0] = 1e6F;
  write(body);
  settle("model.safetensors");
  EXPECT_THAT(error_of(ErrorKind::kWeights, [&] { prepare(Dtype::kFloat16); }),
              AllOf(HasSubstr(scratch_.path("base/model.safetensors")), HasSubstr(body[5].first),
                    HasSubstr("beyond the range of F16")));
  EXPECT_THAT(cached("weights"), ::testing::IsEmpty());
  EXPECT_THAT(cached("hashes"), ::testing::IsEmpty());
}

TEST_F(Loader, ProcessesThatBuildAtOnceEndWithOneWholeFile) {
  write(random_body());
  std::vector<pid_t> builders;
  for (int i = 0; i < 4; ++i) {
    const pid_t pid = ::fork();
    if (pid == 0) {
      int code = 1;
      try {
        for (int round = 0; round < 5; ++round) {
          map_weights(prepare(), config_);
          fs::remove(prepare());
        }
        code = 0;
      } catch (const std::exception& error) {
        // Only one failure may happen here: another builder has removed the file first.
        code = std::string(error.what()).find("cannot open") != std::string::npos ? 0 : 1;
      }
      ::_exit(code);
    }
    builders.push_back(pid);
  }
  for (const pid_t pid : builders) {
    int status = 1;
    ::waitpid(pid, &status, 0);
    EXPECT_EQ(status, 0);
  }
  map_weights(prepare(), config_);
  EXPECT_EQ(std::distance(fs::directory_iterator(scratch_.path("cache/weights")), {}), 1);
}

TEST_F(Loader, LeftoversOfKilledBuildersAreRemovedLiveOnesStay) {
  write(random_body());
  const std::string path = prepare();
  const fs::path dead = fs::path(path).parent_path() / fmt::format(".{}.tmp-dead", fs::path(path).filename().string());
  const fs::path live = fs::path(path).parent_path() / fmt::format(".{}.tmp-live", fs::path(path).filename().string());
  std::ofstream(dead) << "x";
  std::ofstream(live) << "x";
  fs::last_write_time(dead, fs::file_time_type::clock::now() - std::chrono::hours(2));
  fs::remove(path);
  prepare();
  EXPECT_FALSE(fs::exists(dead));
  EXPECT_TRUE(fs::exists(live));
}

TEST_F(Loader, AFullDiskIsSaidBeforeWriting) {
  config_.vocab_size = int64_t{1} << 44;
  const TensorToWrite huge{"w", at::kFloat, {config_.vocab_size}, [] { return at::Tensor(); }, {}};
  EXPECT_THAT(error_of(ErrorKind::kWeights, [&] { write_safetensors(scratch_.path("x/y.safetensors"), {huge}, {}); }),
              AllOf(HasSubstr("bytes are needed"), HasSubstr("free")));
}

TEST_F(Loader, CopiesToADeviceOwnTheirMemoryAndStayTied) {
  write(random_body());
  const auto mapped = map_weights(prepare(Dtype::kFloat16), config_);
  int64_t copied = 0, blocks = 0;
  const auto owned = to_device(mapped, "cpu", Dtype::kFloat16, [&](int64_t done, int64_t total) {
    EXPECT_EQ(done, ++copied);
    blocks = total;
  });
  EXPECT_EQ(blocks, config_.num_layers);
  EXPECT_EQ(copied, blocks);
  EXPECT_TRUE(owned->lm_head.is_same(owned->wte));
  EXPECT_FALSE(owned->wte.is_same(mapped->wte));
  EXPECT_NE(owned->wte.data_ptr(), mapped->wte.data_ptr());
  EXPECT_TRUE(at::equal(owned->blocks[1][LinearSite::kCProj].weight, mapped->blocks[1][LinearSite::kCProj].weight));
  const at::Tensor& aligned = owned->aligned_lm_head;
  const int64_t vocabulary = config_.vocab_size;
  EXPECT_EQ(aligned.size(0), (vocabulary + kHeadAlignment - 1) / kHeadAlignment * kHeadAlignment);
  EXPECT_GT(aligned.size(0), vocabulary) << "rows of 0 were to be seen";
  EXPECT_TRUE(owned->lm_head.is_alias_of(aligned));
  EXPECT_TRUE(at::equal(aligned.narrow(0, 0, vocabulary), mapped->lm_head));
  EXPECT_EQ(aligned.narrow(0, vocabulary, aligned.size(0) - vocabulary).count_nonzero().item<int64_t>(), 0);
}

TEST_F(Loader, CopiesHaveMatricesInTheTypeOfTheirProductsAndTheAttentionInputsInOnePiece) {
  write(random_body());
  const auto mapped = map_weights(prepare(Dtype::kFloat16), config_);
  const auto owned = to_device(mapped, "cpu", Dtype::kBFloat16);
  EXPECT_EQ(owned->wte.scalar_type(), at::kHalf);
  EXPECT_EQ(owned->lm_head.scalar_type(), at::kBFloat16);
  const BlockWeights& block = owned->blocks[0];
  EXPECT_EQ(block[LinearSite::kCFc].weight.scalar_type(), at::kBFloat16);
  EXPECT_EQ(block[LinearSite::kCFc].bias.scalar_type(), at::kHalf);
  EXPECT_EQ(block[LinearSite::kVProj].weight.storage_offset(), block[LinearSite::kKProj].weight.numel());
  EXPECT_EQ(block[LinearSite::kQProj].weight.storage_offset(), 2 * block[LinearSite::kKProj].weight.numel());
  EXPECT_TRUE(block[LinearSite::kQProj].weight.is_alias_of(block[LinearSite::kKProj].weight));
  EXPECT_TRUE(
      at::equal(block[LinearSite::kQProj].weight, mapped->blocks[0][LinearSite::kQProj].weight.to(at::kBFloat16)));
}

TEST_F(Loader, PackedWeightsLieBesideTheWeightsAndAreMadeAgainWhenDamaged) {
  for (const Dtype compute : {Dtype::kFloat32, Dtype::kBFloat16}) {
    if (!has_packed_gemm(compute)) GTEST_SKIP() << "this CPU has no microkernel for " << dtype_name(compute);
    write(random_body());
    const std::string converted = prepare(Dtype::kBFloat16);
    const std::string path =
        prepare_packed_weights(converted, config_, compute, scratch_.path("cache"), /*verify_always=*/false);
    const auto expect_right = [&] {
      const auto weights = map_weights(converted, config_);
      map_packed_weights(path, compute, *weights);
      const auto matrices = frozen_matrices(*weights);
      EXPECT_EQ(matrices.size(), 2U * 6U + 1U);
      for (const FrozenMatrix& matrix : matrices) {
        EXPECT_TRUE(at::equal(matrix.packed_weights->forward, pack_weights(matrix.values.t(), compute))) << matrix.name;
        EXPECT_EQ(reinterpret_cast<uintptr_t>(matrix.packed_weights->forward.const_data_ptr()) % 64, 0U) << matrix.name;
        EXPECT_EQ(matrix.packed_weights->backward.defined(), compute == Dtype::kBFloat16);
        if (!matrix.packed_weights->backward.defined()) continue;
        EXPECT_TRUE(at::equal(matrix.packed_weights->backward, pack_weights(matrix.values, compute))) << matrix.name;
      }
    };
    expect_right();
    ASSERT_EQ(::truncate(path.c_str(), static_cast<off_t>(fs::file_size(path) / 2)), 0);
    prepare_packed_weights(converted, config_, compute, scratch_.path("cache"), /*verify_always=*/false);
    expect_right();
    {
      std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
      file.seekp(static_cast<off_t>(fs::file_size(path)) - 2);
      file.put('\x55');
    }
    prepare_packed_weights(converted, config_, compute, scratch_.path("cache"), /*verify_always=*/true);
    expect_right();
  }
}

TEST_F(Loader, PackedWeightsOfAnotherShapeAreRefusedByName) {
  if (!has_packed_gemm(Dtype::kFloat32)) GTEST_SKIP() << "this CPU has no microkernel for float32";
  write(random_body());
  const auto weights = map_weights(prepare(), config_);
  const std::string path = prepare_packed_weights(prepare(), config_, Dtype::kFloat32, scratch_.path("cache"), false);
  weights->blocks[1][LinearSite::kCFc].weight = at::randn({100, 4});
  EXPECT_THAT(error_of(ErrorKind::kWeights, [&] { map_packed_weights(path, Dtype::kFloat32, *weights); }),
              AllOf(HasSubstr("transformer.h.1.mlp.c_fc.weight.forward expected [2, 4, 64] found [1, 4, 64]"),
                    HasSubstr("Remove this file")));
}

}  // namespace
}  // namespace neoloom::model
