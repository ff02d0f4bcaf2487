// SPDX-License-Identifier: Apache-2.0
#include "tests/bench/probes/lt_matmul.h"

#include <ATen/ops/empty.h>

#include <utility>

#include "runtime/core/error.h"
#include "runtime/core/unique_handle.h"

namespace neoloom::probes {

namespace {

constexpr int64_t kWorkspaceBytes = int64_t{64} << 20;

void check(cublasStatus_t status, const char* call) {
  core::require(status == CUBLAS_STATUS_SUCCESS, core::ErrorKind::kDevice, "cublasLt: {} failed: {}", call,
                cublasLtGetStatusString(status));
}

using LtHandle = core::UniqueHandle<core::PointerTraits<cublasLtHandle_t, cublasLtDestroy>>;
using Desc = core::UniqueHandle<core::PointerTraits<cublasLtMatmulDesc_t, cublasLtMatmulDescDestroy>>;
using Layout = core::UniqueHandle<core::PointerTraits<cublasLtMatrixLayout_t, cublasLtMatrixLayoutDestroy>>;
using Preference = core::UniqueHandle<core::PointerTraits<cublasLtMatmulPreference_t, cublasLtMatmulPreferenceDestroy>>;

cudaDataType_t type_of(const at::Tensor& x) {
  switch (x.scalar_type()) {
    case at::kBFloat16:
      return CUDA_R_16BF;
    case at::kHalf:
      return CUDA_R_16F;
    default:
      return CUDA_R_32F;
  }
}

/// Describes a row-major matrix [rows, columns], which is column-major [columns, rows] for cublasLt.
Layout layout_of(const at::Tensor& x) {
  cublasLtMatrixLayout_t layout = nullptr;
  check(cublasLtMatrixLayoutCreate(&layout, type_of(x), static_cast<uint64_t>(x.size(1)),
                                   static_cast<uint64_t>(x.size(0)), x.stride(0)),
        "cublasLtMatrixLayoutCreate");
  return Layout(layout);
}

}  // namespace

struct LtMatmul::State {
  LtCall call;
  LtHandle handle;
  Desc desc;
  Layout weight, x, sum, out;
  at::Tensor workspace;
  std::vector<cublasLtMatmulHeuristicResult_t> found;
  size_t chosen = 0;

  template <typename Value>
  void set(cublasLtMatmulDescAttributes_t attribute, const Value& value) {
    check(cublasLtMatmulDescSetAttribute(desc.get(), attribute, &value, sizeof(value)),
          "cublasLtMatmulDescSetAttribute");
  }

  void open() {
    cublasLtHandle_t opened = nullptr;
    check(cublasLtCreate(&opened), "cublasLtCreate");
    handle.reset(opened);
    workspace = at::empty({kWorkspaceBytes}, call.x.options().dtype(at::kByte));
  }

  /// out^T = W^T x^T in column-major terms.
  void describe() {
    cublasLtMatmulDesc_t made = nullptr;
    check(cublasLtMatmulDescCreate(&made, CUBLAS_COMPUTE_32F, CUDA_R_32F), "cublasLtMatmulDescCreate");
    desc.reset(made);
    set(CUBLASLT_MATMUL_DESC_TRANSA, call.transposed ? CUBLAS_OP_T : CUBLAS_OP_N);
    set(CUBLASLT_MATMUL_DESC_EPILOGUE, call.epilogue);
    if (call.bias.defined()) {
      set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, call.bias.data_ptr());
      set(CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, type_of(call.bias));
    }
    if (call.aux.defined()) {
      set(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, call.aux.data_ptr());
      set(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, call.aux.stride(0));
      set(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_DATA_TYPE, type_of(call.aux));
    }
    weight = layout_of(call.weight);
    x = layout_of(call.x);
    sum = layout_of(call.sum);
    out = layout_of(call.out);
  }

  void find(int algorithms) {
    cublasLtMatmulPreference_t made = nullptr;
    check(cublasLtMatmulPreferenceCreate(&made), "cublasLtMatmulPreferenceCreate");
    const Preference preference(made);
    const auto bytes = static_cast<uint64_t>(kWorkspaceBytes);
    check(cublasLtMatmulPreferenceSetAttribute(made, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &bytes, sizeof(bytes)),
          "cublasLtMatmulPreferenceSetAttribute");
    found.resize(static_cast<size_t>(algorithms));
    int count = 0;
    check(cublasLtMatmulAlgoGetHeuristic(handle.get(), desc.get(), weight.get(), x.get(), sum.get(), out.get(), made,
                                         algorithms, found.data(), &count),
          "cublasLtMatmulAlgoGetHeuristic");
    found.resize(static_cast<size_t>(count));
    std::erase_if(found, [](const auto& one) { return one.state != CUBLAS_STATUS_SUCCESS; });
    core::require(!found.empty(), core::ErrorKind::kDevice, "cublasLt: it has no algorithm for this");
  }
};

LtMatmul::LtMatmul(LtCall call, int algorithms) : state_(std::make_unique<State>()) {
  state_->call = std::move(call);
  if (!state_->call.sum.defined()) state_->call.sum = state_->call.out;
  state_->open();
  state_->describe();
  state_->find(algorithms);
}

LtMatmul::~LtMatmul() = default;
LtMatmul::LtMatmul(LtMatmul&&) noexcept = default;

size_t LtMatmul::algorithms() const { return state_->found.size(); }

void LtMatmul::choose(size_t algorithm) { state_->chosen = algorithm; }

void LtMatmul::run() {
  State& s = *state_;
  const auto alpha = static_cast<float>(s.call.alpha);
  const auto beta = static_cast<float>(s.call.beta);
  check(cublasLtMatmul(s.handle.get(), s.desc.get(), &alpha, s.call.weight.data_ptr(), s.weight.get(),
                       s.call.x.data_ptr(), s.x.get(), &beta, s.call.sum.data_ptr(), s.sum.get(), s.call.out.data_ptr(),
                       s.out.get(), &s.found[s.chosen].algo, s.workspace.data_ptr(),
                       static_cast<size_t>(kWorkspaceBytes), /*stream=*/nullptr),
        "cublasLtMatmul");
}

}  // namespace neoloom::probes
