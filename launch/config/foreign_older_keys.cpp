// SPDX-License-Identifier: Apache-2.0
// Lists keys of transformers 4, TRL and scripts that trainer_config and data get pasted.
// One line a key: group, what happens, key, the values taken without a word (the first is Hugging Face's default), why
// and what to do, and values that are taken with a line although the others are refused.
#include "launch/config/foreign_reasons.h"
#include "launch/config/schema.h"

namespace neoloom::launch {

// clang-format off
std::vector<ForeignKey> foreign_older_keys() {
  using enum ForeignKey::Kind;
  constexpr std::string_view kTrainer = "trainer_config";
  constexpr std::string_view kRuntime = "runtime";
  return {
    // TrainingArguments of transformers 4
    {kTrainer, kNoEffect, "overwrite_output_dir", {"false", "null"}, "a run in output_dir resumes; another output_dir starts over"},
    {kTrainer, kNoEffect, "save_safetensors", {"true", "false"}, "adapters are always safetensors"},
    {kTrainer, kNoEffect, "include_tokens_per_second", {"false"}, kReport},
    {kTrainer, kNoEffect, "include_inputs_for_metrics", {"false", "null"}, kEval},
    {kTrainer, kNoEffect, "fp16_backend", {"auto", "null"}, kDtypes},
    {kTrainer, kNoEffect, "half_precision_backend", {"auto", "null"}, kDtypes},
    {kTrainer, kNoEffect, "fp16_opt_level", {"O1", "null"}, kDtypes},
    {kTrainer, kNoEffect, "jit_mode_eval", {"false", "null"}, kKernels},
    {kTrainer, kNoEffect, "use_ipex", {"false", "null"}, kKernels},
    {kTrainer, kNoEffect, "torchdynamo", {"null"}, kKernels},
    {kTrainer, kNoEffect, "dispatch_batches", {"null"}, "every rank reads its own shard"},
    {kTrainer, kRefused, "loraplus_lr_embedding", {"null", "1e-06", "1e-6", "0.000001"}, "embeddings have no adapters"},
    {kTrainer, kRefused, "loraplus_weight_decay", {"null"}, "trainer_config.weight_decay also holds with loraplus_lr_ratio"},
    {kTrainer, kRefused, "split_batches", {"null", "false"}, "runtime.global_batch_size fixes the size of a step"},
    {kTrainer, kRefused, "sharded_ddp", {"[]", "null", "", "false"}, kWhole},
    {kTrainer, kNoEffect, "fsdp_min_num_params", {"0", "null"}, kWhole},
    {kTrainer, kNoEffect, "fsdp_transformer_layer_cls_to_wrap", {"null"}, kWhole},
    {kTrainer, kRefused, "tp_size", {"0", "null", "1"}, kWhole},
    {kTrainer, kRefused, "mp_parameters", {"", "null"}, kWhole},
    {kTrainer, kRefused, "per_gpu_train_batch_size", {"null"}, "write per_device_train_batch_size"},
    {kTrainer, kRefused, "per_gpu_eval_batch_size", {"null"}, "write per_device_eval_batch_size"},
    {kTrainer, kRefused, "predict_with_generate", {"false", "null"}, "neoloom generate --run DIR generates"},
    {kTrainer, kRefused, "use_mps_device", {"false", "null"}, kTpu},
    {kTrainer, kNoEffect, "tpu_num_cores", {"null"}, kTpu},
    {kTrainer, kNoEffect, "tpu_metrics_debug", {"false", "null"}, kTpu},
    {kTrainer, kNoEffect, "xpu_backend", {"null"}, kTpu},
    {kTrainer, kNoEffect, "past_index", {"-1", "null"}, "GPT-Neo returns no past"},
    {kTrainer, kRefused, "push_to_hub_token", {"null", "", "<PUSH_TO_HUB_TOKEN>"}, kNoSecrets},
    {kTrainer, kNoEffect, "push_to_hub_model_id", {"null"}, kHub},
    {kTrainer, kNoEffect, "push_to_hub_organization", {"null"}, kHub},
    {kTrainer, kNoEffect, "use_legacy_prediction_loop", {"false", "null"}, kEval},
    {kTrainer, kNoEffect, "ray_scope", {"last"}, kPython},
    // TRL's SFTConfig
    {kTrainer, kRefused, "model_init_kwargs", {"null", "{}"}, "write the keys into model_config"},
    {kTrainer, kNoEffect, "trust_remote_code", {"false", "null"}, "neoloom runs no code from model folders"},
    {kTrainer, kNoEffect, "router_aux_loss_coef", {"null"}, "GPT-Neo has no experts"},
    {kTrainer, kRefused, "chat_template_path", {"null"}, "data.template writes chats"},
    {kTrainer, kRefused, "dataset_kwargs", {"null", "{}"}, kColumns},
    {kTrainer, kNoEffect, "dataset_num_proc", {"null"}, kLoader},
    {kTrainer, kNoEffect, "dataset_batch_size", {"1000", "null"}, kLoader},
    {kTrainer, kNoEffect, "num_of_sequences", {"1024"}, kLoader},
    {kTrainer, kNoEffect, "chars_per_token", {"3.6"}, kLoader},
    {kTrainer, kRefused, "eos_token", {"null"}, "the tokenizer's files name the special tokens"},
    {kTrainer, kRefused, "pad_token", {"null"}, "the tokenizer's files name the special tokens"},
    {kTrainer, kNoEffect, "shuffle_dataset", {"false"}, "train_sampling_strategy: random shuffles every epoch"},
    {kTrainer, kRefused, "packing_strategy", {"bfd"}, "data.pack: samples packs as bfd, data.pack: documents as bfd_split"},
    {kTrainer, kNoEffect, "eval_packing", {"null", "false"}, "evaluations pack as training does, which changes no result"},
    {kTrainer, kNoEffect, "padding_free", {"false", "null"}, "samples are packed one after another; nothing is padded"},
    {kTrainer, kNoEffect, "pad_to_multiple_of", {"null", "auto"}, "samples are packed one after another; nothing is padded"},
    {kTrainer, kRefused, "assistant_only_loss", {"false", "null", "true"}, "trainer_config.completion_only_loss: true, the default, does this with chats, too"},
    {kTrainer, kRefused, "loss_type", {"nll", "chunked_nll"}, "the loss is the negative log-likelihood"},
    {kTrainer, kNoEffect, "activation_offloading", {"false", "null"}, "gradient_checkpointing saves memory"},
    {kTrainer, kNoEffect, "use_liger", {"false", "null"}, kKernels},
    // other groups
    {kRuntime, kRefused, "private_packed_weights", {"false"}, "packed weights are shared by the ranks of a host"},
  };
}
// clang-format on

}  // namespace neoloom::launch
