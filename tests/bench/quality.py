# SPDX-License-Identifier: Apache-2.0
"""Trains on four real sets with the configurations in configs/, beside HF Trainer with the same keys, and compares what they
learn. Both sides start from the same small GPT-Neo, which neoloom pretrains here, and from the same adapter, and see the same
rows in the same order."""

import csv
import json
import random
import statistics
import sys
import time
from dataclasses import dataclass

import runs
import yaml
from report import ROOT, Section
from sides import HERE

SEEDS = (42, 43, 44)
PRETRAINING = {"model_config.hidden_size": 256, "model_config.num_layers": 4, "model_config.num_heads": 4,
               "model_config.max_position_embeddings": 256, "tokenizer_config.max_length": 256, "trainer_config.seed": 1,
               "trainer_config.gradient_accumulation_steps": 2}
CORPUS = ("wikitext-2/test.txt", "wikitext-2/valid.txt", "tinyshakespeare.txt", "the-verdict.txt")


@dataclass(frozen=True)
class RealSet:
    name: str
    config: str      # in configs/
    source: tuple    # below --data; one file is cut into two parts, two are training and validation
    metric: str      # what evaluate calls it
    better: int      # 1: larger is better, -1: smaller


SETS = (
    RealSet("SMS spam", "sms_spam.yaml", ("classification/sms_spam/sms.tsv",), "eval_macro_f1", 1),
    RealSet("Banking77", "banking77.yaml", ("classification/banking77/train.csv", "classification/banking77/test.csv"),
            "eval_accuracy", 1),
    RealSet("AG News", "ag_news.yaml", ("classification/ag_news/test.csv",), "eval_accuracy", 1),
    RealSet("instructions", "instructions.yaml", ("instruction/rasbt/instruction-data.json",), "eval_loss", -1),
)


def cut(path, folder):
    """Cuts a file into training rows and every sixth row at random, in the format of the file. A row is a line, or an element
    of a JSON array."""
    text = path.read_text(encoding="utf-8")
    rows = json.loads(text) if path.suffix == ".json" else text.splitlines(keepends=True)
    random.Random(1).shuffle(rows)
    held_out = len(rows) // 6
    parts = {"validation": rows[:held_out], "train": rows[held_out:]}
    for name, chosen in parts.items():
        content = json.dumps(chosen, ensure_ascii=False) if path.suffix == ".json" else "".join(chosen)
        (folder / f"{name}{path.suffix}").write_text(content, encoding="utf-8")
    return {name: folder / f"{name}{path.suffix}" for name in parts}


def parts_of(context, real):
    paths = [context.given(*source.split("/")) for source in real.source]
    if len(paths) == 2:
        return dict(zip(("train", "validation"), paths, strict=True))
    folder = context.work / "sets" / real.config.removesuffix(".yaml")
    folder.mkdir(parents=True, exist_ok=True)
    return cut(paths[0], folder)


def labels_of(config, path):
    """Returns the sorted labels of a CSV or TSV file; of another set, none."""
    data = config["data"]
    if "label_column" not in data:
        return []
    header = data.get("header", True)
    quoting = csv.QUOTE_MINIMAL if data.get("quoting", True) else csv.QUOTE_NONE
    with open(path, encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file, delimiter="\t" if path.suffix == ".tsv" else ",", quoting=quoting))
    column = rows[0].index(data["label_column"]) if header else int(data["label_column"])
    return sorted({row[column] for row in rows[header:]})


def words(values):
    return [word for key, value in values.items() for word in ("--set", f"{key}={json.dumps(value)}")]


def pretrain(context):
    """Returns the folder of the small GPT-Neo, and what neoloom's log says of its training."""
    folder = context.work / "pretrained"
    if not (folder / "model").exists():
        corpus = [str(context.given("text", *name.split("/"))) for name in CORPUS]
        context.say("quality: pretraining")
        values = PRETRAINING | {
            "tokenizer_config.pretrained_tokenizer_name": str(context.given("tokenizer", "gpt2-hf")), "data.train": corpus,
            "data.validation": [], "data.validation_split": 0.02, "trainer_config.output_dir": str(folder),
            "runtime.device": "cpu", "runtime.threads_per_rank": context.threads}
        runs.run([context.build / "neoloom", "train", "--config", ROOT / "configs/gpt_neo_small_pretrain.yaml",
                  *words(values)], context.threads)
    events = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    last = {event["event"]: event for event in events}
    return folder / "model", (f"{last['run_start']['trainable_parameters']:,} parameters, {last['run_end']['step']} steps, "
                              f"{last['run_end']['train_runtime'] / 60:.0f} minutes, held-out perplexity "
                              f"{last['eval']['eval_perplexity']:.0f}")


