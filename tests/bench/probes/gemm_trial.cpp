// SPDX-License-Identifier: Apache-2.0
#include "tests/bench/probes/gemm_trial.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/gelu_backward.h>
#include <ATen/ops/mm.h>

#include <algorithm>
#include <cmath>
#include <memory>

#include "model/cuda/operators.h"
#include "tests/bench/probes/gemm_reference.h"
#include "tests/bench/probes/lt_matmul.h"

namespace neoloom::probes {

namespace {

constexpr int kAlgorithms = 8;
constexpr int kChoiceRuns = 5;
constexpr int64_t kEndRows = 64;
constexpr double kScaling = 2.0;  // lora_alpha / r, as in the examples
constexpr const char* kTanh = "tanh";

/// Returns the first and the last rows, on which results are compared.
at::Tensor ends(const at::Tensor& x) {
  return at::cat({x.narrow(0, 0, kEndRows), x.narrow(0, x.size(0) - kEndRows, kEndRows)}, 0);
}

at::Tensor ends_fp32(const at::Tensor& x) { return ends(x).to(at::kFloat); }

/// One item: inputs, results, and the closures that compute them.
class Trial {
 public:
  explicit Trial(const GemmItem& item)
      : item_(item),
        shape_(item.gemm),
        x_(values({shape_.n, shape_.k}, 1.0)),
        weight_(shape_.backward ? values({shape_.k, shape_.m}, unit()) : values({shape_.m, shape_.k}, unit())) {}

  Json measure_it() {
    Work work = make_work();
    work.flops = item_.flops;
    Json found = measure(work);
    found.update(notes_);
    return found;
  }

 private:
  Work make_work() {
    switch (item_.operation) {
      case Operation::kGemm:
        return gemm(at::kBFloat16);
      case Operation::kGemmFp32:
        return gemm(at::kFloat);
      case Operation::kSumFp32:
        return sum(x_, weight_, !shape_.backward, 1.0);
      case Operation::kMlpForward:
        return mlp_forward();
      case Operation::kMlpBackward:
        return mlp_backward();
      case Operation::kResidual:
        return residual();
      case Operation::kLoraUp:
        return sum(x_, weight_, /*transposed=*/true, kScaling);
      case Operation::kLoraForward:
        break;
    }
    return lora_forward();
  }

  double unit() const { return 1.0 / std::sqrt(static_cast<double>(shape_.k)); }
  bool today() const { return item_.way == Way::kToday; }
  at::Tensor values(at::IntArrayRef shape, double scale, at::ScalarType dtype = at::kBFloat16) {
    return random_values(shape, dtype, scale, ++seed_);
  }
  at::Tensor empty(at::IntArrayRef shape, at::ScalarType dtype = at::kBFloat16) const {
    return at::empty(shape, x_.options().dtype(dtype));
  }
  at::Tensor columns() const { return shape_.backward ? weight_ : weight_.t(); }  // [k, m]

  /// Chooses the fastest of the first algorithms.
  std::shared_ptr<LtMatmul> fastest(const LtCall& call) {
    const auto matmul = std::make_shared<LtMatmul>(call, kAlgorithms);
    std::vector<double> times;
    for (size_t i = 0; i < matmul->algorithms(); ++i) {
      matmul->choose(i);
      times.push_back(median_milliseconds([&] { matmul->run(); }, kChoiceRuns));
    }
    const auto best = static_cast<size_t>(std::min_element(times.begin(), times.end()) - times.begin());
    matmul->choose(best);
    notes_ = {{"algorithms", times.size()}, {"best", best}, {"first_milliseconds", times.front()}};
    return matmul;
  }

  /// Returns the error against `expected`, computed for the ends of the rows.
  static std::function<double(const std::vector<at::Tensor>&)> error_of(
      std::function<std::vector<at::Tensor>()> expected) {
    return [=](const std::vector<at::Tensor>& results) {
      const std::vector<at::Tensor> references = expected();
      double error = 0.0;
      for (size_t i = 0; i < references.size(); ++i) {
        error = std::max(error, relative_error(ends(results[i]), references[i]));
      }
      return error;
    };
  }

