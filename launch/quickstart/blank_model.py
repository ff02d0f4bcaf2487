#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes the folder of a small, untrained GPT-Neo: config.json, tokenizer files, model.safetensors.

The architecture is the released one (alternating global and local layers, tied head, byte-level BPE); the tokenizer is
trained on --corpus with the `tokenizers` package; weights are drawn as transformers draws them: normal(0, 0.02),
LayerNorms at identity.
"""
import argparse
import json
import os
import struct

import tokenizers
import torch
from tokenizers import decoders, models, pre_tokenizers, processors, trainers

END_OF_TEXT = "<|endoftext|>"


def train_tokenizer(corpus, vocab_size, folder):
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, special_tokens=[END_OF_TEXT], show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    with open(corpus, encoding="utf-8") as lines:
        tokenizer.train_from_iterator((json.loads(line)["text"] for line in lines), trainer)
    tokenizer.save(f"{folder}/tokenizer.json")
    config = {"tokenizer_class": "GPT2Tokenizer", "model_max_length": 256, "add_prefix_space": False,
              "bos_token": END_OF_TEXT, "eos_token": END_OF_TEXT, "unk_token": END_OF_TEXT, "pad_token": END_OF_TEXT}
    with open(f"{folder}/tokenizer_config.json", "w", encoding="utf-8") as file:
        json.dump(config, file, indent=2)
    return tokenizer.get_vocab_size(), tokenizer.token_to_id(END_OF_TEXT)


def draw_weights(config, generator):
    hidden, inner = config["hidden_size"], config["intermediate_size"]

    def normal(*shape):
        return torch.empty(*shape).normal_(0.0, config["initializer_range"], generator=generator)

    weights = {"transformer.wte.weight": normal(config["vocab_size"], hidden),
               "transformer.wpe.weight": normal(config["max_position_embeddings"], hidden)}
    for layer in range(config["num_layers"]):
        block = f"transformer.h.{layer}"
        for norm in ("ln_1", "ln_2"):
            weights[f"{block}.{norm}.weight"] = torch.ones(hidden)
            weights[f"{block}.{norm}.bias"] = torch.zeros(hidden)
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            weights[f"{block}.attn.attention.{name}.weight"] = normal(hidden, hidden)
        weights[f"{block}.attn.attention.out_proj.bias"] = torch.zeros(hidden)
        weights[f"{block}.mlp.c_fc.weight"] = normal(inner, hidden)
        weights[f"{block}.mlp.c_fc.bias"] = torch.zeros(inner)
        weights[f"{block}.mlp.c_proj.weight"] = normal(hidden, inner)
        weights[f"{block}.mlp.c_proj.bias"] = torch.zeros(hidden)
    weights["transformer.ln_f.weight"] = torch.ones(hidden)
    weights["transformer.ln_f.bias"] = torch.zeros(hidden)
    return weights


def write_safetensors(path, weights):
    header, offset = {"__metadata__": {"format": "pt"}}, 0
    for name, tensor in weights.items():
        size = tensor.numel() * 4
        header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for tensor in weights.values():
            file.write(bytes(tensor.contiguous().untyped_storage()))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpus", required=True, help="JSONL with a text per line")
    parser.add_argument("--output", required=True)
    parser.add_argument("--vocab-size", type=int, default=4096)
    parser.add_argument("--hidden-size", type=int, default=128)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--seed", type=int, default=42)
    arguments = parser.parse_args()
    os.makedirs(arguments.output, exist_ok=True)
    vocab_size, end_of_text = train_tokenizer(arguments.corpus, arguments.vocab_size, arguments.output)
    config = {
        "architectures": ["GPTNeoForCausalLM"], "model_type": "gpt_neo", "vocab_size": vocab_size,
        "hidden_size": arguments.hidden_size, "num_layers": arguments.layers, "num_heads": arguments.heads,
        "attention_types": [[["global", "local"], arguments.layers // 2]], "window_size": 64,
        "intermediate_size": 4 * arguments.hidden_size, "max_position_embeddings": 256, "activation_function": "gelu_new",
        "layer_norm_epsilon": 1e-5, "initializer_range": 0.02, "attention_dropout": 0.0, "embed_dropout": 0.0,
        "resid_dropout": 0.0, "tie_word_embeddings": True, "bos_token_id": end_of_text, "eos_token_id": end_of_text,
        "pad_token_id": end_of_text,
    }
    with open(f"{arguments.output}/config.json", "w", encoding="utf-8") as file:
        json.dump(config, file, indent=2)
    weights = draw_weights(config, torch.Generator().manual_seed(arguments.seed))
    write_safetensors(f"{arguments.output}/model.safetensors", weights)
    print(f"{sum(tensor.numel() for tensor in weights.values())} parameters, vocabulary {vocab_size}")


if __name__ == "__main__":
    main()
