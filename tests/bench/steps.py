# SPDX-License-Identifier: Apache-2.0
"""Measures training steps beside transformers + peft: tokens a second, the share of the limit that the GEMMs set, time by kind
of work, peak memory, step by step in turns."""

import shutil
import sys
from dataclasses import dataclass

import operators
from report import Section, target_cells
from sides import (FIRST_STEP_SECONDS, STEP_SECONDS, SideFailed, check_losses, distance, hf_side, in_turns, logged_steps,
                   make_request, neoloom_side)

THIRD = 1 / 3
REFERENCE_STEPS = 5  # of transformers + peft in fp32, whose losses judge the 16-bit rows


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

    @property
    def tokens(self):
        return self.rows * self.length


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
LOSS_TOLERANCE = {"float32": 2e-3, "float16": 0.05, "bfloat16": 0.05}  # see distance


def request_for(context, row, name, **fields):
    return make_request(context.work, f"{row.name} {name}".strip(), model=str(context.model(row.size, row.frozen)),
                        head=row.head, rows=row.rows, length=row.length, threads=context.threads,
                        **(dict(frozen=row.frozen, compute=row.compute) | fields))


def hf_names(context):
    """The first one, eager, is what targets and losses are about."""
    return ["eager", *(name for name in context.hf or [] if name != "eager"), *(["newest"] if context.newest else [])]


def hf_sides(context, row):
    """Returns the sides of transformers + peft by name. Autocast computes in bfloat16 from weights in fp32, as Trainer's
    `bf16: true` does: it stands beside the bfloat16 rows alone."""
    sides = {}
    for name in hf_names(context):
        if name == "autocast" and row.frozen != "bfloat16":
            continue
        sides[name] = hf_side(request_for(context, row, name, variant="eager" if name == "newest" else name,
                                          frozen="float32" if name == "autocast" else row.frozen),
                              context.newest if name == "newest" else sys.executable)
    return sides


def fp32_losses(context, row):
    """The first losses of transformers + peft with the same weights in fp32."""
    side = hf_side(request_for(context, row, "fp32", frozen="float32"))
    try:
        for _ in range(REFERENCE_STEPS):
            side.ask("step 1", FIRST_STEP_SECONDS)
        return side.end()["extra"]["losses"]
    finally:
        side.close()


def judge_losses(context, row, result, first):
    """Compares the sides in fp32. In 16 bits compares both with fp32: fails if neoloom is outside of the tolerance and
    farther off than the other side."""
    ours, theirs = result["loss"]["neoloom"], result["loss"].get(first)
    if row.frozen == "float32" and theirs:
        same = min(len(ours), len(theirs))  # a slow side takes fewer steps
        ours, theirs = ours[:same], theirs[:same]
        check_losses(row.name, ours, theirs, LOSS_TOLERANCE[row.frozen])
        result["loss_distance"] = dict(reference=theirs[0], neoloom=distance(ours, theirs))
        return
    reference = fp32_losses(context, row)
    same = min(len(reference), len(ours), len(theirs or ours))
    reference, ours, theirs = reference[:same], ours[:same], theirs and theirs[:same]
    found = result["loss_distance"] = dict(reference=reference[0], neoloom=distance(ours, reference))
    if theirs:
        found["hf"] = distance(theirs, reference)
    if found["neoloom"] > max(LOSS_TOLERANCE[row.frozen], found.get("hf", 0.0)):
        raise SideFailed(f"losses {ours} here, {reference} in fp32, {theirs} on the other side")


