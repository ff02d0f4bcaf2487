// SPDX-License-Identifier: Apache-2.0
#include "model/checkpoints/own_embedding.h"

#include <ATen/ops/nonzero.h>

#include <algorithm>
#include <filesystem>
#include <iterator>

#include "model/checkpoints/adapter_files.h"
#include "model/checkpoints/adapter_folder.h"
#include "model/checkpoints/safetensors.h"
#include "model/checkpoints/tensor_names.h"
#include "model/gpt_neo/weights.h"
#include "model/lora/target_modules.h"
#include "model/parameter_table.h"
#include "runtime/core/error.h"

namespace neoloom::model {
namespace {

using core::ErrorKind;

/// Which rows of `stored`, rounded to the dtype of `ours`, differ from these: [V].
at::Tensor other_rows(const at::Tensor& stored, const at::Tensor& ours) {
  return stored.cpu().to(ours.scalar_type()).ne(ours.cpu()).any(1);
}

/// What an adapter file holds of the base.
struct Stored {
  std::string path;
  at::Tensor words, head;  // head undefined: not stored
  size_t own_rows = 0;     // of words
};

/// Throws unless rows of trained tokens can stand for what PEFT would load into the base.
void require_possible(const Stored& stored, const GptNeoConfig& config, const Weights& weights,
                      const LoraOptions& lora) {
  const bool has_head = stored.head.defined() && weights.lm_head.defined();
  const bool tied = has_head && !other_rows(weights.wte, weights.lm_head).any().item<bool>();
  const bool same_head =
      !has_head || (tied && stored.words.defined() ? stored.head.equal(stored.words)
                                                   : !other_rows(stored.head, weights.lm_head).any().item<bool>());
  core::require(same_head, ErrorKind::kWeights, "{}: its lm_head.weight is not {}; {}", stored.path,
                tied ? "its embedding, although the base ties them" : "the base's", kMergeInPeft);
  const bool whole = trains_whole(lora, "wte") || (trains_whole(lora, "lm_head") && config.tie_word_embeddings);
  const bool apart = has_head && !tied && config.tie_word_embeddings;
  core::require(stored.own_rows == 0 || (!whole && !apart), ErrorKind::kWeights,
                "{}: {} rows of its frozen embedding are not the base's, and {}; {}", stored.path, stored.own_rows,
                whole ? "modules_to_save names wte or lm_head" : "the base stores an lm_head apart from it",
                kMergeInPeft);
}

}  // namespace

std::string_view frozen_embedding(const std::string& key, const std::vector<int64_t>& found, const LoraOptions& lora,
                                  const std::vector<int64_t>& shape) {
  const std::string name = without_wrappers(key);
  for (const std::string_view embedding : {std::string_view(kWordEmbeddingName), std::string_view(kLmHeadName)}) {
    const std::string_view module = embedding.substr(0, embedding.rfind('.'));
    const bool whole = trains_whole(lora, module.substr(module.rfind('.') + 1));
    const auto is = [&](std::string_view suffix) { return name == fmt::format("{}{}{}", kPeftPrefix, module, suffix); };
    const bool frozen =
        (!whole && is(".weight")) || is(".original_module.weight") || is(".token_adapter.base_layer.weight");
    if (frozen && found == shape) return embedding;
  }
  return "";
}

std::string take_embedding(const std::string& folder, const GptNeoConfig& config, const Weights& weights,
                           LoraOptions& lora) {
  const SafetensorsFile file((std::filesystem::path(folder) / kAdapterTensorFile).string());
  const std::vector<int64_t> shape = {config.vocab_size, config.hidden_size};
  at::Tensor words, head;
  for (const auto& [key, info] : file.tensors()) {
    const std::string_view embedding = frozen_embedding(key, info.shape, lora, shape);
    if (!embedding.empty()) (embedding == kWordEmbeddingName ? words : head) = file.tensor(key);
  }
  // What nothing reads, because a trained tensor takes its place, may be anything.
  if (trains_whole(lora, "lm_head")) head = at::Tensor();
  if (trains_whole(lora, "wte") && !(head.defined() && config.tie_word_embeddings)) words = at::Tensor();
  if (!words.defined() && !head.defined()) return "";
  std::vector<int64_t>& tokens = lora.trainable_token_indices;
  const auto trained = file.tensors().find(fmt::format("{}{}", kPeftPrefix, kTrainableTokensName));
  if (trained != file.tensors().end()) {
    core::require((trained->second.shape == std::vector<int64_t>{std::ssize(tokens), config.hidden_size}),
                  ErrorKind::kWeights, "{}: {} is {}, but trainable_token_indices has {} tokens", file.path(),
                  kTrainableTokensName, shape_text(trained->second.shape), tokens.size());
  }
  const std::vector<int64_t> before = tokens;
  if (words.defined()) {
    const at::Tensor rows = at::nonzero(other_rows(words, weights.wte)).flatten();
    const int64_t* const ids = rows.const_data_ptr<int64_t>();
    std::copy_if(ids, ids + rows.numel(), std::back_inserter(tokens),
                 [&](int64_t id) { return std::find(before.begin(), before.end(), id) == before.end(); });
  }
  const size_t own = tokens.size() - before.size();
  require_possible({file.path(), words, head, own}, config, weights, lora);
  if (own == 0) return fmt::format("{}: the adapter brings an embedding, which is the base's", folder);
  return fmt::format(
      "{}: the adapter brings an embedding of its own: {} of {} rows are not the base's, and take their place, as in "
      "PEFT",
      folder, own, shape.front());
}

}  // namespace neoloom::model