  Work gemm(at::ScalarType dtype) {
    Work work;
    work.error = error_of([this] { return std::vector<at::Tensor>{at::mm(ends_fp32(x_), columns().to(at::kFloat))}; });
    if (today()) {
      work.run = [this, dtype] {
        return std::vector<at::Tensor>{dtype == at::kFloat ? operators_.gemm(x_, columns()) : at::mm(x_, columns())};
      };
      return work;
    }
    const at::Tensor out = empty({shape_.n, shape_.m}, dtype);
    LtCall call;
    call.x = x_;
    call.weight = weight_;
    call.transposed = !shape_.backward;
    call.out = out;
    const auto matmul = fastest(call);
    work.run = [=] {
      matmul->run();
      return std::vector<at::Tensor>{out};
    };
    return work;
  }

  /// y += scale x W in fp32.
  Work sum(const at::Tensor& x, const at::Tensor& weight, bool transposed, double scale) {
    const at::Tensor start = values({shape_.n, shape_.m}, 1.0, at::kFloat);
    const at::Tensor y = start.clone();
    const at::Tensor right = transposed ? weight.t() : weight;
    Work work;
    work.reset = [=] { y.copy_(start); };
    work.error = error_of(
        [=] { return std::vector<at::Tensor>{ends(start) + at::mm(ends_fp32(x), right.to(at::kFloat)) * scale}; });
    if (today()) {
      work.run = [=, this] {
        operators_.add_gemm(y, x, right, 1.0, scale);
        return std::vector<at::Tensor>{y};
      };
      return work;
    }
    LtCall call;
    call.x = x;
    call.weight = weight;
    call.transposed = transposed;
    call.out = call.sum = y;
    call.alpha = scale;
    call.beta = 1.0;
    const auto matmul = fastest(call);
    work.run = [=] {
      matmul->run();
      return std::vector<at::Tensor>{y};
    };
    return work;
  }

  Work mlp_forward() {
    const at::Tensor bias = values({shape_.m}, 1.0);
    Work work;
    work.error = error_of(
        [=, this] { return mlp_forward_reference(ends_fp32(x_), weight_.to(at::kFloat), bias.to(at::kFloat)); });
    if (today()) {
      work.run = [=, this] {
        const at::Tensor pre = at::addmm(bias, x_, weight_.t());
        return std::vector<at::Tensor>{pre, at::gelu(pre, kTanh)};
      };
      return work;
    }
    const bool fused = item_.way == Way::kFusedEpilogue;
    const at::Tensor pre = empty({shape_.n, shape_.m});
    const at::Tensor activated = fused ? empty({shape_.n, shape_.m}) : at::Tensor();
    LtCall call;
    call.x = x_;
    call.weight = weight_;
    call.transposed = true;
    call.bias = bias;
    call.epilogue = fused ? CUBLASLT_EPILOGUE_GELU_AUX_BIAS : CUBLASLT_EPILOGUE_BIAS;
    call.out = fused ? activated : pre;
    if (fused) call.aux = pre;
    const auto matmul = fastest(call);
    work.run = [=] {
      matmul->run();
      return std::vector<at::Tensor>{pre, fused ? activated : at::gelu(pre, kTanh)};
    };
    return work;
  }

  Work mlp_backward() {
    const at::Tensor pre = values({shape_.n, shape_.m}, 1.0);
    Work work;
    work.error = error_of([=, this] {
      return std::vector<at::Tensor>{mlp_backward_reference(ends_fp32(x_), weight_.to(at::kFloat), ends_fp32(pre))};
    });
    if (today()) {
      work.run = [=, this] { return std::vector<at::Tensor>{at::gelu_backward(at::mm(x_, weight_), pre, kTanh)}; };
      return work;
    }
    const at::Tensor out = empty({shape_.n, shape_.m});
    LtCall call;
    call.x = x_;
    call.weight = weight_;
    call.out = out;
    call.aux = pre;
    call.epilogue = CUBLASLT_EPILOGUE_DGELU;
    const auto matmul = fastest(call);
    work.run = [=] {
      matmul->run();
      return std::vector<at::Tensor>{out};
    };
    return work;
  }

