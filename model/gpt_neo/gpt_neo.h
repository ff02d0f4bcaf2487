// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "model/batch/packing.h"
#include "model/gpt_neo/backend.h"
#include "model/gpt_neo/dora_norms.h"
#include "model/gpt_neo/network.h"
#include "model/model.h"

namespace neoloom::model {

/// The implementation of Model: embedding, blocks and head. Between calls it keeps only scratch memory and, on GPUs,
/// the static inputs of CUDA graphs.
class GptNeo final : public Model {
 public:
  GptNeo(const ModelSetup& setup, std::shared_ptr<const Weights> weights);

  const ModelSetup& setup() const override { return setup_; }
  const ParameterLayout& layout() const override { return builder_.layout(); }
  std::vector<std::string> kernels() const override;
  void initialize_share(at::Tensor& params, uint64_t seed, Share share) const override;
  void subtract(const at::Tensor& initial) override { builder_.subtract(initial); }
  const at::Tensor& subtracted() const override { return builder_.subtracted(); }
  LossSum forward_backward(const Batch& batch, const at::Tensor& params, at::Tensor& grads, const DropoutKey& key,
                           double loss_scale) override;
  std::shared_ptr<const MicroBatch> pack(const Batch& batch, const at::Device& device) const override;
  MicroStep prepare(const MicroBatch& batch, const at::Tensor& params, at::Tensor& grads, const DropoutKey& key,
                    double loss_scale) override;
  EvalOutput evaluate(const Batch& batch, const at::Tensor& params) override;
  at::Tensor lm_logits(const Batch& batch, const at::Tensor& params) override;
  std::unique_ptr<Decoder> make_decoder(const at::Tensor& params, int64_t max_tokens, int64_t sequences) override;
  double training_flops_per_token(int64_t length) const override;

 private:
  bool classifies() const { return setup_.head != Head::kCausalLm; }
  /// Whether training draws random numbers by the device's default generator, on GPUs.
  bool draws() const {
    return (setup_.lora && setup_.lora->lora_dropout > 0.0) || setup_.neftune_noise_alpha > 0.0 ||
           setup_.config.embed_dropout > 0.0 || setup_.config.resid_dropout > 0.0;
  }
  Network build(const at::Tensor& params, const at::Tensor& grads, const DropoutKey* dropout);
  MicroBatch packed_on(const at::Device& device, const Batch& batch) const;
  /// What the CUDA graph of one shape reads, and the loss that it writes.
  struct StaticInputs {
    MicroBatch batch;
    at::Tensor loss;  // [] fp64
  };
  StaticInputs& static_inputs_for(const std::string& shape, const MicroBatch& batch, const at::Device& device);
  at::Tensor compute(const MicroBatch& batch, const at::Tensor& params, at::Tensor& grads, const DropoutKey& key,
                     double loss_scale, const GradientsReady& ready);

  ModelSetup setup_;
  NetworkBuilder builder_;
  std::unique_ptr<Backend> backend_;
  DoraNorms norms_;
  std::map<std::string, StaticInputs> static_inputs_;
};

}  // namespace neoloom::model
