# SPDX-License-Identifier: Apache-2.0
"""Training steps beside transformers + peft: tokens a second and peak memory, step by step in turns."""

from dataclasses import dataclass

from report import Section, target_cells
from sides import check_losses, hf_side, in_turns, logged_steps, make_request, neoloom_side

THIRD = 1 / 3


@dataclass(frozen=True)
class Row:
    name: str
    head: str
    frozen: str
    rows: int
    length: int
    target: float  # tokens a second over those of transformers + peft
    size: str = "125M"
    peak_target: float | None = None  # peak memory over theirs

    @property
    def compute(self):
        return "float32" if self.frozen == "float16" else self.frozen  # CPUs store in float16, they do not compute in it


ROWS = [
    Row("classification 8 x 128 fp32", "single_label", "float32", 8, 128, 1.25),
    Row("classification 8 x 128 fp16", "single_label", "float16", 8, 128, 1.35),
    Row("classification 8 x 128 bf16", "single_label", "bfloat16", 8, 128, 2.0),
    Row("causal LM 8 x 128 fp32", "causal_lm", "float32", 8, 128, 1.3),
    Row("causal LM 8 x 128 bf16", "causal_lm", "bfloat16", 8, 128, 1.8),
    Row("causal LM 2 x 1024 fp32", "causal_lm", "float32", 2, 1024, 1.9),
    Row("causal LM 2 x 1024 bf16", "causal_lm", "bfloat16", 2, 1024, 3.5, peak_target=THIRD),
    Row("classification 1.3B 2 x 256 bf16", "single_label", "bfloat16", 2, 256, 1.8, size="1.3B"),
]
LOSS_TOLERANCE = {"float32": 2e-3, "float16": 0.05, "bfloat16": 0.05}  # the other side's residual stream has 16 bits, too


def measure(context, row):
    request = make_request(context.work, row.name, model=str(context.model(row.size, row.frozen)), head=row.head,
                           frozen=row.frozen, compute=row.compute, rows=row.rows, length=row.length,
                           threads=context.threads)
    sides = {"neoloom": neoloom_side(context.build, request), "hf": hf_side(request)}
    result = in_turns(sides, context.steps, context.warmup)
    result["loss"] = dict(neoloom=[step["loss"] for step in logged_steps(request)], hf=result["hf"]["extra"]["losses"])
    check_losses(row.name, result["loss"]["neoloom"], result["loss"]["hf"], LOSS_TOLERANCE[row.frozen])
    tokens = row.rows * row.length
    for side in ("neoloom", "hf"):
        result[side]["tokens_per_s"] = tokens / result[side]["seconds"]["median"]
    result["ratio"] = result["neoloom"]["tokens_per_s"] / result["hf"]["tokens_per_s"]
    result["peak_ratio"] = result["neoloom"]["peak_gib"] / result["hf"]["peak_gib"]
    result["private_ratio"] = result["neoloom"]["private_gib"] / result["hf"]["private_gib"]
    return result


def speed_cells(row, side):
    tokens, seconds = row.rows * row.length, side["seconds"]
    return f"{tokens / seconds['median']:.0f} ({tokens / seconds['p75']:.0f}..{tokens / seconds['p25']:.0f})"


def run(context):
    section = Section("Training steps")
    section.add(f"LoRA r=8 on q_proj and v_proj, {context.threads} threads, GPT-Neo 125M shape unless said, random weights. "
                f"Forward, backward, clipping, AdamW and, here, the exact sum, a line of metrics; {context.steps} steps "
                f"after {context.warmup}, both sides in turns from the same adapter, and they must learn alike. CPUs compute "
                f"float16 weights in fp32 here and in float16 on the other side. Tokens a second: median (quartiles).")
    speed, memory = [], []
    for row in context.chosen(ROWS):
        context.say(f"steps: {row.name}")
        result = section.data[row.name] = measure(context, row)
        ours, theirs = result["neoloom"], result["hf"]
        speed.append([row.name, speed_cells(row, ours), speed_cells(row, theirs), f"{result['ratio']:.2f}",
                      *target_cells(result["ratio"], row.target)])
        memory.append([row.name, f"{ours['peak_gib']:.2f}", f"{theirs['peak_gib']:.2f}", f"{result['peak_ratio']:.2f}",
                       *target_cells(result["peak_ratio"], row.peak_target, False),
                       f"{ours['private_gib']:.2f}", f"{theirs['private_gib']:.2f}", f"{result['private_ratio']:.2f}",
                       *target_cells(result["private_ratio"], THIRD if row.size == "125M" else None, False)])
    section.add_table(["work", "neoloom tok/s", "HF + PEFT tok/s", "ratio", "target", ""], speed)
    section.add("Peak resident memory in GiB, and the private part of it: without the pages that are mapped from files "
                "at the end, which ranks of a node share.")
    section.add_table(["work", "neoloom", "HF + PEFT", "ratio", "target", "", "neoloom private", "HF + PEFT private",
                       "ratio", "target", ""], memory)
    return section