  Work residual() {
    const at::Tensor before = values({shape_.n, shape_.m}, 1.0, at::kFloat);
    const at::Tensor bias = values({shape_.m}, 1.0, at::kFloat);
    Work work;
    work.error = error_of([=, this] {
      return std::vector<at::Tensor>{residual_reference(ends(before), bias, ends_fp32(x_), weight_.to(at::kFloat))};
    });
    if (today()) {
      work.run = [=, this] {
        const at::Tensor y = before.add(bias);
        operators_.add_gemm(y, x_, weight_.t(), 1.0, 1.0);
        return std::vector<at::Tensor>{y};
      };
      return work;
    }
    const at::Tensor y = empty({shape_.n, shape_.m}, at::kFloat);
    LtCall call;
    call.x = x_;
    call.weight = weight_;
    call.transposed = true;
    call.out = y;
    call.sum = before;
    call.beta = 1.0;
    call.bias = bias;
    call.epilogue = CUBLASLT_EPILOGUE_BIAS;
    const auto matmul = fastest(call);
    work.run = [=] {
      matmul->run();
      return std::vector<at::Tensor>{y};
    };
    return work;
  }

  Work lora_forward() {
    const at::Tensor a = values({item_.rank, shape_.k}, unit());
    const at::Tensor b = values({shape_.m, item_.rank}, 1.0 / std::sqrt(static_cast<double>(item_.rank)));
    Work work;
    if (today()) {
      work.run = [=, this] {
        at::Tensor y = at::mm(at::mm(x_, a.t()), b.t());
        y.addmm_(x_, weight_.t(), /*beta=*/kScaling);
        return std::vector<at::Tensor>{y};
      };
    } else {
      const at::Tensor y = empty({shape_.n, shape_.m});
      const auto steps = item_.way == Way::kExtended ? extended(a, b, y) : separate(a, b, y);
      work.run = [=] {
        for (const auto& step : steps) step->run();
        return std::vector<at::Tensor>{y};
      };
    }
    work.error = error_of([=, this] {
      return std::vector<at::Tensor>{
          lora_reference(ends_fp32(x_), weight_.to(at::kFloat), a.to(at::kFloat), b.to(at::kFloat), kScaling)};
    });
    return work;
  }

  using Steps = std::vector<std::shared_ptr<LtMatmul>>;

  LtCall call_of(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& out) const {
    LtCall call;
    call.x = x;
    call.weight = weight;
    call.transposed = true;
    call.out = out;
    return call;
  }

  /// Three GEMMs: down, then B and W in either order, the second one added to the first.
  Steps separate(const at::Tensor& a, const at::Tensor& b, const at::Tensor& y) {
    const at::Tensor down = empty({shape_.n, item_.rank});
    LtCall up = call_of(down, b, y);
    LtCall frozen = call_of(x_, weight_, y);
    const bool frozen_first = item_.way == Way::kFrozenFirst;
    if (frozen_first) {
      up.alpha = kScaling;
      up.beta = 1.0;
    } else {
      frozen.beta = kScaling;
    }
    const auto first = fastest(call_of(x_, a, down));
    const auto second = fastest(frozen_first ? frozen : up);
    return {first, second, fastest(frozen_first ? up : frozen)};
  }

  /// Two GEMMs: down, written beside x, then [x, down] [W, s B]^T. A LayerNorm would write x there; its copy here is
  /// not timed.
  Steps extended(const at::Tensor& a, const at::Tensor& b, const at::Tensor& y) {
    const at::Tensor wide_x = empty({shape_.n, shape_.k + item_.rank});
    const at::Tensor x = wide_x.narrow(1, 0, shape_.k);
    x.copy_(x_);
    const at::Tensor wide_weight = at::cat({weight_, b * kScaling}, 1);
    const auto first = fastest(call_of(x, a, wide_x.narrow(1, shape_.k, item_.rank)));
    first->run();  // defined values in the columns that the second one reads while its algorithm is chosen
    return {first, fastest(call_of(wide_x, wide_weight, y))};
  }

  GemmItem item_;
  Gemm shape_;
  uint64_t seed_ = 0;
  at::Tensor x_;
  at::Tensor weight_;
  model::CudaOperators operators_ = model::libtorch_operators();
  Json notes_ = Json::object();
};

}  // namespace

Json measure_gemm(const GemmItem& item) { return Trial(item).measure_it(); }

}  // namespace neoloom::probes
