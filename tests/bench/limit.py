# SPDX-License-Identifier: Apache-2.0
"""The limit of a step on a GPU: the time of its GEMMs alone, each at the best rate that gemm_probe measured."""

import math

from sides import LORA_RANK

ADAPTED = 2  # q_proj and v_proj of each block


def best_gemms(lines):
    """Returns [(count, FLOPs, seconds)] of each GEMM of a step; the seconds are those of the fastest candidate, infinity
    if every one failed."""
    found = {}
    for line in lines:
        if "case" not in line:
            continue
        shape = line["shape"]
        key = tuple(shape[name] for name in ("n", "k", "m", "backward"))
        seconds = min(line.get("milliseconds", math.inf) * 1e-3, found[key][2] if key in found else math.inf)
        found[key] = (shape["count"], line["flops"], seconds)
    return list(found.values())


def lora_flops_per_token(row):
    """Counts 2 operations for each element of A and B in the forward pass, and twice as many in the backward pass."""
    import sizes

    settings = sizes.config(row.size)
    return 6 * ADAPTED * settings["num_layers"] * 2 * LORA_RANK * settings["hidden_size"]


def of(row, lines):
    """Returns seconds, FLOPs and the mean rate of a step; None if no GEMM was measured or one is missing. Attention
    and LoRA count at the mean rate of the GEMMs."""
    gemms = best_gemms(lines)
    left_out = [name for line in lines for name in line.get("left_out", [])]
    if not gemms or left_out or any(math.isinf(seconds) for *_, seconds in gemms):
        return None
    seconds = sum(count * each for count, _, each in gemms)
    flops = sum(count * each for count, each, _ in gemms)
    others = row.tokens * (row.attention_flops_per_token + lora_flops_per_token(row))
    return dict(seconds=seconds * (flops + others) / flops, gemm_seconds=seconds, flops=flops + others,
                mean_tflops=flops / seconds * 1e-12, gemms=len(gemms))
