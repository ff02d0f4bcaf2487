// SPDX-License-Identifier: Apache-2.0
// Lists keys of from_pretrained and of GPT-Neo's config.json that model_config gets pasted.
// One line a key: group, what happens, key, the values taken without a word (the first is Hugging Face's default), why
// and what to do, and values that are taken with a line although the others are refused.
#include "launch/config/foreign_reasons.h"
#include "launch/config/schema.h"

namespace neoloom::launch {

// clang-format off
std::vector<ForeignKey> foreign_model_keys() {
  using enum ForeignKey::Kind;
  constexpr std::string_view kModel = "model_config";
  constexpr std::string_view kDevice = "runtime.device chooses the device of every rank";
  constexpr std::string_view kStored = "frozen weights are float16, bfloat16 or float32 (frozen_dtype)";
  constexpr std::string_view kSpecial = "the model folder's config.json has it, and a new model takes it from its tokenizer";
  constexpr std::string_view kOwnKernels = "neoloom chooses its kernels itself";
  constexpr std::string_view kOtherFormats = "safetensors files and pytorch_model.bin are read; convert the folder with transformers' save_pretrained";
  constexpr std::string_view kGenerate = "it is an option of neoloom generate";
  constexpr std::string_view kLora = "it is a key of peft_config, without lora_";
  return {
    // from_pretrained of transformers 5
    {kModel, kRefused, "config", {"null"}, "the model folder's config.json is read"},
    {kModel, kRefused, "state_dict", {"null"}, "the model folder's weights are read"},
    {kModel, kRefused, "adapter_kwargs", {"null", "{}"}, "peft_config.init_from starts from an adapter"},
    {kModel, kNoEffect, "adapter_name", {"default"}, "a run has one adapter"},
    {kModel, kRefused, "cache_dir", {"null"}, "HF_HOME says where Hugging Face's cache is"},
    {kModel, kNoEffect, "code_revision", {"null"}, kCode},
    {kModel, kNoEffect, "trust_remote_code", {"null", "false"}, kCode},
    {kModel, kRefused, "force_download", {"false", "null"}, kDownloadAgain},
    {kModel, kNoEffect, "local_files_only", {"false"}, kOffline},
    {kModel, kNoEffect, "proxies", {"null"}, kProxy},
    {kModel, kNoEffect, "tqdm_class", {"null"}, kReturned},
    {kModel, kNoEffect, "output_loading_info", {"false"}, kReturned},
    {kModel, kRefused, "token", {"null", ""}, kNoSecrets},
    {kModel, kNoEffect, "use_safetensors", {"null", "true"}, "model.safetensors is read if it is there, else pytorch_model.bin"},
    {kModel, kNoEffect, "weights_only", {"true"}, "no code in weight files is ever run"},
    {kModel, kRefused, "fusion_config", {"null"}, "GPT-Neo's modules are not fused"},
    {kModel, kNoEffect, "disable_mmap", {"null"}, "weights are mapped from runtime.cache_dir"},
    {kModel, kNoEffect, "device_map", {"null"}, kDevice},
    {kModel, kRefused, "max_memory", {"null"}, "runtime.memory_budget limits the memory of a rank"},
    {kModel, kNoEffect, "offload_folder", {"null"}, kWhole},
    {kModel, kNoEffect, "offload_buffers", {"false"}, kWhole},
    {kModel, kRefused, "quantization_config", {"null", "{}"}, kStored},
    {kModel, kRefused, "subfolder", {"", "null"}, "name the folder itself in pretrained_model_name"},
    {kModel, kRefused, "variant", {"null"}, "copy the files under their usual names into a folder"},
    {kModel, kRefused, "generation_config", {"null"}, kGenerate},
    {kModel, kRefused, "gguf_file", {"null"}, kOtherFormats},
    {kModel, kRefused, "distributed_config", {"null"}, kWhole},
    {kModel, kRefused, "device_mesh", {"null"}, kWhole},
    {kModel, kRefused, "tp_plan", {"null"}, kWhole},
    {kModel, kRefused, "tp_size", {"null", "0", "1"}, kWhole},
    {kModel, kNoEffect, "allow_all_kernels", {"false"}, kOwnKernels},
    {kModel, kNoEffect, "use_kernels", {"false"}, kOwnKernels},
    {kModel, kNoEffect, "kernel_config", {"null"}, kOwnKernels},
    {kModel, kRefused, "key_mapping", {"null"}, "rename the tensors in the files"},
    {kModel, kNoEffect, "attn_implementation", {"null", "eager", "sdpa"}, kOwnKernels},
    {kModel, kNoEffect, "experts_implementation", {"null"}, "GPT-Neo has no experts"},
    // from_pretrained of transformers 4
    {kModel, kNoEffect, "low_cpu_mem_usage", {"null", "false"}, "weights are mapped, never copied as a whole"},
    {kModel, kNoEffect, "offload_state_dict", {"null", "false"}, kWhole},
    {kModel, kNoEffect, "use_flash_attention_2", {"false"}, kOwnKernels},
    {kModel, kRefused, "load_in_8bit", {"false", "null"}, kStored},
    {kModel, kRefused, "load_in_4bit", {"false", "null"}, kStored},
    {kModel, kRefused, "use_auth_token", {"null", "false"}, kNoSecrets},
    {kModel, kNoEffect, "mirror", {"null"}, "HF_ENDPOINT in the environment names another hub"},
    {kModel, kNoEffect, "resume_download", {"null", "false"}, "downloads always resume"},
    {kModel, kRefused, "from_tf", {"false"}, kOtherFormats},
    {kModel, kRefused, "from_flax", {"false"}, kOtherFormats},
    {kModel, kNoEffect, "return_dict", {"true", "null"}, kReturned},
    // GPT-Neo's config.json
    {kModel, kRefused, "activation_function", {"gelu_new", "null"}, "GPT-Neo's is gelu_new"},
    {kModel, kNoEffect, "bos_token_id", {"null"}, kSpecial},
    {kModel, kNoEffect, "eos_token_id", {"null"}, kSpecial},
    {kModel, kRefused, "num_hidden_layers", {"null"}, "write num_layers"},
    {kModel, kRefused, "num_attention_heads", {"null"}, "write num_heads"},
    {kModel, kNoEffect, "classifier_dropout", {"0.1", "0", "null"}, "transformers uses it for token classification only"},
    {kModel, kNoEffect, "use_cache", {"true", "null"}, "training keeps no KV cache; generate always has one"},
    {kModel, kNoEffect, "output_hidden_states", {"false", "null"}, kReturned},
    {kModel, kNoEffect, "output_attentions", {"false", "null"}, kReturned},
    {kModel, kNoEffect, "chunk_size_feed_forward", {"0", "null"}, "it changes no result"},
    {kModel, kRefused, "is_encoder_decoder", {"false", "null"}, "GPT-Neo is a decoder"},
    {kModel, kNoEffect, "architectures", {"null"}, "the task decides which class the result names"},
    {kModel, kNoEffect, "transformers_version", {"null"}, "the task decides which class the result names"},
    {kModel, kRefused, "model_type", {"gpt_neo", "null"}, "neoloom trains GPT-Neo"},
    {kModel, kNoEffect, "_name_or_path", {""}, "pretrained_model_name names the model"},
    {kModel, kNoEffect, "task_specific_params", {"null"}, kGenerate},
    {kModel, kRefused, "gradient_checkpointing", {"false"}, "write trainer_config.gradient_checkpointing"},
    {kModel, kRefused, "torchscript", {"false"}, "the result is a folder of Hugging Face's format"},
    {kModel, kRefused, "pruned_heads", {"{}", "null"}, "GPT-Neo's heads are kept"},
    // generation settings that transformers 4 kept in config.json
    {kModel, kNoEffect, "min_length", {"null"}, kGenerate},
    {kModel, kNoEffect, "max_new_tokens", {"null"}, kGenerate},
    {kModel, kNoEffect, "do_sample", {"null"}, kGenerate},
    {kModel, kNoEffect, "early_stopping", {"null"}, kGenerate},
    {kModel, kNoEffect, "num_beams", {"null"}, kGenerate},
    {kModel, kNoEffect, "num_beam_groups", {"null"}, kGenerate},
    {kModel, kNoEffect, "temperature", {"null"}, kGenerate},
    {kModel, kNoEffect, "top_k", {"null"}, kGenerate},
    {kModel, kNoEffect, "top_p", {"null"}, kGenerate},
    {kModel, kNoEffect, "typical_p", {"null"}, kGenerate},
    {kModel, kNoEffect, "repetition_penalty", {"null"}, kGenerate},
    {kModel, kNoEffect, "length_penalty", {"null"}, kGenerate},
    {kModel, kNoEffect, "no_repeat_ngram_size", {"null"}, kGenerate},
    {kModel, kNoEffect, "bad_words_ids", {"null"}, kGenerate},
    {kModel, kNoEffect, "num_return_sequences", {"null"}, kGenerate},
    // scripts and TRL
    {kModel, kRefused, "max_length", {"null"}, "write tokenizer_config.max_length"},
    {kModel, kRefused, "max_seq_length", {"null"}, "write tokenizer_config.max_length"},
    {kModel, kRefused, "model_max_length", {"null"}, "write tokenizer_config.max_length"},
    {kModel, kRefused, "config_name", {"null"}, "the model folder's config.json is read"},
    {kModel, kRefused, "model_revision", {"main", "null"}, "write model_config.revision"},
    {kModel, kRefused, "tokenizer_name", {"null"}, "write tokenizer_config.pretrained_tokenizer_name"},
    {kModel, kNoEffect, "use_fast_tokenizer", {"true"}, "both tokenizers give the same ids"},
    {kModel, kRefused, "use_peft", {"null"}, "a peft_config group means LoRA; leave it out to train every parameter"},
    {kModel, kRefused, "lora_r", {"null"}, kLora},
    {kModel, kRefused, "lora_alpha", {"null"}, kLora},
    {kModel, kRefused, "lora_dropout", {"null"}, kLora},
    {kModel, kRefused, "lora_target_modules", {"null"}, kLora},
    {kModel, kRefused, "lora_modules_to_save", {"null"}, kLora},
    {kModel, kRefused, "lora_task_type", {"null"}, kLora},
    {kModel, kRefused, "use_rslora", {"null"}, kLora},
    {kModel, kRefused, "use_dora", {"null"}, kLora},
  };
}
// clang-format on

}  // namespace neoloom::launch
