// SPDX-License-Identifier: Apache-2.0
#include "model/weight_cache/weight_cache.h"
#include "model/scalar_type.h"

#include <ATen/ops/equal.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <filesystem>
#include <optional>

#include "model/checkpoints/safetensors.h"
#include "model/checkpoints/tensor_names.h"
#include "model/checkpoints/weight_files.h"
#include "model/weight_cache/conversion.h"
#include "model/weight_cache/file_hashes.h"
#include "runtime/core/error.h"

namespace neoloom::model {
namespace {

namespace fs = std::filesystem;
constexpr const char* kPadding = "padding.";  // tensors that keep the next one at a 64-byte boundary
constexpr size_t kAlignmentBytes = 64;
constexpr const char* kFormatVersion = "1";

std::string converted_path(const std::string& cache_dir, const std::string& hash, Dtype dtype) {
  const std::string name = fmt::format("{}-{}-v{}.safetensors", hash.substr(0, 32), dtype_name(dtype), kFormatVersion);
  return (fs::path(cache_dir) / "weights" / name).string();
}

bool is_head(const std::string& name) { return name == kLmHeadName || name == kScoreName; }

/// Reports everything that is wrong with the source at once.
void check_source(const SourceTensors& source, const GptNeoConfig& config, const std::string& folder) {
  TensorReport report;
  const auto body = body_shapes(config);
  const std::map<std::string, std::vector<int64_t>> expected(body.begin(), body.end());
  for (const auto& [name, shape] : expected) {
    const SourceTensors::Entry* entry = source.find(name);
    if (entry == nullptr) {
      report.missing(name, shape);
    } else if (entry->shape != shape) {
      report.misshaped(name, shape, entry->shape);
    } else if (!at::isFloatingType(entry->dtype())) {
      report.other(fmt::format("{} is not floating point", name));
    }
  }
  for (const auto& [name, entry] : source.entries()) {
    if (!expected.contains(name) && !is_head(name) && !is_mask_buffer(name)) report.unexpected(name, entry.shape);
  }
  const std::vector<int64_t> vocabulary = {config.vocab_size, config.hidden_size};
  if (const auto* head = source.find(kLmHeadName); head != nullptr && head->shape != vocabulary) {
    report.misshaped(kLmHeadName, vocabulary, head->shape);
  }
  if (const auto* score = source.find(kScoreName); score != nullptr) {
    const bool fits = score->shape.size() == 2 && score->shape[1] == config.hidden_size;
    if (!fits) report.misshaped(kScoreName, {-1, config.hidden_size}, score->shape);
  }
  report.raise_unless_empty(folder, "Expected a GPT-Neo of the shape in config.json, with at most lm_head and score.");
}

TensorToWrite converted(const std::string& name, const SourceTensors::Entry& entry, at::ScalarType dtype) {
  return {name, dtype, entry.shape, [entry] { return entry.value(); }, [entry] { entry.drop_pages(); }};
}

size_t stored_bytes(const TensorToWrite& tensor) {
  size_t bytes = c10::elementSize(tensor.dtype);
  for (const int64_t size : tensor.shape) bytes *= static_cast<size_t>(size);
  return bytes;
}

/// Returns the list for the converted file: body, then the heads that the source has; each at a 64-byte boundary.
std::vector<TensorToWrite> converted_tensors(const SourceTensors& source, const GptNeoConfig& config, Dtype dtype,
                                             bool untied) {
  std::vector<TensorToWrite> wanted;
  for (const auto& [name, shape] : body_shapes(config)) {
    wanted.push_back(converted(name, *source.find(name), scalar_type(dtype)));
  }
  if (untied) wanted.push_back(converted(kLmHeadName, *source.find(kLmHeadName), scalar_type(dtype)));
  if (const auto* score = source.find(kScoreName)) wanted.push_back(converted(kScoreName, *score, at::kFloat));

  std::vector<TensorToWrite> list;
  for (TensorToWrite& tensor : wanted) {
    const size_t rest = stored_bytes(tensor) % kAlignmentBytes;
    list.push_back(std::move(tensor));
    if (rest == 0) continue;
    const auto padding = static_cast<int64_t>(kAlignmentBytes - rest);
    list.push_back({kPadding + std::to_string(list.size()),
                    at::kByte,
                    {padding},
                    [padding] { return at::zeros({padding}, at::kByte); },
                    {}});
  }
  return list;
}

/// Returns whether head and embedding are untied, as transformers decides it: both are stored and differ. An equal head
/// is left out of the converted file.
bool is_untied(const SourceTensors& source) {
  const SourceTensors::Entry* head = source.find(kLmHeadName);
  if (head == nullptr) return false;
  const SourceTensors::Entry* embedding = source.find(kWordEmbeddingName);
  const at::Tensor head_value = head->value();
  const bool equal = at::equal(head_value, embedding->value().to(head_value.scalar_type()));
  head->drop_pages();
  embedding->drop_pages();
  return !equal;
}

/// Whether to hash the files before they are converted. The hash of a file that was changed just now cannot be
/// remembered, and each rank in turn would convert again.
bool hash_first(const std::vector<SourceFile>& files, bool verify_always) {
  return verify_always ||
         std::any_of(files.begin(), files.end(), [](const auto& file) { return !settled(file.stamp); });
}

std::string note_on_head(const GptNeoConfig& config, bool untied) {
  if (!untied || !config.tie_word_embeddings) return "";
  return "lm_head.weight differs from transformer.wte.weight although config.json ties them: both are used as stored";
}

}  // namespace

std::string prepare_weights(const std::string& folder, const GptNeoConfig& config, Dtype dtype,
                            const core::Cache& cache, bool verify_always) {
  Conversion conversion;
  conversion.path_of = [&](const std::string& name) { return converted_path(cache.directory, name, dtype); };
  conversion.files = source_files(folder, cache, verify_always);
  if (hash_first(conversion.files, verify_always)) hash_unknown(conversion.files, cache);
  std::optional<SafetensorsFile> existing;
  if (const std::string hash = joint_hash(conversion.files); !hash.empty()) {
    std::string path = conversion.path_of(hash);
    existing = open_cached(cache, path);
    if (existing && !verify_always) return path;
  }
  const SourceTensors source(folder);
  check_source(source, config, folder);
  const bool untied = is_untied(source);
  conversion.tensors = converted_tensors(source, config, dtype, untied);
  if (existing) {
    std::vector<TensorToWrite> compared = conversion.tensors;
    tell_after_each(compared, cache.begin("comparing weights", bytes_of(compared)));
    if (holds(*existing, compared)) return existing->path();
  }
  conversion.note = note_on_head(config, untied);
  if (const std::string note = source.note(); !note.empty()) {
    conversion.note += (conversion.note.empty() ? "" : "\n") + note;
  }
  return convert(conversion, source, cache);
}

std::shared_ptr<Weights> map_weights(const std::string& converted_path, const GptNeoConfig& config) {
  const auto file = std::make_shared<const SafetensorsFile>(converted_path);
  auto weights = std::make_shared<Weights>();
  weights->blocks.resize(static_cast<size_t>(config.num_layers));
  TensorReport report;
  const auto body = body_shapes(config);
  const std::map<std::string, std::vector<int64_t>> expected(body.begin(), body.end());
  for_each_body_tensor(*weights, [&](const std::string& name, at::Tensor& tensor) {
    const auto found = file->tensors().find(name);
    if (found == file->tensors().end()) {
      report.missing(name, expected.at(name));
    } else if (found->second.shape != expected.at(name)) {
      report.misshaped(name, expected.at(name), found->second.shape);
    } else {
      tensor = file->tensor(name);
    }
  });
  for (const auto& [name, info] : file->tensors()) {
    if (!expected.contains(name) && !is_head(name) && !name.starts_with(kPadding)) report.unexpected(name, info.shape);
  }
  report.raise_unless_empty(converted_path, "config.json and the weights do not belong together.");

  if (file->tensors().contains(kLmHeadName)) {
    weights->lm_head = file->tensor(kLmHeadName);
  } else if (config.tie_word_embeddings) {
    weights->lm_head = weights->wte;
  }
  if (file->tensors().contains(kScoreName)) weights->score = file->tensor(kScoreName);
  weights->storage = file;
  const auto metadata = [&](const char* key) {
    const auto found = file->metadata().find(key);
    return found == file->metadata().end() ? std::string() : found->second;
  };
  weights->source_hash = metadata("source_sha256");
  if (const std::string note = metadata("note"); !note.empty()) weights->notes.push_back(note);
  return weights;
}

std::shared_ptr<const Weights> with_score_rows(const std::shared_ptr<const Weights>& weights,
                                               const std::vector<int64_t>& rows) {
  if (!weights->score.defined()) return weights;
  const auto changed = std::make_shared<Weights>(*weights);
  changed->score = rows.empty()
                       ? at::Tensor()
                       : weights->score.index_select(0, at::tensor(rows, at::kLong).to(weights->score.device()));
  return changed;
}

}  // namespace neoloom::model
