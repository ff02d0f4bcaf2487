// SPDX-License-Identifier: Apache-2.0
// Measures what happens to gradients and to the training state: exact sum, update, checkpoint. Sizes: LoRA r=8 on
// q_proj and v_proj, and r=16 on all linears, of GPT-Neo 125M.
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <fmt/format.h>
#include <unistd.h>

#include <filesystem>
#include <memory>
#include <string>

#include "runtime/checkpoint/directory.h"
#include "runtime/core/error.h"
#include "runtime/optim/adamw.h"
#include "runtime/train/gradient_sum.h"
#include "tests/bench/micro/micro.h"

namespace neoloom::bench {
namespace {

constexpr int64_t kTargets = 8;
constexpr double kLoss = 2.5;

at::Tensor random_vector(int64_t n, uint64_t seed) { return random_matrix(1, n, seed).view({n}); }

void add_gradient_sum(int64_t n, const std::string& kind) {
  struct Work {
    at::Tensor grads, mean, loss;
    std::unique_ptr<train::GradientSum> sum;
    train::GradientSum::Totals step() {
      sum->begin(kTargets, 1.0, 1);
      sum->add(grads, 0, grads.numel());
      sum->add_loss(loss);
      return sum->finish(mean);
    }
  };
  const auto work = std::make_shared<Work>();
  add_case({fmt::format("gradient_sum/{}/{}", n, kind),
            [=] {
              work->grads = random_vector(n, 1);
              work->mean = at::zeros_like(work->grads);
              work->loss = at::full({}, kLoss, at::kDouble);
              work->sum = train::make_gradient_sum({.kind = kind, .n_elements = n});
              const train::GradientSum::Totals totals = work->step();
              const bool right = totals.flagged.item<double>() == 0.0 && totals.loss_sum.item<double>() == kLoss;
              if (!right) return std::string("the loss sum is wrong");
              return difference(work->mean, work->grads.div(static_cast<double>(kTargets)), 1e-6);
            },
            [=] { benchmark::DoNotOptimize(work->step()); }});
}

void add_update(int64_t n) {
  struct Work {
    at::Tensor params, grads, exp_avg, exp_avg_sq;
    void reset(int64_t elements) {
      params = at::zeros({elements}, at::kFloat);
      grads = random_vector(elements, 1);
      exp_avg = at::zeros_like(params);
      exp_avg_sq = at::zeros_like(params);
    }
  };
  const auto work = std::make_shared<Work>();
  const auto update = [=] {
    optim::clip_grad_norm(work->grads, 1e9);
    optim::adamw_step(work->params, work->grads, work->exp_avg, work->exp_avg_sq, {{0, n, true}}, {}, 1e-3, 1);
  };
  add_case({fmt::format("clip_and_adamw/{}", n),
            [=] {
              work->reset(n);
              update();
              // From zero, the first update is the learning rate against the gradient's sign.
              const at::Tensor expected = work->grads.sign().mul_(-1e-3);
              const at::Tensor counts = work->grads.abs().gt(1e-3).to(at::kFloat);
              return difference(work->params.mul(counts), expected.mul_(counts), 1e-4);
            },
            update});
}

void add_checkpoint(int64_t n) {
  struct Work {
    std::filesystem::path folder;
    checkpoint::State state;
    ~Work() {
      std::error_code ignored;
      if (!folder.empty()) std::filesystem::remove_all(folder, ignored);
    }
  };
  const auto work = std::make_shared<Work>();
  const auto publish = [=] {
    ++work->state.step;
    return checkpoint::Directory(work->folder.string()).publish(work->state);
  };
  add_case({fmt::format("checkpoint/{}/publish", n),
            [=] {
              work->folder = std::filesystem::temp_directory_path() / fmt::format("neoloom-bench-{}", ::getpid());
              const at::Tensor values = random_vector(n, 1);
              const float* first = values.const_data_ptr<float>();
              work->state.params.assign(first, first + n);
              work->state.exp_avg = work->state.exp_avg_sq = work->state.params;
              work->state.index = {{"all", {n}, 0}};
              work->state.identity = "{}";
              work->state.label_map = work->state.history = "[]";
              const checkpoint::State read = checkpoint::load(publish().path);
              return std::string(read.params == work->state.params ? "" : "what was read back differs");
            },
            [=] {
              const checkpoint::Published published = publish();
              // Deletes the checkpoint, because a benchmark must not fill the disk.
              std::filesystem::remove(published.path);
              std::filesystem::remove(std::filesystem::path(published.path).replace_extension(".sha256"));
            },
            0.0, 3.0 * 4.0 * static_cast<double>(n)});
}

}  // namespace

void register_state() {
  for (const int64_t n : {int64_t{294'912}, int64_t{2'654'208}}) {
    add_gradient_sum(n, "fixed");
    add_gradient_sum(n, "float");
    add_update(n);
    add_checkpoint(n);
  }
}

}  // namespace neoloom::bench
