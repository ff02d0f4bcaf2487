// SPDX-License-Identifier: Apache-2.0
#include "model/generation/generate.h"

#include <algorithm>
#include <array>
#include <limits>
#include <memory>
#include <optional>
#include <utility>

#include "runtime/core/error.h"

namespace neoloom::model {

using core::ErrorKind;

void check_prompt(const std::vector<int64_t>& prompt, const GptNeoConfig& config, const std::string& where) {
  core::require(static_cast<int64_t>(prompt.size()) <= config.max_position_embeddings, ErrorKind::kData,
                "{}the prompt has {} tokens, the model takes {}; shorten it", where, prompt.size(),
                config.max_position_embeddings);
  for (const int64_t id : prompt) {
    core::require(id >= 0 && id < config.vocab_size, ErrorKind::kData,
                  "{}token id {} of the prompt is outside the model's vocabulary of {}: "
                  "tokenizer and model do not belong together",
                  where, id, config.vocab_size);
  }
}

std::string finish_name(Finish finish) {
  constexpr std::array kNames = {"stop", "length", "positions"};
  return kNames[static_cast<size_t>(finish)];
}

namespace {

/// One text while it is generated.
struct Text {
  size_t request = 0;
  int64_t sequence = 0;
  std::vector<int64_t> context;  // the prompt and the new ids
  size_t prompt_tokens = 0;
  std::vector<int64_t> next;  // ids that the decoder has not seen
  size_t end = 0;             // most tokens of the context
  Finish finish = Finish::kLength;

  Generated result() const {
    return {{context.begin() + static_cast<std::ptrdiff_t>(prompt_tokens), context.end()}, finish};
  }
};

/// Generates texts in the sequences of one decoder: where a text ends, the next request begins.
class Generator {
 public:
  Generator(const GptNeoConfig& config, const std::vector<TextRequest>& requests, const GenerationOptions& options,
            const GenerationEvents& events)
      : config_(config), requests_(requests), options_(options), events_(events) {}

  void run(Model& model, const at::Tensor& params, int64_t batch_size) {
    const auto sequences = std::min(batch_size, static_cast<int64_t>(requests_.size()));
    decoder_ = model.make_decoder(params, longest(), sequences);
    texts_.resize(static_cast<size_t>(sequences));
    for (size_t i = 0; i < texts_.size(); ++i) begin_next(i);
    while (step()) {
    }
  }

 private:
  /// Returns the most tokens that a text can have.
  int64_t longest() const {
    size_t longest = 1;
    for (const TextRequest& request : requests_) longest = std::max(longest, begin(request).end);
    return static_cast<int64_t>(longest);
  }

  Text begin(const TextRequest& request) const {
    Text text;
    text.sequence = request.sequence;
    text.context = request.prompt;
    if (text.context.empty()) text.context.push_back(config_.eos_token_id);
    text.prompt_tokens = text.context.size();
    text.next = text.context;
    // Subtracts, because a sum with max_tokens, which may be any number, could overflow.
    const auto room = config_.max_position_embeddings - static_cast<int64_t>(text.prompt_tokens);
    text.finish = options_.max_tokens <= room ? Finish::kLength : Finish::kPositions;
    text.end = text.prompt_tokens + static_cast<size_t>(std::min(options_.max_tokens, room));
    return text;
  }

  /// Begins the next request in sequence `i`. Ends those that have no room for a token.
  void begin_next(size_t i) {
    texts_[i].reset();
    decoder_->restart(static_cast<int64_t>(i));
    for (; begun_ < requests_.size() && !texts_[i]; ++begun_) {
      Text text = begin(requests_[begun_]);
      text.request = begun_;
      if (text.context.size() < text.end) {
        texts_[i] = std::move(text);
      } else {
        events_.end(begun_, text.result());
      }
    }
  }

  /// Adds a token to each text. Returns false when all have ended.
  bool step() {
    std::vector<Model::Decoder::NextTokens> next;
    for (size_t i = 0; i < texts_.size(); ++i) {
      if (texts_[i]) next.push_back({static_cast<int64_t>(i), std::move(texts_[i]->next)});
    }
    if (next.empty()) return false;
    const at::Tensor logits = decoder_->feed(next).contiguous();
    for (size_t row = 0; row < next.size(); ++row) {
      const auto i = static_cast<size_t>(next[row].sequence);
      if (!extend(*texts_[i], logits[static_cast<int64_t>(row)])) continue;
      events_.end(texts_[i]->request, texts_[i]->result());
      begin_next(i);
    }
    return true;
  }

  /// Returns whether the text has ended.
  bool extend(Text& text, at::Tensor logits) {
    const std::vector<int64_t>& stops = options_.eos_token_ids;
    if (static_cast<int64_t>(text.context.size() - text.prompt_tokens) < options_.min_new_tokens) {
      for (const int64_t stop : stops) exclude_token(logits, stop);
    }
    process_logits(logits, text.context, options_);
    const int64_t id = choose_token(logits, options_, static_cast<int64_t>(text.context.size()), text.sequence);
    if (std::find(stops.begin(), stops.end(), id) != stops.end()) {
      text.finish = Finish::kStop;
      return true;
    }
    text.context.push_back(id);
    text.next = {id};
    if (events_.token && events_.token(text.request, id)) {
      text.finish = Finish::kStop;
      return true;
    }
    return text.context.size() >= text.end;
  }

  const GptNeoConfig& config_;
  const std::vector<TextRequest>& requests_;
  const GenerationOptions& options_;
  const GenerationEvents& events_;
  std::unique_ptr<Model::Decoder> decoder_;
  std::vector<std::optional<Text>> texts_;  // by sequence of the decoder
  size_t begun_ = 0;                        // requests
};

}  // namespace

void generate(Model& model, const at::Tensor& params, const std::vector<TextRequest>& requests,
              const GenerationOptions& options, int64_t batch_size, const GenerationEvents& events) {
  check_options(options);
  const GptNeoConfig& config = model.setup().config;
  for (const TextRequest& request : requests) check_prompt(request.prompt, config);
  if (!requests.empty()) Generator(config, requests, options, events).run(model, params, batch_size);
}

}  // namespace neoloom::model
