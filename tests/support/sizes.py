# SPDX-License-Identifier: Apache-2.0
"""GPT-Neo's released shapes, and a tiny one, with random weights: for load, memory and speed tests. Needs torch and
safetensors alone.

    python3 tests/support/sizes.py 1.3B FOLDER [--dtype float16]
"""

import argparse
import json
import math
from pathlib import Path

import torch
from safetensors.torch import save_file

SHAPES = {
    "tiny": dict(hidden_size=64, num_layers=2, num_heads=2),
    "125M": dict(hidden_size=768, num_layers=12, num_heads=12),
    "1.3B": dict(hidden_size=2048, num_layers=24, num_heads=16),
    "2.7B": dict(hidden_size=2560, num_layers=32, num_heads=20),
}
SHARD_BYTES = 10**9


def config(size, dtype="float16"):
    """Returns what config.json says."""
    shape = SHAPES[size]
    return dict(model_type="gpt_neo", architectures=["GPTNeoForCausalLM"], vocab_size=50257, max_position_embeddings=2048,
                window_size=256, attention_types=[[["global", "local"], shape["num_layers"] // 2]],
                activation_function="gelu_new", layer_norm_epsilon=1e-5, bos_token_id=50256, eos_token_id=50256,
                tie_word_embeddings=True, dtype=dtype, **shape)


def tensor_shapes(settings):
    """Yields name and shape of every tensor in the order of a checkpoint."""
    h = settings["hidden_size"]
    yield "transformer.wte.weight", (settings["vocab_size"], h)
    yield "transformer.wpe.weight", (settings["max_position_embeddings"], h)
    for layer in range(settings["num_layers"]):
        block = f"transformer.h.{layer}."
        for name in ("ln_1", "ln_2"):
            yield f"{block}{name}.weight", (h,)
            yield f"{block}{name}.bias", (h,)
        for name in ("k_proj", "v_proj", "q_proj", "out_proj"):
            yield f"{block}attn.attention.{name}.weight", (h, h)
        yield f"{block}attn.attention.out_proj.bias", (h,)
        for name, rows, columns in (("c_fc", 4 * h, h), ("c_proj", h, 4 * h)):
            yield f"{block}mlp.{name}.weight", (rows, columns)
            yield f"{block}mlp.{name}.bias", (rows,)
    yield "transformer.ln_f.weight", (h,)
    yield "transformer.ln_f.bias", (h,)


def make_tensor(name, shape, dtype, generator):
    """Draws N(0, 0.02); LayerNorm is 1 and 0, other biases 0."""
    if name.endswith("bias"):
        return torch.zeros(shape, dtype=dtype)
    if ".ln_" in name:
        return torch.ones(shape, dtype=dtype)
    block = (torch.randn(1 << 20, generator=generator) * 0.02).to(dtype)  # repeated: drawing all is slow
    count = math.prod(shape)
    return block.repeat(-(-count // block.numel()))[:count].view(shape).contiguous()


def shards(settings, dtype):
    """Returns the shapes by name, cut into groups of at most SHARD_BYTES unless one tensor alone is larger."""
    groups, size = [{}], 0
    for name, shape in tensor_shapes(settings):
        bytes_ = math.prod(shape) * dtype.itemsize
        if groups[-1] and size + bytes_ > SHARD_BYTES:
            groups.append({})
            size = 0
        groups[-1][name] = shape
        size += bytes_
    return groups


def make_model_folder(folder, size, dtype="float16", seed=0):
    """Writes safetensors, in shards if it is large, and config.json. Reused when the folder already holds a config.json,
    which is written last."""
    folder = Path(folder)
    if (folder / "config.json").exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    settings, kind, generator = config(size, dtype), getattr(torch, dtype), torch.Generator().manual_seed(seed)
    groups = shards(settings, kind)
    names = [f"model-{i + 1:05}-of-{len(groups):05}.safetensors" for i in range(len(groups))]
    if len(groups) == 1:
        names = ["model.safetensors"]
    for file, shapes in zip(names, groups, strict=True):
        save_file({name: make_tensor(name, shape, kind, generator) for name, shape in shapes.items()}, folder / file,
                  {"format": "pt"})
    if len(groups) > 1:
        places = {name: file for file, shapes in zip(names, groups, strict=True) for name in shapes}
        total = sum((folder / file).stat().st_size for file in names)
        (folder / "model.safetensors.index.json").write_text(
            json.dumps(dict(metadata=dict(total_size=total), weight_map=places)))
    (folder / "config.json").write_text(json.dumps(settings, indent=2) + "\n")
    return folder


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("size", choices=SHAPES)
    parser.add_argument("folder")
    parser.add_argument("--dtype", default="float16", choices=["float16", "bfloat16", "float32"])
    arguments = parser.parse_args()
    print(make_model_folder(arguments.folder, arguments.size, arguments.dtype))
