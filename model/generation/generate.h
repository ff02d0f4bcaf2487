// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "model/generation/next_token.h"
#include "model/model.h"

namespace neoloom::model {

/// Why generation ended: at a stop token or stop string, at max_tokens, or at the model's last position.
enum class Finish { kStop, kLength, kPositions };
/// "stop", "length" or "positions".
std::string finish_name(Finish finish);

struct TextRequest {
  std::vector<int64_t> prompt;  // an empty one starts from eos
  int64_t sequence = 0;         // several texts of one prompt differ by it
};

struct Generated {
  std::vector<int64_t> ids;  // the new ones
  Finish finish = Finish::kLength;
};

struct GenerationEvents {
  /// Called for each new id of requests[text]. Returns whether the text ends here (stop strings). May be empty.
  std::function<bool(size_t text, int64_t id)> token;
  std::function<void(size_t text, Generated generated)> end;
};

/// Continues each request, up to `batch_size` at a time. A text does not depend on the others. Texts end in any order.
/// Throws: Error(kUsage) for options out of range, Error(kData) as check_prompt().
void generate(Model& model, const at::Tensor& params, const std::vector<TextRequest>& requests,
              const GenerationOptions& options, int64_t batch_size, const GenerationEvents& events);

/// Throws: Error(kData) when the prompt has more tokens than the model has positions, or ids outside its vocabulary;
/// `where` opens the message.
void check_prompt(const std::vector<int64_t>& prompt, const GptNeoConfig& config, const std::string& where = "");

}  // namespace neoloom::model
