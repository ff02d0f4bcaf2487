// SPDX-License-Identifier: Apache-2.0
// Lists the keys that people paste from Hugging Face scripts. No key that would change the result is ignored: it is
// accepted with the values that mean what neoloom does anyway, and refused by name with any other.
#include <algorithm>

#include "launch/config/schema.h"
#include "launch/config/values.h"

namespace neoloom::launch {

namespace {

constexpr std::string_view kModel = "model_config";
constexpr std::string_view kPeft = "peft_config";
constexpr std::string_view kTokenizer = "tokenizer_config";
constexpr std::string_view kTrainer = "trainer_config";
constexpr std::string_view kData = "data";
constexpr std::string_view kRuntime = "runtime";
constexpr std::string_view kNoSecrets =
    "secrets do not belong in a configuration; set HF_TOKEN in the environment of what downloads or uploads";

bool replace_if_true(const std::string& name, Node& node, const std::string& text) {
  if (!read_flag(name, node)) return false;
  node.kind = Node::Kind::kString;
  node.text = text;
  return true;
}

bool ratio_to_steps(const std::string& name, Node& node) { return read_number(name, node, kBelowOne) > 0; }
bool to_group_by_length(const std::string& name, Node& node) { return replace_if_true(name, node, "group_by_length"); }
bool to_adafactor(const std::string& name, Node& node) {
  return !node.is_null() && replace_if_true(name, node, "adafactor");
}
bool to_cpu(const std::string& name, Node& node) { return replace_if_true(name, node, "cpu"); }
bool to_plain(const std::string& name, Node& node) { return !node.is_null() && replace_if_true(name, node, "plain"); }

void add_model_keys(std::vector<ForeignKey>& out) {
  const std::string_view by_runtime = "runtime.device chooses the device";
  const std::string_view by_labels = "data.label_names sets the labels and their order";
  const std::vector<ForeignKey> keys = {
      {kModel, "trust_remote_code", {"null", "false"}, "neoloom runs no code from model folders"},
      {kModel, "attn_implementation", {"null", "eager", "sdpa"}, "neoloom chooses its attention kernels itself"},
      {kModel, "device_map", {"null"}, by_runtime},
      {kModel, "max_memory", {"null"}, by_runtime},
      {kModel, "load_in_8bit", {"null", "false"}, "frozen weights are float16, bfloat16 or float32"},
      {kModel, "load_in_4bit", {"null", "false"}, "frozen weights are float16, bfloat16 or float32"},
      {kModel, "quantization_config", {"null", "{}"}, "frozen weights are float16, bfloat16 or float32"},
      {kModel, "low_cpu_mem_usage", {"*"}, ""},
      {kModel, "use_cache", {"*"}, ""},
      {kModel, "local_files_only", {"*"}, ""},
      {kModel, "output_loading_info", {"null", "false"}, ""},
      {kModel, "output_hidden_states", {"null", "false"}, ""},
      {kModel, "output_attentions", {"null", "false"}, ""},
      {kModel, "use_safetensors", {"null", "true"}, "only safetensors files are read"},
      {kModel, "force_download", {"null", "false"}, ""},
      {kModel, "variant", {"null"}, ""},
      {kModel, "subfolder", {"null", ""}, "name the folder itself in pretrained_model_name"},
      {kModel, "cache_dir", {"null"}, "HF_HOME says where Hugging Face's cache is"},
      {kModel, "token", {"null", ""}, kNoSecrets},
      {kModel, "use_auth_token", {"null", "false"}, kNoSecrets},
      {kModel, "id2label", {"null"}, by_labels},
      {kModel, "label2id", {"null"}, by_labels},
      {kModel, "attention_dropout", {"null", "0"}, "frozen layers have no dropout; peft_config.lora_dropout exists"},
      {kModel, "embed_dropout", {"null", "0"}, "frozen layers have no dropout; peft_config.lora_dropout exists"},
      {kModel, "resid_dropout", {"null", "0"}, "frozen layers have no dropout; peft_config.lora_dropout exists"},
      {kModel, "classifier_dropout", {"null", "0"}, "the classification head has no dropout"},
  };
  out.insert(out.end(), keys.begin(), keys.end());
}

void add_peft_keys(std::vector<ForeignKey>& out) {
  const std::vector<ForeignKey> keys = {
      {kPeft, "inference_mode", {"null", "false"}, "training needs false"},
      {kPeft, "auto_mapping", {"*"}, ""},
      {kPeft, "peft_version", {"*"}, ""},
      {kPeft, "base_model_name_or_path", {"null", ""}, "model_config.pretrained_model_name names the base model"},
      {kPeft, "revision", {"null"}, "model_config.revision names the base model's revision"},
      {kPeft, "fan_in_fan_out", {"null", "false"}, "GPT-Neo's linear layers are not transposed"},
      {kPeft, "bias", {"none"}, ""},
      {kPeft, "use_dora", {"null", "false"}, ""},
      {kPeft, "megatron_config", {"null"}, ""},
      {kPeft, "megatron_core", {"null", "megatron.core"}, ""},
      {kPeft, "trainable_token_indices", {"null"}, ""},
      {kPeft, "loftq_config", {"null", "{}"}, ""},
      {kPeft, "eva_config", {"null"}, ""},
      {kPeft, "corda_config", {"null"}, ""},
      {kPeft, "lora_ga_config", {"null"}, ""},
      {kPeft, "velora_config", {"null"}, ""},
      {kPeft, "kasa_config", {"null"}, ""},
      {kPeft, "monteclora_config", {"null"}, ""},
      {kPeft, "arrow_config", {"null"}, ""},
      {kPeft, "use_bdlora", {"null", "false"}, ""},
      {kPeft, "use_qalora", {"null", "false"}, ""},
      {kPeft, "qalora_group_size", {"null", "16"}, ""},
      {kPeft, "alora_invocation_tokens", {"null"}, ""},
      {kPeft, "layer_replication", {"null"}, ""},
      {kPeft, "runtime_config", {"null", "{}"}, ""},
      {kPeft, "lora_bias", {"null", "false"}, ""},
      {kPeft, "target_parameters", {"null", "[]"}, ""},
      {kPeft, "ensure_weight_tying", {"null", "false"}, ""},
  };
  out.insert(out.end(), keys.begin(), keys.end());
}

void add_tokenizer_keys(std::vector<ForeignKey>& out) {
  const std::string_view own_padding = "rows are padded on the right to the longest of their batch";
  const std::vector<ForeignKey> keys = {
      {kTokenizer, "padding_side", {"null", "right"}, own_padding},
      {kTokenizer, "padding", {"null", "true", "longest"}, own_padding},
      {kTokenizer, "pad_to_multiple_of", {"null"}, own_padding},
      {kTokenizer, "truncation", {"null", "true", "longest_first", "only_first"}, "rows are cut at max_length"},
      {kTokenizer, "truncation_side", {"null", "right"}, "rows are cut at the end"},
      {kTokenizer, "add_bos_token", {"null", "false"}, ""},
      {kTokenizer, "add_prefix_space", {"null", "false"}, ""},
      {kTokenizer, "bos_token", {"null", "<|endoftext|>"}, ""},
      {kTokenizer, "eos_token", {"null", "<|endoftext|>"}, ""},
      {kTokenizer, "unk_token", {"null", "<|endoftext|>"}, ""},
      {kTokenizer, "pad_token", {"null", "<|endoftext|>"}, "model_config.pad_token_id names the id"},
      {kTokenizer, "additional_special_tokens", {"null", "[]"}, ""},
      {kTokenizer, "use_fast", {"*"}, ""},
      {kTokenizer, "return_tensors", {"*"}, ""},
      {kTokenizer, "return_attention_mask", {"*"}, ""},
      {kTokenizer, "return_token_type_ids", {"*"}, ""},
      {kTokenizer, "tokenizer_class", {"null", "GPT2Tokenizer", "GPT2TokenizerFast"}, "only byte-level BPE is read"},
      {kTokenizer, "clean_up_tokenization_spaces", {"null", "false"}, ""},
      {kTokenizer, "errors", {"null", "replace"}, ""},
      {kTokenizer, "trust_remote_code", {"null", "false"}, "neoloom runs no code from model folders"},
      {kTokenizer, "chat_template", {"null"}, "data.prompt_column and data.response_column take prompts and answers"},
  };
  out.insert(out.end(), keys.begin(), keys.end());
}

/// Adds keys that change what is computed, or what the user gets.
void add_trainer_numeric_keys(std::vector<ForeignKey>& out) {
  const std::string_view dtypes = "runtime.compute_dtype sets the compute dtype";
  const std::string_view by_column = "data.text_column, data.label_column and similar keys name the columns";
  const std::vector<ForeignKey> keys = {
      {kTrainer, "optim_target_modules", {"null"}, ""},
      {kTrainer, "loraplus_lr_embedding", {"null", "1e-06", "1e-6", "0.000001"}, "embeddings have no adapters"},
      {kTrainer, "loraplus_weight_decay", {"null"}, "trainer_config.weight_decay also holds with loraplus_lr_ratio"},
      {kTrainer, "average_tokens_across_devices", {"null", "true"}, "the loss is the mean over all ranks' targets"},
      {kTrainer, "neftune_noise_alpha", {"null"}, ""},
      {kTrainer, "bf16_full_eval", {"null", "false"}, dtypes},
      {kTrainer, "fp16_full_eval", {"null", "false"}, dtypes},
      {kTrainer, "tf32", {"null", "false"}, dtypes},
      {kTrainer, "fp16_backend", {"null", "auto"}, dtypes},
      {kTrainer, "half_precision_backend", {"null", "auto"}, dtypes},
      {kTrainer, "fp16_opt_level", {"null", "O1"}, dtypes},
      {kTrainer, "gradient_checkpointing_kwargs", {"*"}, ""},
      {kTrainer, "torch_compile", {"null", "false"}, ""},
      {kTrainer, "torch_compile_backend", {"null"}, ""},
      {kTrainer, "torch_compile_mode", {"null"}, ""},
      {kTrainer, "use_liger_kernel", {"null", "false"}, ""},
      {kTrainer, "liger_kernel_config", {"null"}, ""},
      {kTrainer, "jit_mode_eval", {"null", "false"}, ""},
      {kTrainer, "use_ipex", {"null", "false"}, ""},
      {kTrainer, "logging_strategy", {"steps"}, "logging_steps is a count or a share of all steps"},
      {kTrainer, "report_to", {"null", "none", "[]", "[none]"}, "metrics.jsonl in the run folder holds every figure"},
      {kTrainer, "eval_delay", {"null", "0"}, ""},
      {kTrainer, "eval_on_start", {"null", "false"}, ""},
      {kTrainer, "prediction_loss_only", {"null", "false"}, ""},
      {kTrainer, "include_for_metrics", {"null", "[]"}, ""},
      {kTrainer, "include_inputs_for_metrics", {"null", "false"}, ""},
      {kTrainer, "batch_eval_metrics", {"null", "false"}, ""},
      {kTrainer, "save_only_model", {"null", "false"}, "the run folder's adapter/ holds the model alone"},
      {kTrainer, "save_on_each_node", {"null", "false"}, "rank 0 writes"},
      {kTrainer, "save_safetensors", {"*"}, ""},  // false was a default once; adapters are safetensors all the same
      {kTrainer, "enable_jit_checkpoint", {"null", "false"}, "USR1 and USR2 save and stop"},
      {kTrainer, "overwrite_output_dir", {"null", "false"}, "choose another output_dir, or train with --resume none"},
      {kTrainer, "resume_from_checkpoint", {"null", "true"}, "train --resume auto, none or PATH"},
      {kTrainer, "ignore_data_skip", {"null", "false"}, "a resumed run continues at the same sample"},
      {kTrainer, "restore_callback_states_from_checkpoint", {"null", "false"}, ""},
      {kTrainer, "accelerator_config", {"null", "{}"}, ""},
      {kTrainer, "parallelism_config", {"null"}, ""},
      {kTrainer, "dispatch_batches", {"null"}, ""},
      {kTrainer, "split_batches", {"null", "false"}, "runtime.global_batch_size fixes the size of a step"},
      {kTrainer, "fsdp", {"null", "", "[]", "false"}, "every rank holds the frozen weights"},
      {kTrainer, "fsdp_config", {"null", "{}"}, "every rank holds the frozen weights"},
      {kTrainer, "deepspeed", {"null"}, "every rank holds the frozen weights"},
      {kTrainer, "ddp_backend", {"null", "nccl", "mpi"}, "GPUs use NCCL, CPUs use MPI"},
      {kTrainer, "label_names", {"null"}, "data.label_column names the column, data.label_names the labels"},
      {kTrainer, "per_gpu_train_batch_size", {"null"}, "write per_device_train_batch_size"},
      {kTrainer, "per_gpu_eval_batch_size", {"null"}, "write per_device_eval_batch_size"},
      {kTrainer, "max_seq_length", {"null"}, "write tokenizer_config.max_length"},
      {kTrainer, "max_length", {"null"}, "write tokenizer_config.max_length"},
      {kTrainer, "dataset_text_field", {"null"}, by_column},
      {kTrainer, "packing", {"null", "false"}, ""},
      {kTrainer, "assistant_only_loss", {"null", "false"}, ""},
      {kTrainer, "predict_with_generate", {"null", "false"}, ""},
      {kTrainer, "use_mps_device", {"null", "false"}, ""},
      {kTrainer, "past_index", {"null", "-1"}, ""},
      {kTrainer, "mp_parameters", {"null", ""}, ""},
      {kTrainer, "debug", {"null", "", "[]"}, ""},
      {kTrainer, "do_predict", {"null", "false"}, "neoloom predict --run DIR"},
      {kTrainer, "push_to_hub", {"null", "false"}, "the run folder's adapter/ can be uploaded as it is"},
      {kTrainer, "hub_always_push", {"null", "false"}, ""},
      {kTrainer, "hub_token", {"null", "", "<HUB_TOKEN>"}, kNoSecrets},
      {kTrainer, "push_to_hub_token", {"null", "", "<PUSH_TO_HUB_TOKEN>"}, kNoSecrets},
      {kTrainer, "push_to_hub_model_id", {"null"}, ""},
      {kTrainer, "push_to_hub_organization", {"null"}, ""},
      {kTrainer, "sharded_ddp", {"null", "", "[]", "false"}, "every rank holds the frozen weights"},
      {kTrainer, "fsdp_min_num_params", {"null", "0"}, "every rank holds the frozen weights"},
      {kTrainer, "fsdp_transformer_layer_cls_to_wrap", {"null"}, "every rank holds the frozen weights"},
      {kTrainer, "tpu_num_cores", {"null"}, ""},
      {kTrainer, "tpu_metrics_debug", {"null", "false"}, ""},
      {kTrainer, "tp_size", {"null", "0", "1"}, ""},
      {kTrainer, "use_legacy_prediction_loop", {"null", "false"}, ""},
      {kTrainer, "torchdynamo", {"null"}, ""},
      {kTrainer, "xpu_backend", {"null"}, ""},
  };
  out.insert(out.end(), keys.begin(), keys.end());
}

/// Adds the keys inside of maps that to_json_string() writes out with their defaults.
void add_nested_keys(std::vector<ForeignKey>& out) {
  const std::string_view accelerator = "trainer_config.accelerator_config";
  const std::string_view fsdp = "trainer_config.fsdp_config";
  const std::vector<ForeignKey> keys = {
      {accelerator, "split_batches", {"null", "false"}, "runtime.global_batch_size fixes the size of a step"},
      {accelerator, "dispatch_batches", {"null"}, ""},
      {accelerator, "even_batches", {"null", "true"}, ""},
      {accelerator, "use_seedable_sampler", {"null", "true"}, ""},
      {accelerator, "non_blocking", {"*"}, ""},
      {accelerator, "gradient_accumulation_kwargs", {"null", "{}"}, "trainer_config.gradient_accumulation_steps"},
      {accelerator, "use_configured_state", {"null", "false"}, ""},
      {fsdp, "min_num_params", {"null", "0"}, ""},
      {fsdp, "fsdp_min_num_params", {"null", "0"}, ""},
      {fsdp, "transformer_layer_cls_to_wrap", {"null"}, ""},
      {fsdp, "fsdp_transformer_layer_cls_to_wrap", {"null"}, ""},
      {fsdp, "xla", {"null", "false"}, ""},
      {fsdp, "xla_fsdp_v2", {"null", "false"}, ""},
      {fsdp, "xla_fsdp_grad_ckpt", {"null", "false"}, ""},
      {fsdp, "xla_fsdp_settings", {"null", "{}"}, ""},
      {"peft_config.runtime_config", "ephemeral_gpu_offload", {"null", "false"}, ""},
  };
  out.insert(out.end(), keys.begin(), keys.end());
}

/// Adds keys about Python's own machinery, or about reports that neoloom always makes. No value of theirs changes
/// anything.
void add_trainer_idle_keys(std::vector<ForeignKey>& out) {
  for (const std::string_view key : {"run_name",
                                     "project",
                                     "trackio_space_id",
                                     "trackio_bucket_id",
                                     "trackio_static_space_id",
                                     "logging_dir",
                                     "log_level",
                                     "log_level_replica",
                                     "log_on_each_node",
                                     "logging_nan_inf_filter",
                                     "include_num_input_tokens_seen",
                                     "include_tokens_per_second",
                                     "skip_memory_metrics",
                                     "torch_empty_cache_steps",
                                     "use_cache",
                                     "eval_do_concat_batches",
                                     "eval_use_gather_object",
                                     "eval_accumulation_steps",
                                     "hub_private_repo",
                                     "hub_model_id",
                                     "hub_strategy",
                                     "hub_revision",
                                     "full_determinism",
                                     "dataloader_num_workers",
                                     "dataloader_pin_memory",
                                     "dataloader_persistent_workers",
                                     "dataloader_prefetch_factor",
                                     "dataloader_multiprocessing_context",
                                     "dataloader_in_order",
                                     "remove_unused_columns",
                                     "length_column_name",
                                     "ddp_find_unused_parameters",
                                     "ddp_bucket_cap_mb",
                                     "ddp_broadcast_buffers",
                                     "ddp_static_graph",
                                     "ddp_timeout",
                                     "do_train",
                                     "do_eval",
                                     "local_rank",
                                     "ray_scope",
                                     "dataset_num_proc"}) {
    out.push_back({kTrainer, key, {"*"}, ""});
  }
}

void add_own_keys(std::vector<ForeignKey>& out) {
  const std::vector<ForeignKey> keys = {
      {kData, "messages_column", {"null", ""}, "data.prompt_column and data.response_column take prompts and answers"},
      {kData, "template", {"null", ""}, ""},
      {kRuntime, "private_packed_weights", {"false"}, ""},
  };
  out.insert(out.end(), keys.begin(), keys.end());
}

}  // namespace

bool ForeignKey::accepts(const Node& value) const {
  if (accepted.size() == 1 && accepted.front() == "*") return true;
  return std::find(accepted.begin(), accepted.end(), render(value)) != accepted.end();
}

std::vector<Alias> make_aliases() {
  return {
      {kModel, "pretrained_model_name_or_path", kModel, "pretrained_model_name", false, {}},
      {kModel, "model_name_or_path", kModel, "pretrained_model_name", false, {}},
      {kModel, "dtype", kModel, "frozen_dtype", false, {}},
      {kModel, "torch_dtype", kModel, "frozen_dtype", true, {}},
      {kTokenizer, "pretrained_tokenizer_name_or_path", kTokenizer, "pretrained_tokenizer_name", false, {}},
      {kTokenizer, "pretrained_model_name_or_path", kTokenizer, "pretrained_tokenizer_name", false, {}},
      {kTokenizer, "tokenizer_name", kTokenizer, "pretrained_tokenizer_name", false, {}},
      {kTokenizer, "model_max_length", kTokenizer, "max_length", false, {}},
      {kTrainer, "warmup_ratio", kTrainer, "warmup_steps", true, ratio_to_steps},
      {kTrainer, "evaluation_strategy", kTrainer, "eval_strategy", true, {}},
      {kTrainer, "group_by_length", kTrainer, "train_sampling_strategy", true, to_group_by_length},
      {kTrainer, "adafactor", kTrainer, "optim", true, to_adafactor},
      {kTrainer, "no_cuda", kRuntime, "device", true, to_cpu},
      {kTrainer, "use_cpu", kRuntime, "device", false, to_cpu},
      {kTrainer, "disable_tqdm", "logging", "progress", false, to_plain},
      {kTrainer, "invalid_data_tolerance_percent", kData, "invalid_data_tolerance_percent", false, {}},
      {"", "invalid_data_tolerance_percent", kData, "invalid_data_tolerance_percent", false, {}},
  };
}

std::vector<ForeignKey> make_foreign_keys() {
  std::vector<ForeignKey> out;
  add_model_keys(out);
  add_peft_keys(out);
  add_tokenizer_keys(out);
  add_trainer_numeric_keys(out);
  add_trainer_idle_keys(out);
  add_nested_keys(out);
  add_own_keys(out);
  return out;
}

}  // namespace neoloom::launch