def train_and_evaluate(context, real, request, folder):
    """neoloom with this configuration. Returns its metric and the seconds of its loop."""
    values = {"model_config.pretrained_model_name": request["model"], "model_config.frozen_dtype": "float32",
              "tokenizer_config.pretrained_tokenizer_name": request["tokenizer"], "peft_config.init_from": request["start"],
              "trainer_config.seed": request["seed"], "trainer_config.output_dir": str(folder),
              "trainer_config.eval_strategy": "no", "data.train": request["train"], "data.validation": request["validation"],
              "data.validation_split": 0, "runtime.device": "cpu", "runtime.threads_per_rank": context.threads,
              "runtime.cache_dir": str(context.work / "cache")}
    if request["labels"]:
        values["data.label_names"] = request["labels"]
    runs.run([context.build / "neoloom", "train", "--config", ROOT / "configs" / real.config, *words(values)], context.threads)
    out, _, _ = runs.run([context.build / "neoloom", "evaluate", "--run", folder], context.threads)
    events = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return dict(metric=json.loads(out)[real.metric], seconds=events[-1]["train_runtime"])


def measure(context, real, model):
    parts = parts_of(context, real)
    config = yaml.safe_load((ROOT / "configs" / real.config).read_text())
    labels = labels_of(config, parts["train"])
    result = {"HF Trainer": [], "neoloom": []}
    for seed in SEEDS:
        context.say(f"quality: {real.name}, seed {seed}")
        folder = context.work / "quality" / f"{real.config.removesuffix('.yaml')}-{seed}-{time.monotonic_ns()}"
        folder.mkdir(parents=True)
        request = dict(config=config, model=str(model), tokenizer=str(context.given("tokenizer", "gpt2-hf")), labels=labels,
                       start=str(folder / "start"), seed=seed, threads=context.threads, metric=real.metric,
                       output=str(folder / "hf"), **{name: str(path) for name, path in parts.items()})
        (folder / "request.json").write_text(json.dumps(request))
        out, _, _ = runs.run([sys.executable, HERE / "hf_quality.py", folder / "request.json"], context.threads)
        result["HF Trainer"].append(json.loads(out.splitlines()[-1]))
        result["neoloom"].append(train_and_evaluate(context, real, request, folder / "run"))
    return result


def row_of(real, result):
    """A row of the report, and whether neoloom is worse by more than the noise: the larger standard deviation of a side."""
    values = {side: [entry["metric"] for entry in entries] for side, entries in result.items()}
    means = {side: statistics.mean(found) for side, found in values.items()}
    noise = max(statistics.stdev(found) for found in values.values())
    gain = real.better * (means["neoloom"] - means["HF Trainer"])
    seconds = {side: statistics.median(entry["seconds"] for entry in entries) for side, entries in result.items()}
    cells = [real.name, f"`configs/{real.config}`", real.metric]
    cells += [" ".join(f"{value:.4f}" for value in values[side]) for side in ("HF Trainer", "neoloom")]
    cells += [f"{means['neoloom'] - means['HF Trainer']:+.4f}", f"{noise:.4f}", "yes" if gain >= -noise else "NO",
              f"{seconds['HF Trainer'] / seconds['neoloom']:.1f}"]
    return cells, gain < -noise


def run(context):
    section = Section("What four real sets teach")
    model, pretraining = pretrain(context)
    section.add(f"Base: a GPT-Neo of 4 layers, width 256, GPT-2's vocabulary, pretrained by `configs/gpt_neo_small_pretrain.yaml` "
                f"with {' '.join(f'{key}={value}' for key, value in PRETRAINING.items())} on {', '.join(CORPUS)}: {pretraining}.")
    section.add(f"Each set is trained with its configuration in fp32 by HF Trainer + PEFT and by neoloom, from the same adapters, "
                f"with seeds {', '.join(map(str, SEEDS))}. One file alone is cut: every sixth row, at random, is held out.")
    rows = []
    for real in SETS:
        if context.only and not any(part in real.name for part in context.only):
            continue
        result = section.data[real.name] = measure(context, real, model)
        cells, worse = row_of(real, result)
        section.failed |= worse
        rows.append(cells)
    section.add_table(["set", "configuration", "metric", "HF Trainer, by seed", "neoloom, by seed", "difference of means",
                       "noise (s.d.)", "within it, or better", "HF's seconds over neoloom's"], rows)
    return section
