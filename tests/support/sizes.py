# SPDX-License-Identifier: Apache-2.0
"""GPT-Neo's released shapes with random weights, written by transformers: for load, memory and speed tests.

    python3 tests/support/sizes.py 1.3B FOLDER [--dtype float16] [--max_shard_size 1GB]
"""

import argparse
from pathlib import Path

import torch
from transformers import GPTNeoConfig, GPTNeoForCausalLM
from transformers.utils import logging

logging.disable_progress_bar()

SHAPES = {
    "125M": dict(hidden_size=768, num_layers=12, num_heads=12),
    "1.3B": dict(hidden_size=2048, num_layers=24, num_heads=16),
    "2.7B": dict(hidden_size=2560, num_layers=32, num_heads=20),
}


def config(size):
    shape = SHAPES[size]
    return GPTNeoConfig(
        vocab_size=50257,
        max_position_embeddings=2048,
        attention_types=[[["global", "local"], shape["num_layers"] // 2]],
        **shape,
    )


def make_model(size, dtype="float16", seed=0):
    """Makes random weights N(0, 0.02), LayerNorm 1 and 0, directly in `dtype` so that memory stays at one copy.

    For saving only: the attention mask buffers are not filled. To run it, load the saved folder with from_pretrained.
    """
    with torch.device("meta"):
        model = GPTNeoForCausalLM(config(size))
    model = model.to(getattr(torch, dtype)).to_empty(device="cpu")
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".ln_" in "." + name:
                parameter.fill_(1.0 if name.endswith("weight") else 0.0)
            elif name.endswith("bias"):
                parameter.zero_()
            else:
                block = torch.randn(1 << 20, generator=generator) * 0.02  # a repeated block: drawing all is slow
                flat = parameter.view(-1)
                for begin in range(0, flat.numel(), block.numel()):
                    piece = flat[begin : begin + block.numel()]
                    piece.copy_(block[: piece.numel()])
    model.tie_weights()
    return model.eval()


def make_model_folder(folder, size, dtype="float16", max_shard_size=None, seed=0):
    """Writes config.json and safetensors; 1.3B and 2.7B in shards of 1 GB unless told otherwise. Reused when the
    folder already holds a config.json, which is written last."""
    folder = Path(folder)
    if (folder / "config.json").exists() and any(folder.glob("*.safetensors")):
        return folder
    shard = max_shard_size or ("4GB" if size == "125M" else "1GB")
    make_model(size, dtype, seed).save_pretrained(folder, max_shard_size=shard)
    return folder


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("size", choices=SHAPES)
    parser.add_argument("folder")
    parser.add_argument("--dtype", default="float16", choices=["float16", "bfloat16", "float32"])
    parser.add_argument("--max_shard_size")
    arguments = parser.parse_args()
    print(make_model_folder(arguments.folder, arguments.size, arguments.dtype, arguments.max_shard_size))
