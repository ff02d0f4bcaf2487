// SPDX-License-Identifier: Apache-2.0
// Lists keys of TrainingArguments of transformers 5 that have no effect here, or are not supported.
// One line a key: group, what happens, key, the values taken without a word (the first is Hugging Face's default), why
// and what to do, and values that are taken with a line although the others are refused.
#include "launch/config/foreign_reasons.h"
#include "launch/config/schema.h"

namespace neoloom::launch {

// clang-format off
std::vector<ForeignKey> foreign_trainer_keys() {
  using enum ForeignKey::Kind;
  constexpr std::string_view kTrainer = "trainer_config";
  constexpr std::string_view kLog = "logging.level sets how much is logged";
  constexpr std::string_view kDdp = "neoloom adds gradients itself; runtime.bucket_bytes sizes the buckets";
  constexpr std::string_view kSave = "rank 0 writes to output_dir, which all ranks should see";
  return {
    {kTrainer, kRefused, "optim_target_modules", {"null"}, "it belongs to optimizers that neoloom does not have; trainer_config.optim lists its own"},
    {kTrainer, kNoEffect, "average_tokens_across_devices", {"true", "null"}, "the loss is the mean over all ranks' targets"},
    {kTrainer, kNoEffect, "bf16_full_eval", {"false", "null"}, kDtypes},
    {kTrainer, kNoEffect, "fp16_full_eval", {"false", "null"}, kDtypes},
    {kTrainer, kNoEffect, "tf32", {"null", "false"}, kDtypes},
    {kTrainer, kNoEffect, "gradient_checkpointing_kwargs", {"null", "{}"}, "recomputed blocks give the same bits"},
    {kTrainer, kNoEffect, "torch_compile", {"false", "null"}, kKernels},
    {kTrainer, kNoEffect, "torch_compile_backend", {"null"}, kKernels},
    {kTrainer, kNoEffect, "torch_compile_mode", {"null"}, kKernels},
    {kTrainer, kNoEffect, "use_liger_kernel", {"false", "null"}, kKernels},
    {kTrainer, kNoEffect, "liger_kernel_config", {"null"}, kKernels},
    {kTrainer, kNoEffect, "use_cache", {"false"}, "training keeps no KV cache"},
    {kTrainer, kNoEffect, "torch_empty_cache_steps", {"null"}, "memory is planned before the first step"},
    {kTrainer, kNoEffect, "log_on_each_node", {"true"}, "lines of ranks other than 0 begin with rank and host"},
    {kTrainer, kNoEffect, "log_level", {"passive"}, kLog},
    {kTrainer, kNoEffect, "log_level_replica", {"warning"}, kLog},
    {kTrainer, kNoEffect, "logging_nan_inf_filter", {"true"}, "losses are logged as they are; non_finite_policy limits steps that are not finite"},
    {kTrainer, kNoEffect, "include_num_input_tokens_seen", {"no"}, kReport},
    {kTrainer, kNoEffect, "run_name", {"null"}, "output_dir names the run"},
    {kTrainer, kNoEffect, "project", {"huggingface"}, kReport},
    {kTrainer, kNoEffect, "trackio_space_id", {"null"}, kReport},
    {kTrainer, kNoEffect, "trackio_bucket_id", {"null"}, kReport},
    {kTrainer, kNoEffect, "trackio_static_space_id", {"null"}, kReport},
    {kTrainer, kNoEffect, "prediction_loss_only", {"false", "null"}, "evaluations compute the task's metrics, too"},
    {kTrainer, kNoEffect, "eval_do_concat_batches", {"true"}, kEval},
    {kTrainer, kNoEffect, "eval_use_gather_object", {"false"}, kEval},
    {kTrainer, kNoEffect, "eval_accumulation_steps", {"null"}, kEval},
    {kTrainer, kNoEffect, "batch_eval_metrics", {"false", "null"}, kEval},
    {kTrainer, kNoEffect, "include_for_metrics", {"[]", "null"}, kEval},
    {kTrainer, kNoEffect, "save_only_model", {"false", "null"}, "checkpoints stay whole, so that the run can resume; adapter/ holds the model alone"},
    {kTrainer, kRefused, "save_on_each_node", {"false", "null"}, kSave},
    {kTrainer, kNoEffect, "enable_jit_checkpoint", {"false", "null"}, "USR1 and USR2 always save and stop"},
    {kTrainer, kRefused, "push_to_hub", {"false", "null"}, kHub},
    {kTrainer, kRefused, "hub_token", {"null", "", "<HUB_TOKEN>"}, kNoSecrets},
    {kTrainer, kNoEffect, "hub_private_repo", {"null", "false"}, kHub},
    {kTrainer, kNoEffect, "hub_model_id", {"null"}, kHub},
    {kTrainer, kNoEffect, "hub_revision", {"null"}, kHub},
    {kTrainer, kNoEffect, "hub_strategy", {"every_save"}, kHub},
    {kTrainer, kNoEffect, "hub_always_push", {"false", "null"}, kHub},
    {kTrainer, kRefused, "ignore_data_skip", {"false", "null"}, "a resumed run continues at the same sample; write false"},
    {kTrainer, kNoEffect, "restore_callback_states_from_checkpoint", {"false", "null"}, "a resume restores everything that training has"},
    {kTrainer, kRefused, "resume_from_checkpoint", {"null"}, "train --resume auto, none or PATH", {"true"}},
    {kTrainer, kNoEffect, "full_determinism", {"false"}, "equal runs give equal bits (runtime.deterministic)"},
    {kTrainer, kRefused, "accelerator_config", {"null", "{}"}, "remove the keys that differ from accelerate's defaults"},
    {kTrainer, kRefused, "parallelism_config", {"null"}, kWhole},
    {kTrainer, kNoEffect, "dataloader_num_workers", {"0"}, kLoader},
    {kTrainer, kNoEffect, "dataloader_pin_memory", {"true"}, kLoader},
    {kTrainer, kNoEffect, "dataloader_persistent_workers", {"false"}, kLoader},
    {kTrainer, kNoEffect, "dataloader_prefetch_factor", {"null"}, kLoader},
    {kTrainer, kNoEffect, "dataloader_multiprocessing_context", {"null"}, kLoader},
    {kTrainer, kNoEffect, "dataloader_in_order", {"true"}, kLoader},
    {kTrainer, kNoEffect, "remove_unused_columns", {"true"}, kColumns},
    {kTrainer, kRefused, "label_names", {"null"}, "data.label_column names the column, data.label_names the labels", {"[labels]", "[label]", "labels", "label"}},
    {kTrainer, kNoEffect, "length_column_name", {"length"}, "neoloom counts tokens itself"},
    {kTrainer, kNoEffect, "ddp_find_unused_parameters", {"null"}, kDdp},
    {kTrainer, kNoEffect, "ddp_bucket_cap_mb", {"null"}, kDdp},
    {kTrainer, kNoEffect, "ddp_broadcast_buffers", {"null"}, kDdp},
    {kTrainer, kNoEffect, "ddp_static_graph", {"null"}, kDdp},
    {kTrainer, kNoEffect, "ddp_backend", {"null", "nccl", "mpi"}, "GPUs use NCCL, CPUs use MPI"},
    {kTrainer, kRefused, "fsdp", {"null", "", "[]", "false"}, kWhole},
    {kTrainer, kRefused, "fsdp_config", {"null", "{}"}, kWhole},
    {kTrainer, kRefused, "deepspeed", {"null"}, kWhole},
    {kTrainer, kNoEffect, "debug", {"", "null", "[]"}, "logging.level: debug says more"},
    {kTrainer, kNoEffect, "skip_memory_metrics", {"true"}, kReport},
    {kTrainer, kNoEffect, "do_train", {"false"}, "the command decides: neoloom train, neoloom evaluate"},
    {kTrainer, kNoEffect, "do_eval", {"false"}, "the command decides: neoloom train, neoloom evaluate"},
    {kTrainer, kNoEffect, "do_predict", {"false", "null"}, "neoloom predict --run DIR predicts"},
    {kTrainer, kNoEffect, "local_rank", {"-1", "0"}, "mpirun numbers the ranks"},
    // inside of maps that to_json_string() writes out
    {"trainer_config.accelerator_config", kRefused, "split_batches", {"false", "null"}, "runtime.global_batch_size fixes the size of a step"},
    {"trainer_config.accelerator_config", kNoEffect, "dispatch_batches", {"null"}, "every rank reads its own shard"},
    {"trainer_config.accelerator_config", kNoEffect, "even_batches", {"true", "null"}, "no sample counts twice, however many ranks there are"},
    {"trainer_config.accelerator_config", kNoEffect, "use_seedable_sampler", {"true", "null"}, "the order depends on data_seed and epoch alone"},
    {"trainer_config.accelerator_config", kNoEffect, "non_blocking", {"false"}, kLoader},
    {"trainer_config.accelerator_config", kRefused, "gradient_accumulation_kwargs", {"null", "{}"}, "write gradient_accumulation_steps"},
    {"trainer_config.accelerator_config", kNoEffect, "use_configured_state", {"false", "null"}, kPython},
    {"trainer_config.fsdp_config", kNoEffect, "min_num_params", {"0", "null"}, kWhole},
    {"trainer_config.fsdp_config", kNoEffect, "fsdp_min_num_params", {"0", "null"}, kWhole},
    {"trainer_config.fsdp_config", kNoEffect, "transformer_layer_cls_to_wrap", {"null"}, kWhole},
    {"trainer_config.fsdp_config", kNoEffect, "fsdp_transformer_layer_cls_to_wrap", {"null"}, kWhole},
    {"trainer_config.fsdp_config", kRefused, "xla", {"false", "null"}, kTpu},
    {"trainer_config.fsdp_config", kRefused, "xla_fsdp_v2", {"false", "null"}, kTpu},
    {"trainer_config.fsdp_config", kRefused, "xla_fsdp_grad_ckpt", {"false", "null"}, kTpu},
    {"trainer_config.fsdp_config", kRefused, "xla_fsdp_settings", {"null", "{}"}, kTpu},
  };
}
// clang-format on

}  // namespace neoloom::launch
