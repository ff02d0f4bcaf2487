# SPDX-License-Identifier: Apache-2.0
"""Whole runs on labelled text: `neoloom train`, and HF Trainer doing the same; data sets; what both need to start."""

import csv
import json
import os
import random
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from report import ROOT
from sides import HERE, SideFailed, environment

LEARNING_RATE, BATCH = 1e-3, 8


def read_spam(folder):
    lines = (folder / "sms.tsv").read_text(encoding="utf-8").splitlines()
    return [(text, label) for label, text in (line.split("\t", 1) for line in lines)]


def read_banking77(folder):
    with open(folder / "train.csv", encoding="utf-8", newline="") as file:
        return [(row["text"], row["category"]) for row in csv.DictReader(file)]


def read_ag_news(folder):
    with open(folder / "test.csv", encoding="utf-8", newline="") as file:
        return [(f"{title} {description}", label) for label, title, description in csv.reader(file)]


SETS = {"spam": ("sms_spam", read_spam), "banking77": ("banking77", read_banking77), "ag_news": ("ag_news", read_ag_news)}


@dataclass
class Task:
    """Holds a data set cut into rows to train on and rows to evaluate, with a model and an adapter to start from."""

    name: str
    folder: Path
    labels: list
    tokenizer: Path
    model: Path
    start: Path
    counts: tuple  # rows of training, of validation

    def path(self, part):
        return self.folder / f"{part}.jsonl"


def make_task(context, name, limit):
    """Makes a task of `limit` training rows (0: all) and a third as many to evaluate, in the same order each time."""
    subfolder, read = SETS[name]
    rows = read(context.given("classification", subfolder))
    random.Random(1).shuffle(rows)
    held_out = min(limit // 3 if limit else len(rows), len(rows) // 6)
    parts = {"validation": rows[:held_out], "train": rows[held_out : held_out + limit if limit else None]}
    folder = context.work / "sets" / f"{name}-{limit}"
    folder.mkdir(parents=True, exist_ok=True)
    for part, chosen in parts.items():
        lines = [json.dumps(dict(text=text, label=label), ensure_ascii=False) + "\n" for text, label in chosen]
        (folder / f"{part}.jsonl").write_text("".join(lines), encoding="utf-8")
    labels = sorted({label for _, label in rows})
    model, start = context.model("125M", "float32"), folder / "start"
    if not (start / "adapter_config.json").exists():
        run([sys.executable, HERE / "hf_epoch.py", "--start", model, start, str(len(labels))], context.threads)
    return Task(name, folder, labels, context.given("tokenizer", "gpt2-hf"), model, start,
                (len(parts["train"]), len(parts["validation"])))


def run(command, threads, **variables):
    """Runs a process that must succeed. Returns its standard output and error, and the moment it began."""
    begin = time.monotonic()
    done = subprocess.run(list(map(str, command)), env=environment(threads) | variables, capture_output=True, text=True)
    if done.returncode != 0:
        raise SideFailed(f"{' '.join(map(str, command))} ended with {done.returncode}:\n{done.stdout[-500:]}{done.stderr[-2000:]}")
    return done.stdout, done.stderr, begin


def hf(context, task, name, bf16=False, group_by_length=False, max_steps=-1):
    request = task.folder / f"hf-{name}.json"
    request.write_text(json.dumps(dict(
        model=str(task.model), start=str(task.start), tokenizer=str(task.tokenizer), labels=task.labels,
        train=str(task.path("train")), validation=str(task.path("validation")), output=str(task.folder / f"hf-{name}"),
        batch=BATCH, learning_rate=LEARNING_RATE, bf16=bf16, group_by_length=group_by_length, max_steps=max_steps,
        threads=context.threads, evaluate=max_steps < 0)))
    out, _, begin = run([sys.executable, HERE / "hf_epoch.py", request], context.threads)
    result = json.loads(out.splitlines()[-1])
    return result | dict(process_seconds=result["done"] - begin, start_seconds=result["first_step"] - begin)


def neoloom(context, task, name, ranks=1, bf16=False, group_by_length=False, max_steps=-1):
    """Trains with `context.threads` threads, divided among the ranks. The batch of a step does not depend on the ranks."""
    folder = task.folder / f"neoloom-{name}-{os.getpid()}-{time.monotonic_ns()}"
    threads = max(1, context.threads // ranks)
    config = folder.with_suffix(".json")
    config.write_text(json.dumps({
        "model_config": {"pretrained_model_name": str(task.model), "frozen_dtype": "bfloat16" if bf16 else "float32"},
        "peft_config": {"task_type": "SEQ_CLS", "r": 8, "lora_alpha": 16, "target_modules": ["q_proj", "v_proj"],
                        "init_from": str(task.start)},
        "tokenizer_config": {"pretrained_tokenizer_name": str(task.tokenizer)},
        "trainer_config": {"num_train_epochs": 1, "max_steps": max_steps, "learning_rate": LEARNING_RATE,
                           "per_device_train_batch_size": BATCH // ranks, "output_dir": str(folder),
                           "train_sampling_strategy": "group_by_length" if group_by_length else "random"},
        "data": {"train": str(task.path("train")), "text_column": "text", "label_column": "label",
                 "label_names": task.labels},
        "runtime": {"threads_per_rank": threads, "cache_dir": str(context.work / "cache"), "device": "cpu"},
        "logging": {"progress": "plain", "level": "debug"}}))  # it says when the first step begins
    program = [context.build / "neoloom", "train", "--config", config]
    launcher = [ROOT / "cluster/local/mpirun.sh", "-np", str(ranks)] if ranks > 1 else []
    out, errors, begin = run([*launcher, *program], threads)
    process_seconds = time.monotonic() - begin
    events = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    tokens = sum(event["tokens"] for event in events if event["event"] == "train")
    started = re.search(r"the first step begins ([\d.]+) s", out + errors)
    # Rows are packed before the model sees them: it computes no padding.
    result = dict(loop_seconds=events[-1]["train_runtime"], process_seconds=process_seconds, tokens=tokens,
                  positions=tokens,
                  start_seconds=float(started.group(1)))
    if max_steps < 0:
        out, _, _ = run([context.build / "neoloom", "evaluate", "--run", folder, "--data", task.path("validation")],
                        context.threads)
        result |= {key: json.loads(out)[key] for key in ("eval_loss", "eval_accuracy")}
    return result
