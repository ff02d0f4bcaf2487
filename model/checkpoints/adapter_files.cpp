// SPDX-License-Identifier: Apache-2.0
#include "model/checkpoints/adapter_files.h"

#include <ATen/ops/tensor.h>

#include <filesystem>

#include "model/checkpoints/adapter_folder.h"
#include "model/checkpoints/own_embedding.h"
#include "model/checkpoints/plain_lora.h"
#include "model/checkpoints/safetensors.h"
#include "model/checkpoints/tensor_names.h"
#include "model/checkpoints/weight_files.h"
#include "model/parameter_table.h"
#include "runtime/core/error.h"
#include "runtime/core/files.h"

namespace neoloom::model {
namespace {

namespace fs = std::filesystem;
using core::ErrorKind;

/// Returns a parameter slot as a view of the flat buffer.
at::Tensor slot_view(const at::Tensor& params, const ParameterSlot& slot) {
  return params.narrow(0, slot.offset_elements, slot.elements()).view(slot.shape);
}

void require_params(const at::Tensor& params, const Model& model) {
  core::require(params.numel() == model.layout().total_elements && params.scalar_type() == at::kFloat,
                ErrorKind::kInternal, "the parameter buffer does not fit the model's layout");
}

bool has_slot(const Model& model, const std::string& name) {
  for (const ParameterSlot& slot : model.layout().slots) {
    if (slot.name == name) return true;
  }
  return false;
}

void replace_all(std::string& text, const std::string& piece, const std::string& with) {
  for (size_t at = text.find(piece); at != std::string::npos; at = text.find(piece, at + with.size())) {
    text.replace(at, piece.size(), with);
  }
}

std::string key_of_tokens() { return fmt::format("{}{}", kPeftPrefix, kTrainableTokensName); }

/// Returns true for what PEFT also stores: the frozen bias of a module that trains whole (bias: all), its trained
/// tensors under a second name (this, or save_embedding_layers), and the trained rows of tokens under the name of a
/// tied head.
template <typename Tensors>
bool is_spare_of_peft(const std::string& name, const Tensors& tensors) {
  if (name.ends_with(".bias") && name.find(".original_module.") != std::string::npos) return true;
  if (name.ends_with("lm_head.token_adapter.trainable_tokens_delta")) return tensors.contains(key_of_tokens());
  return name.find(".modules_to_save.") != std::string::npos && tensors.contains(saved_key(name));
}

/// Returns the tensors of an adapter or of a full model: full name to file and stored name.
std::map<std::string, SourceTensors::Entry> stored_tensors(const std::string& folder, bool adapter) {
  if (!adapter) return SourceTensors(folder).entries();
  const auto file = std::make_shared<const SafetensorsFile>((fs::path(folder) / kAdapterTensorFile).string());
  std::map<std::string, SourceTensors::Entry> entries;
  TensorReport report;
  for (const auto& [name, info] : file->tensors()) {
    if (is_spare_of_peft(name, file->tensors())) continue;
    const bool fresh = entries.emplace(saved_key(name), SourceTensors::Entry{file, name, info.shape}).second;
    if (!fresh) report.other(fmt::format("{} is stored twice", saved_key(name)));
  }
  report.raise_unless_empty(folder, "Expected one tensor per parameter.");
  return entries;
}

/// Removes the frozen embedding of PEFT's save_embedding_layers. Returns that of words; undefined: there is none.
at::Tensor extract_embedding(std::map<std::string, SourceTensors::Entry>& stored, const ModelSetup& setup) {
  at::Tensor words;
  const std::vector<int64_t> shape = {setup.config.vocab_size, setup.config.hidden_size};
  std::erase_if(stored, [&](const auto& item) {
    const std::string_view embedding = frozen_embedding(item.first, item.second.shape, *setup.lora, shape);
    if (embedding == kWordEmbeddingName) words = item.second.value();
    return !embedding.empty();
  });
  return words;
}

bool has_rows_of(const std::vector<int64_t>& shape, const std::vector<int64_t>& all) {
  return shape.size() == all.size() && shape.front() <= all.front() && shape.back() == all.back();
}

/// Fills the rows of trained tokens, then of those that take_embedding() has added.
void copy_token_rows(const std::map<std::string, SourceTensors::Entry>& stored, const at::Tensor& embedding,
                     const std::vector<int64_t>& tokens, const at::Tensor& values) {
  values.copy_(embedding.index_select(0, at::tensor(tokens, at::kLong)));
  const auto trained = stored.find(key_of_tokens());
  if (trained == stored.end()) return;
  const at::Tensor rows = trained->second.value();
  values.narrow(0, 0, rows.size(0)).copy_(rows);
}

/// Returns true for tensors of a full model that are no error although no slot takes them.
bool is_spare(const std::string& name) { return name == kLmHeadName || name == kScoreName || is_mask_buffer(name); }

/// Says what to do about an embedding among an adapter's tensors, which means that the vocabulary grew; "" without one.
std::string hint_at_embedding(const std::map<std::string, SourceTensors::Entry>& stored, int64_t vocab_size) {
  for (const auto& [name, entry] : stored) {
    const bool embedding = name.ends_with(".wte.weight") || name.ends_with(".lm_head.weight") ||
                           name.ends_with(".token_adapter.base_layer.weight") ||
                           name.find(".lora_embedding_") != std::string::npos;
    if (!embedding || entry.shape.empty()) continue;
    return fmt::format(
        "The adapter has its own embedding for {} tokens, the base has {} tokens: an embedding is read with the "
        "base's tokens only. Merge it once in PEFT "
        "(merge_and_unload().save_pretrained(FOLDER), "
        "and save its tokenizer there), then use that folder as the model.",
        entry.shape.front(), vocab_size);
  }
  return "";
}

}  // namespace

std::string saved_key(const std::string& name) {
  std::string key = without_wrappers(name);
  replace_all(key, ".modules_to_save.default.", ".");
  replace_all(key, ".modules_to_save.", ".");
  for (const char* part : {".lora_A", ".lora_B"})
    replace_all(key, std::string(part) + ".default.", part + std::string("."));
  const std::string magnitude(kMagnitudeSuffix);  // PEFT keeps it in a module, and saves it without ".weight"
  for (const char* part : {".default.weight", ".default", ".weight"}) replace_all(key, magnitude + part, magnitude);
  const std::string tokens(kTrainableTokensName);
  replace_all(key, tokens + ".default", tokens);
  return key;
}

void write_descriptions(const std::string& folder, const ModelConfigText& parts) {
  const auto write = [&](const char* name, const std::string& text) {
    if (!text.empty()) core::publish_file((fs::path(folder) / name).string(), text, ErrorKind::kOutput);
  };
  write(kConfigFile, model_config_text(parts));
  write(kCardFile, parts.description.card);
  write(kCalibrationFile, parts.description.calibration);
}

void write_adapter_folder(const std::string& folder, const Model& model, const at::Tensor& params,
                          const std::string& base_model_name, const HeadDescription& head,
                          const std::vector<std::string>& tokenizer_files) {
  require_params(params, model);
  const ModelSetup& setup = model.setup();
  const bool adapter = setup.lora.has_value();
  const ModelConfigText config{.base = setup.config,
                               .head = setup.head,
                               .num_labels = setup.num_labels,
                               .description = head,
                               .dtype = adapter ? "" : "float32",
                               .untied_lm_head = has_slot(model, kLmHeadName)};
  publish_folder(folder, [&](const std::string& fresh) {
    const fs::path root(fresh);
    write_safetensors((root / (adapter ? kAdapterTensorFile : kModelTensorFile)).string(),
                      plain_tensors(model, params));
    if (adapter) {
      core::publish_file((root / kAdapterConfigFile).string(),
                         adapter_config_text(plain_options(model), setup.head, base_model_name, head.revision),
                         ErrorKind::kOutput);
    }
    write_descriptions(fresh, config);
    copy_files(tokenizer_files, fresh);
  });
}

void load_adapter_values(const std::string& folder, const Model& model, at::Tensor& params) {
  require_params(params, model);
  const ModelSetup& setup = model.setup();
  const bool adapter = setup.lora.has_value();
  std::map<std::string, SourceTensors::Entry> stored = stored_tensors(folder, adapter);
  at::Tensor embedding;
  if (adapter) embedding = extract_embedding(stored, setup);
  TensorReport report;
  std::map<std::string, bool> used;
  for (const ParameterSlot& slot : model.layout().slots) {
    used[slot.name] = true;
    const bool has_more_rows = embedding.defined() && slot.name == key_of_tokens();  // than the file's tensor
    const auto found = stored.find(slot.name);
    if (has_more_rows) {
      if (found != stored.end() && !has_rows_of(found->second.shape, slot.shape)) {
        report.misshaped(slot.name, slot.shape, found->second.shape);
      }
    } else if (found == stored.end()) {
      report.missing(slot.name, slot.shape);
    } else if (found->second.shape != slot.shape) {
      report.misshaped(slot.name, slot.shape, found->second.shape);
    } else if (!found->second.value().is_floating_point()) {
      report.other(fmt::format("{} is not floating point", slot.name));
    }
  }
  for (const auto& [name, entry] : stored) {
    if (!used.contains(name) && (adapter || !is_spare(name))) report.unexpected(name, entry.shape);
  }
  std::string hint = adapter ? hint_at_embedding(stored, setup.config.vocab_size) : "";
  if (hint.empty()) {
    hint = adapter ? "Expected an adapter of this base model with the same r, target_modules, use_dora, bias and "
                     "labels."
                   : "Expected a full model of the same shape.";
  }
  report.raise_unless_empty(folder, hint);
  for (const ParameterSlot& slot : model.layout().slots) {
    const at::Tensor values = slot_view(params, slot);
    if (embedding.defined() && slot.name == key_of_tokens()) {
      copy_token_rows(stored, embedding, setup.lora->trainable_token_indices, values);
    } else {
      values.copy_(stored.at(slot.name).value());
    }
  }
}

}  // namespace neoloom::model
