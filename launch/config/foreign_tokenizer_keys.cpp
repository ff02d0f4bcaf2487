// SPDX-License-Identifier: Apache-2.0
// Lists keys of AutoTokenizer.from_pretrained and of a tokenizer's call that tokenizer_config gets pasted.
// One line a key: group, what happens, key, the values taken without a word (the first is Hugging Face's default), why
// and what to do, and values that are taken with a line although the others are refused.
#include "launch/config/foreign_reasons.h"
#include "launch/config/schema.h"

namespace neoloom::launch {

// clang-format off
std::vector<ForeignKey> foreign_tokenizer_keys() {
  using enum ForeignKey::Kind;
  constexpr std::string_view kTokenizer = "tokenizer_config";
  constexpr std::string_view kPadding = "samples are packed one after another; nothing is padded";
  constexpr std::string_view kFiles = "the files of the folder pretrained_tokenizer_name are read";
  constexpr std::string_view kSpecial = "the tokenizer's files name the special tokens";
  constexpr std::string_view kTemplate = "data.template writes prompts and chats";
  constexpr std::string_view kCut = "texts are cut at max_length";
  return {
    // from_pretrained
    {kTokenizer, kRefused, "config", {"null"}, kFiles},
    {kTokenizer, kNoEffect, "use_fast", {"null", "true"}, "both tokenizers give the same ids"},
    {kTokenizer, kRefused, "tokenizer_type", {"null", "gpt2"}, "only byte-level BPE is read"},
    {kTokenizer, kRefused, "tokenizer_class", {"null", "GPT2Tokenizer", "GPT2TokenizerFast"}, "only byte-level BPE is read"},
    {kTokenizer, kNoEffect, "trust_remote_code", {"false", "null"}, kCode},
    {kTokenizer, kNoEffect, "code_revision", {"null"}, kCode},
    {kTokenizer, kRefused, "gguf_file", {"null"}, kFiles},
    {kTokenizer, kRefused, "mistral_format", {"null"}, "only byte-level BPE is read"},
    {kTokenizer, kRefused, "fix_mistral_regex", {"null"}, "only GPT-2's expression is read"},
    {kTokenizer, kRefused, "cache_dir", {"null"}, "HF_HOME says where Hugging Face's cache is"},
    {kTokenizer, kRefused, "force_download", {"false", "null"}, kDownloadAgain},
    {kTokenizer, kNoEffect, "local_files_only", {"false"}, kOffline},
    {kTokenizer, kNoEffect, "proxies", {"null"}, kProxy},
    {kTokenizer, kRefused, "token", {"null", ""}, kNoSecrets},
    {kTokenizer, kRefused, "use_auth_token", {"null", "false"}, kNoSecrets},
    {kTokenizer, kRefused, "revision", {"main", "null"}, "model_config.revision names the model's revision; name a folder for another tokenizer"},
    {kTokenizer, kRefused, "subfolder", {"null", ""}, "name the folder itself in pretrained_tokenizer_name"},
    // arguments of the tokenizer's class
    {kTokenizer, kNoEffect, "name_or_path", {""}, "pretrained_tokenizer_name names the tokenizer"},
    {kTokenizer, kNoEffect, "processor_class", {"null"}, "it names a Python class"},
    {kTokenizer, kNoEffect, "backend", {"null"}, "it names a Python class"},
    {kTokenizer, kNoEffect, "verbose", {"false", "true"}, kReturned},
    {kTokenizer, kNoEffect, "files_loaded", {"[]"}, kReturned},
    {kTokenizer, kNoEffect, "model_input_names", {"null", "[input_ids, attention_mask]"}, kReturned},
    {kTokenizer, kRefused, "model_specific_special_tokens", {"null", "{}"}, kSpecial},
    {kTokenizer, kRefused, "max_len", {"null"}, "write max_length"},
    {kTokenizer, kNoEffect, "padding_side", {"null", "right"}, kPadding},
    {kTokenizer, kRefused, "clean_up_tokenization_spaces", {"false", "null"}, "decoded text is left as it is"},
    {kTokenizer, kRefused, "clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output", {"false"}, "decoded text is left as it is"},
    {kTokenizer, kRefused, "chat_template", {"null"}, kTemplate},
    {kTokenizer, kRefused, "response_template", {"null"}, kTemplate},
    {kTokenizer, kRefused, "response_schema", {"null"}, kTemplate},
    {kTokenizer, kRefused, "additional_special_tokens", {"null", "[]"}, kSpecial},
    {kTokenizer, kRefused, "extra_special_tokens", {"null", "[]", "{}"}, kSpecial},
    {kTokenizer, kRefused, "added_tokens_decoder", {"{}", "null"}, kSpecial},
    {kTokenizer, kRefused, "bos_token", {"<|endoftext|>", "null"}, kSpecial},
    {kTokenizer, kRefused, "eos_token", {"<|endoftext|>", "null"}, kSpecial},
    {kTokenizer, kRefused, "unk_token", {"<|endoftext|>", "null"}, kSpecial},
    {kTokenizer, kRefused, "pad_token", {"null", "<|endoftext|>"}, "model_config.pad_token_id names the id"},
    {kTokenizer, kRefused, "sep_token", {"null"}, "GPT-Neo has no such token"},
    {kTokenizer, kRefused, "cls_token", {"null"}, "GPT-Neo has no such token"},
    {kTokenizer, kRefused, "mask_token", {"null"}, "GPT-Neo has no such token"},
    {kTokenizer, kRefused, "add_bos_token", {"false", "null"}, "texts get no token in front"},
    {kTokenizer, kRefused, "add_prefix_space", {"false", "null"}, "texts get no space in front"},
    {kTokenizer, kRefused, "errors", {"replace", "null"}, "bytes that are not UTF-8 decode to U+FFFD"},
    {kTokenizer, kRefused, "vocab", {"null"}, kFiles},
    {kTokenizer, kRefused, "merges", {"null"}, kFiles},
    {kTokenizer, kRefused, "vocab_file", {"null"}, kFiles},
    {kTokenizer, kRefused, "merges_file", {"null"}, kFiles},
    {kTokenizer, kRefused, "tokenizer_file", {"null"}, kFiles},
    {kTokenizer, kRefused, "tokenizer_object", {"null"}, kFiles},
    {kTokenizer, kRefused, "post_processor", {"null"}, kFiles},
    {kTokenizer, kRefused, "tokenizer_truncation", {"null"}, kFiles},
    {kTokenizer, kRefused, "tokenizer_padding", {"null"}, kFiles},
    {kTokenizer, kRefused, "tokenizer", {"null"}, kFiles},
    {kTokenizer, kNoEffect, "unk_id", {"0"}, "byte-level BPE has no unknown text"},
    {kTokenizer, kNoEffect, "truncation_strategy", {"null", "longest_first"}, kCut},
    {kTokenizer, kNoEffect, "pad_token_type_id", {"null", "0"}, kPadding},
    // arguments of a call
    {kTokenizer, kNoEffect, "padding", {"false", "null", "true", "longest"}, kPadding},
    {kTokenizer, kNoEffect, "pad_to_multiple_of", {"null"}, kPadding},
    {kTokenizer, kNoEffect, "truncation", {"null", "true", "longest_first", "only_first"}, kCut},
    {kTokenizer, kRefused, "add_special_tokens", {"true"}, "add_eos_token decides whether a text ends with eos"},
    {kTokenizer, kRefused, "is_split_into_words", {"false"}, "texts are strings"},
    {kTokenizer, kNoEffect, "return_tensors", {"null"}, kReturned},
    {kTokenizer, kNoEffect, "return_attention_mask", {"null"}, kReturned},
    {kTokenizer, kNoEffect, "return_token_type_ids", {"null"}, kReturned},
    {kTokenizer, kNoEffect, "return_special_tokens_mask", {"false"}, kReturned},
    {kTokenizer, kNoEffect, "return_offsets_mapping", {"false"}, kReturned},
    {kTokenizer, kNoEffect, "return_length", {"false"}, kReturned},
    {kTokenizer, kRefused, "tokenizer_kwargs", {"null", "{}"}, "write the keys themselves"},
  };
}
// clang-format on

}  // namespace neoloom::launch
