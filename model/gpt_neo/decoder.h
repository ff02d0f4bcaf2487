// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "model/cpu/matmul.h"
#include "model/gpt_neo/block.h"
#include "model/gpt_neo/key_value_cache.h"
#include "model/gpt_neo/network.h"
#include "model/model.h"

namespace neoloom::model {

/// Decodes some sequences beside each other with a KV cache per block and sequence. Linear layers see the rows of all
/// sequences at once; attention sees one sequence at a time.
class GptNeoDecoder final : public Model::Decoder {
 public:
  GptNeoDecoder(const ModelSetup& setup, Network network, int64_t max_tokens, int64_t sequences);
  at::Tensor feed(const std::vector<NextTokens>& next) override;
  int64_t position(int64_t sequence) const override { return positions_.at(static_cast<size_t>(sequence)); }
  void restart(int64_t sequence) override;

 private:
  void check(const std::vector<NextTokens>& next) const;
  at::Tensor embed(const std::vector<NextTokens>& next) const;
  at::Tensor attend(size_t layer, const std::vector<NextTokens>& next, const at::Tensor& q, const at::Tensor& k,
                    const at::Tensor& v);
  at::Tensor decode_block(size_t layer, const std::vector<NextTokens>& next, const at::Tensor& x);

  GptNeoConfig config_;
  Network network_;
  Matmul matmul_;
  std::vector<std::vector<KeyValueCache>> caches_;  // by block, then by sequence
  int64_t max_tokens_;
  std::vector<int64_t> positions_;  // by sequence
};

}  // namespace neoloom::model
