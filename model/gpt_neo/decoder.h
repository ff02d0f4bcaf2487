// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "model/cpu/matmul.h"
#include "model/gpt_neo/block.h"
#include "model/gpt_neo/network.h"
#include "model/model.h"

namespace neoloom::model {

/// Keys and values of the tokens decoded so far.
struct KeyValueCache {
  at::Tensor k, v;  // [max tokens, h] fp32
};

/// Decodes one sequence with a KV cache per block, [max_tokens, h] fp32. Local blocks cache all tokens too; attention
/// reads only the window.
class GptNeoDecoder final : public Model::Decoder {
 public:
  GptNeoDecoder(const ModelSetup& setup, Network network, int64_t max_tokens);
  at::Tensor feed(const std::vector<int64_t>& ids) override;
  int64_t position() const override { return position_; }

 private:
  GptNeoConfig config_;
  Network network_;
  Matmul matmul_;
  std::vector<KeyValueCache> caches_;
  int64_t max_tokens_;
  int64_t position_ = 0;
};

}  // namespace neoloom::model
