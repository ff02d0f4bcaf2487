// SPDX-License-Identifier: Apache-2.0
// Plans a GPU's memory with the real backend, which consists of LibTorch's operators and runs without values. Only
// operators that exist for CUDA alone have stand-ins here.
#include <ATen/ops/empty_like.h>

#include "model/cuda/operators.h"
#include "model/memory/memory_backend.h"

namespace neoloom::model {

namespace {

at::Tensor flash_forward(const AttentionCall& call, AttentionSaved& saved) {
  saved.logsumexp = make({call.q.size(1), call.q.size(0)}, at::kFloat);
  return at::empty_like(call.q);
}

/// Makes the tensors of the flash kernel, which sums the gradient of q in fp32.
AttentionGradients flash_backward(const at::Tensor& /*grad*/, const AttentionCall& call, const at::Tensor& /*out*/,
                                  const AttentionSaved& /*saved*/) {
  AttentionGradients d = {at::empty_like(call.q), at::empty_like(call.k), at::empty_like(call.v)};
  make(call.q.sizes(), at::kFloat);
  return d;
}

CudaOperators operators_without_values() {
  CudaOperators operators;
  operators.gemm = [](const at::Tensor& a, const at::Tensor& b) { return make({a.size(0), b.size(1)}, at::kFloat); };
  operators.add_gemm = [](const at::Tensor&, const at::Tensor&, const at::Tensor&, double, double) {};
  operators.flash_forward = operators.cudnn_forward = flash_forward;
  operators.flash_backward = operators.cudnn_backward = flash_backward;
  return operators;
}

}  // namespace

std::unique_ptr<Backend> make_cuda_memory_backend(const MemorySetup& setup) {
  ModelSetup model = setup.model;
  model.operators = std::make_shared<CudaOperators>(operators_without_values());
  return make_cuda_backend(model);
}

}  // namespace neoloom::model
