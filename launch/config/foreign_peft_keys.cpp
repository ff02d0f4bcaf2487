// SPDX-License-Identifier: Apache-2.0
// Lists keys of LoraConfig that have no effect here, or are not supported.
// One line a key: group, what happens, key, the values taken without a word (the first is Hugging Face's default), why
// and what to do, and values that are taken with a line although the others are refused.
#include "launch/config/schema.h"

namespace neoloom::launch {

// clang-format off
std::vector<ForeignKey> foreign_peft_keys() {
  using enum ForeignKey::Kind;
  constexpr std::string_view kPeft = "peft_config";
  constexpr std::string_view kInit = "peft_config.init_from starts from an existing adapter";
  constexpr std::string_view kOther = "neoloom trains LoRA on GPT-Neo's linear layers";
  constexpr std::string_view kTied = "modules_to_save trains wte and lm_head apart from each other";
  return {
    // fields of LoraConfig
    {kPeft, kNoEffect, "auto_mapping", {"null"}, "it names Python classes"},
    {kPeft, kNoEffect, "peft_version", {"null"}, "every version's keys are read"},
    {kPeft, kNoEffect, "base_model_name_or_path", {"null", ""}, "model_config.pretrained_model_name names the base model"},
    {kPeft, kNoEffect, "revision", {"null"}, "model_config.revision names the base model's revision"},
    {kPeft, kNoEffect, "inference_mode", {"false"}, "train trains, whatever a saved adapter says"},
    {kPeft, kRefused, "fan_in_fan_out", {"false", "null"}, "GPT-Neo's linear layers are not transposed"},
    {kPeft, kRefused, "megatron_config", {"null"}, kOther},
    {kPeft, kNoEffect, "megatron_core", {"megatron.core", "null"}, "it is read with megatron_config only"},
    {kPeft, kRefused, "loftq_config", {"{}", "null"}, kInit},
    {kPeft, kRefused, "eva_config", {"null"}, kInit},
    {kPeft, kRefused, "corda_config", {"null"}, kInit},
    {kPeft, kRefused, "lora_ga_config", {"null"}, kInit},
    {kPeft, kRefused, "velora_config", {"null"}, kOther},
    {kPeft, kRefused, "alora_invocation_tokens", {"null"}, kOther},
    {kPeft, kRefused, "use_qalora", {"false", "null"}, kOther},
    {kPeft, kNoEffect, "qalora_group_size", {"16", "null"}, "it is read with use_qalora only"},
    {kPeft, kRefused, "monteclora_config", {"null"}, kOther},
    {kPeft, kRefused, "layer_replication", {"null"}, kOther},
    {kPeft, kRefused, "runtime_config", {"{}", "null"}, "the base is not offloaded"},
    {kPeft, kRefused, "target_parameters", {"null", "[]"}, "write target_modules"},
    {kPeft, kRefused, "use_bdlora", {"null", "false"}, kOther},
    {kPeft, kRefused, "arrow_config", {"null"}, kOther},
    {kPeft, kRefused, "kasa_config", {"null"}, kOther},
    {kPeft, kRefused, "ensure_weight_tying", {"false", "null"}, kTied},
    {"peft_config.runtime_config", kRefused, "ephemeral_gpu_offload", {"false", "null"}, "the base is not offloaded"},
    // older versions and scripts
    {kPeft, kRefused, "enable_lora", {"null"}, "write target_modules"},
    {kPeft, kRefused, "merge_weights", {"false", "null"}, "neoloom export --format merged merges"},
    {kPeft, kRefused, "lora_r", {"null"}, "write r"},
  };
}
// clang-format on

}  // namespace neoloom::launch
