# SPDX-License-Identifier: Apache-2.0
"""Measures one epoch on real text with its real lengths, beside HF Trainer with its usual and with its best settings.

Both sides start from the same adapter and see the same rows in batches of the same size. HF Trainer pads each batch to its
longest row; neoloom packs rows, with or without grouping by length, so a token that counts costs the same in any batch.
"""

import runs
from context import NotMeasured
from report import Section, target_cells
from sides import SideFailed

# Both fp32, HF's defaults (dynamic padding); both with weights in bf16, and HF's best flag.
MODES = {"fp32, defaults": dict(bf16=False, group_by_length=False), "bf16, group_by_length": dict(bf16=True, group_by_length=True)}
TARGETS = {"fp32, defaults": 2.5, "bf16, group_by_length": 2.0}
EQUAL_ACCURACY = 0.05  # seed noise of a few hundred rows
EQUAL_LOSS = 1e-3  # relative, of fp32: both sides take the same rows in the same order


def rows_of(mode, results):
    theirs = results["HF Trainer"]
    rows = []
    for who, result in results.items():
        ratio = theirs["loop_seconds"] / result["loop_seconds"]
        compared = [f"{ratio:.2f}", *target_cells(ratio, TARGETS[mode])] if who != "HF Trainer" else ["", "", ""]
        rows.append([mode, who, f"{result['loop_seconds']:.1f}", *compared, f"{result['process_seconds']:.1f}",
                     f"{theirs['process_seconds'] / result['process_seconds']:.2f}",
                     f"{result['tokens'] / result['loop_seconds']:.0f}",
                     f"{100 * (1 - result['tokens'] / result['positions']):.0f} %", f"{result['eval_accuracy']:.4f}",
                     f"{result['eval_loss']:.4f}"])
    return rows


def check(section, name, mode, results):
    """Checks that both sides have taken the same rows, and learned alike."""
    tokens = {who: result["tokens"] for who, result in results.items()}
    if len(set(tokens.values())) > 1:
        raise SideFailed(f"{name}, {mode}: the numbers of tokens differ: {tokens}")
    accuracies = [result["eval_accuracy"] for result in results.values()]
    if max(accuracies) - min(accuracies) > EQUAL_ACCURACY:
        section.add(f"{name}, {mode}: the accuracies differ by more than {EQUAL_ACCURACY}.")
    losses = [result["eval_loss"] for result in results.values()]
    if not MODES[mode]["bf16"] and max(losses) - min(losses) > EQUAL_LOSS * min(losses):
        raise SideFailed(f"{name}, {mode}: the losses differ: {losses}")


def measure(context, task, mode, settings):
    ranks = {f"neoloom, {count} rank{'s' * (count > 1)} x {max(1, context.threads // count)} threads": count
             for count in (1, 2)}
    results = {}
    context.say(f"epoch: {task.name}, {mode}, HF Trainer")
    results["HF Trainer"] = runs.hf(context, task, mode[:4], **settings)
    for who, count in ranks.items():
        context.say(f"epoch: {task.name}, {mode}, {who}")
        results[who] = runs.neoloom(context, task, mode[:4], ranks=count, **settings)
    return results


def run(context):
    section = Section("One epoch on real text")
    unknown = sorted(set(context.sets) - set(runs.SETS))
    if unknown:
        raise NotMeasured(f"not measured: no data set {', '.join(unknown)}; there are {', '.join(runs.SETS)}")
    section.add(f"GPT-Neo 125M shape with random weights, LoRA r=8 on q_proj and v_proj, batches of {runs.BATCH}, learning "
                f"rate {runs.LEARNING_RATE}, {context.threads} threads, the same adapter to start from. Seconds of the "
                f"training loop and of the whole process (weights and tokens of neoloom cached).")
    for name in context.sets:
        task = runs.make_task(context, name, context.limit)
        for settings in MODES.values():
            runs.neoloom(context, task, "warm", bf16=settings["bf16"], max_steps=1)  # fills the caches
        rows = []
        for mode, settings in MODES.items():
            results = section.data[f"{name}, {mode}"] = measure(context, task, mode, settings)
            rows += rows_of(mode, results)
            check(section, name, mode, results)
        section.add(f"**{name}**: {task.counts[0]} rows, judged by {task.counts[1]} others, {len(task.labels)} labels.")
        section.add_table(["settings", "program", "loop s", "HF over it", "target", "", "process s", "HF over it",
                           "tokens/s", "padding", "accuracy", "loss"], rows)
    return section