def measure(context, row):
    request = request_for(context, row, "", limit=True)
    sides = {"neoloom": neoloom_side(context.build, request)} | hf_sides(context, row)
    result = in_turns(sides, context.steps, context.warmup)
    names = [name for name in hf_names(context) if name in sides]
    result["loss"] = {name: result[name]["extra"]["losses"] for name in names if "seconds" in result[name]}
    result["loss"]["neoloom"] = [step["loss"] for step in logged_steps(request)]
    judge_losses(context, row, result, names[0])
    ours = result["neoloom"]
    ours["tokens_per_s"] = row.tokens / ours["seconds"]["median"]
    ours["share_of_limit"] = ours["limit"]["seconds"] / ours["seconds"]["median"]
    for name in names:
        side = result[name]
        side["tokens_per_s"] = row.tokens / (side["seconds"]["median"] if "seconds" in side else side["at_least_seconds"])
        side["ratio"] = ours["tokens_per_s"] / side["tokens_per_s"]
    if shutil.which("perf"):
        result["kinds"] = operators.samples(context, context.build / "step_bench", request, warmup=2,
                                            steps=max(3, context.steps // 4))
    return result


def speed_text(row, side):
    if "seconds" not in side:
        return f"< {side['tokens_per_s']:.0f}"
    seconds = side["seconds"]
    middle = f"{row.tokens / seconds['median']:.0f}"
    return f"{middle} (1 step)" if seconds["n"] == 1 else \
        f"{middle} ({row.tokens / seconds['p75']:.0f}..{row.tokens / seconds['p25']:.0f})"


def speed_cells(row, result, names):
    """The ratio to a side that had to be ended is a bound."""
    ours, first = result["neoloom"], result[names[0]]
    cells = [row.name, speed_text(row, ours), f"{100 * ours['share_of_limit']:.0f} %"]
    for name in names:
        if name not in result:
            cells += ["", ""]
            continue
        bound = "" if "seconds" in result[name] else "> "
        cells += [speed_text(row, result[name]), f"{bound}{result[name]['ratio']:.2f}"]
    return cells + target_cells(first["ratio"], row.target)


def memory_cells(row, result, first):
    ours, theirs = result["neoloom"], result[first]
    if "seconds" not in theirs:
        return [row.name, f"{ours['peak_gib']:.2f}", "", "", "", "", f"{ours['private_gib']:.2f}", "", "", "", ""]
    peak, private = (ours[key] / theirs[key] for key in ("peak_gib", "private_gib"))
    return [row.name, f"{ours['peak_gib']:.2f}", f"{theirs['peak_gib']:.2f}", f"{peak:.2f}",
            *target_cells(peak, row.peak_target, False), f"{ours['private_gib']:.2f}", f"{theirs['private_gib']:.2f}",
            f"{private:.2f}", *target_cells(private, THIRD if row.size == "125M" else None, False)]


def loss_cells(row, result):
    found = result["loss_distance"]
    return [row.name, f"{found['reference']:.4f}", f"{found['neoloom']:.1e}", f"{found['hf']:.1e}" if "hf" in found else ""]


def versions_text(results):
    found = {}
    for result in results.values():
        for name, side in result.items():
            if isinstance(side, dict) and side.get("extra"):
                found[name] = ", ".join(f"{library} {version}" for library, version in side["extra"]["versions"].items())
    return "; ".join(f"{name}: {text}" for name, text in found.items())


def add_tables(section, context, rows, results):
    names = hf_names(context)
    section.add(f"HF + PEFT: {versions_text(results)}.")
    section.add_table(["work", "neoloom tok/s", "share of the limit",
                       *(cell for name in names for cell in (f"{name} tok/s", "ratio")), "target", ""],
                      [speed_cells(row, results[row.name], names) for row in rows])
    section.add("Losses: the first one in fp32, and how far each side is from fp32, in its first loss or in how far the "
                f"losses fall, the larger share. 16-bit rows: {REFERENCE_STEPS} steps beside HF + PEFT in fp32. fp32 rows: "
                "all steps beside the other side.")
    section.add_table(["work", "loss in fp32", "neoloom off by", "HF + PEFT off by"],
                      [loss_cells(row, results[row.name]) for row in rows])
    kinds = {row.name: results[row.name]["kinds"] for row in rows if "kinds" in results[row.name]}
    if kinds:
        section.add("CPU milliseconds of a step by kind of work, of all threads together, by perf's samples.")
        groups = list(next(iter(kinds.values())))
        section.add_table(["kind of work", *kinds], [[group, *(f"{found[group]:.0f}" for found in kinds.values())]
                                                     for group in groups])
    section.add("Peak resident memory in GiB, and the private part of it: without the pages that are mapped from files "
                "at the end, which ranks of a node share.")
    section.add_table(["work", "neoloom", "HF + PEFT", "ratio", "target", "", "neoloom private", "HF + PEFT private",
                       "ratio", "target", ""], [memory_cells(row, results[row.name], names[0]) for row in rows])


def run(context):
    section = Section("Training steps")
    section.add(f"LoRA r=8 on q_proj and v_proj, {context.threads} threads, GPT-Neo 125M shape unless said, random weights. "
                f"Forward, backward, clipping, AdamW and, here, the exact sum, a line of metrics; {context.steps} steps "
                f"after {context.warmup}, the sides in turns from the same adapter, and they must learn alike. CPUs compute "
                f"float16 weights in fp32 here and in float16 on the other side. Tokens a second: median (quartiles). The "
                f"limit of a step is its GEMMs alone, each at the rate that it reaches on this machine in the same run. "
                f"A side that takes more than {STEP_SECONDS} s for a step is ended.")
    rows, results = [], section.data
    for row in context.chosen(ROWS):
        context.say(f"steps: {row.name}")
        try:
            results[row.name] = measure(context, row)
            rows.append(row)
        except SideFailed as failure:
            section.failed = True
            section.add(f"FAILED: {row.name}\n\n```\n{failure}\n```")
    if rows:
        add_tables(section, context, rows, results)
    return section
