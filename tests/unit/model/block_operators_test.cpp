// SPDX-License-Identifier: Apache-2.0
// Counts the operators that a GPU gets for one block, by name. After a review of what changed, this rewrites the table:
//   NEOLOOM_WRITE_TABLES=1 build/unit_model --gtest_filter='BlockOperators.*'
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <sstream>
#include <string>

#include "model/batch/packing.h"
#include "model/gpt_neo/backend.h"
#include "model/gpt_neo/network.h"
#include "model/weight_cache/weight_cache.h"
#include "tests/support/operator_record.h"
#include "tests/unit/model/random_model.h"
#include "tests/unit/model/reference_operators.h"

namespace neoloom::model::testing {
namespace {

constexpr int64_t kMostOperators = 60;
constexpr const char* kTable = NL_SOURCE_DIR "/tests/unit/model/block_operators.txt";
constexpr const char* kHeading =
    "# LibTorch operators that launch kernels, one block in the middle of a network, 16-bit compute, flash attention,\n"
    "# adapters on q_proj and v_proj. mm.dtype, addmm.dtype: 16-bit inputs, fp32 result. See "
    "block_operators_test.cpp.\n";

std::string section(const std::string& title, const support::OperatorRecord& record) {
  std::ostringstream text;
  text << title << " " << record.total() << "\n";
  for (const auto& [name, count] : record.kernels()) text << "  " << name << " " << count << "\n";
  return text.str();
}

std::string content_of(const std::string& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

TEST(BlockOperators, OfForwardAndBackwardAreThoseOfTheTable) {
  ModelSetup setup = tiny_setup(Head::kCausalLm);
  setup.lora->target_modules = {{"q_proj", "v_proj"}};
  setup.compute_dtype = Dtype::kBFloat16;
  setup.device.cuda = true;
  setup.device.capability_major = 9;
  const auto weights = to_device(random_weights(setup.config, at::kHalf), "cpu", setup.compute_dtype);
  const auto model = Model::create(setup, weights);
  const at::Tensor params = random_params(*model);
  const at::Tensor grads = at::zeros_like(params);
  const Network network = NetworkBuilder(setup, weights).build(params, grads, nullptr);
  setup.operators = ReferenceOperators::table();
  const auto backend = make_backend(setup);
  const PackedBatch packed =
      pack(random_batch({9, 3, 14}, setup.config.vocab_size), setup, at::kCPU, {.for_device = true}).packed;
  const at::Tensor x = random({26, setup.config.hidden_size}, 1.0, 1);
  const Block& block = network.blocks[1];

  BlockSaved saved;
  std::string table = kHeading;
  int64_t operators = 0;
  {
    const support::OperatorRecord record;
    block.forward(*backend, x, packed.rows, &saved);
    table += section("forward", record);
    operators += record.total();
  }
  const at::Tensor dy = random({26, setup.config.hidden_size}, 1.0, 2);
  {
    const support::OperatorRecord record;
    block.backward(*backend, dy, packed.rows, saved, /*needs_dx=*/true);
    table += section("backward", record);
    operators += record.total();
  }
  EXPECT_LE(operators, kMostOperators);
  if (std::getenv("NEOLOOM_WRITE_TABLES") != nullptr) std::ofstream(kTable) << table;
  EXPECT_EQ(table, content_of(kTable));
}

}  // namespace
}  // namespace neoloom::model::testing
