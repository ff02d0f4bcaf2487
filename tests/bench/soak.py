# SPDX-License-Identifier: Apache-2.0
"""Shows whether memory grows: trains a tiny model for many steps and reads the private memory of its process meanwhile.

    build/neoloom must be built;  PREFIX/bin/python3 tests/bench/soak.py --steps 10000

Prints a table over the run and ends with 1 when the private memory of its last tenth is more than --tolerance MB above
that of its fifth one. Before that, kernels are compiled for each number of rows as it first occurs, and the heap finds
its size. No test runs it: it takes minutes.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/support"))
import tiny_model  # noqa: E402

ROWS = 2000
WARMUP_SHARE = 0.02


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--task", choices=("SEQ_CLS", "CAUSAL_LM"), default="SEQ_CLS")
    parser.add_argument("--program", type=Path, default=ROOT / "build/neoloom")
    parser.add_argument("--tolerance", type=float, default=2.0, help="MB of growth that pass (default 2)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="further settings of the run")
    return parser.parse_args()


def write_run(folder, arguments):
    """Writes a run with everything that a long run does: rows of many lengths, evaluations and checkpoints in between."""
    tiny_model.make_model_folder(folder / "base", hidden_size=32, num_layers=2, std=0.1)
    for name, rows, seed in (("train", ROWS, 1), ("validation", 50, 2)):
        tiny_model.write_classification_jsonl(folder / f"{name}.jsonl", rows, seed=seed)
    config = {
        "model_config": {"pretrained_model_name": str(folder / "base")},
        "peft_config": {"task_type": arguments.task, "r": 4, "lora_dropout": 0.1, "target_modules": ["q_proj", "v_proj"]},
        "tokenizer_config": {"max_length": 64},
        "trainer_config": {
            "output_dir": str(folder / "run"), "max_steps": arguments.steps, "per_device_train_batch_size": 4,
            "logging_steps": 10, "eval_strategy": "steps", "eval_steps": max(1, arguments.steps // 20),
            "save_steps": max(1, arguments.steps // 20),
        },
        "data": {"train": str(folder / "train.jsonl"), "validation": str(folder / "validation.jsonl")},
        "runtime": {"device": "cpu", "threads_per_rank": 1, "cache_dir": str(folder / "cache")},
        "logging": {"progress": "off"},
    }
    if arguments.task == "SEQ_CLS":
        config["data"]["label_column"] = "label"
    path = folder / "run.json"
    path.write_text(json.dumps(config))
    return path


def private_mb(pid):
    """Returns the MB of the process without pages that it shares or maps from files; None when it is gone."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return None
    kib = [int(line.split()[1]) for line in lines if line.startswith("Private_Dirty:")]
    return sum(kib) * 1024 / 1e6 if kib else None


def steps_done(log):
    """Returns the last step in metrics.jsonl."""
    if not log.exists():
        return 0
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 20_000))
        lines = file.read().decode(errors="ignore").splitlines()
    for line in reversed(lines):
        if line.startswith('{"event":"train"') and line.endswith("}"):
            return json.loads(line)["step"]
    return 0


def watch(process, log):
    """Returns [(step, private MB)], sampled until the process ends."""
    samples = []
    while process.poll() is None:
        step, used = steps_done(log), private_mb(process.pid)
        if step and used:
            samples.append((step, used))
        time.sleep(0.1)
    return samples


def summary(samples, steps):
    """Returns the medians of the tenths of the run, the first without its warm-up."""
    tenths = []
    for tenth in range(10):
        begin = max(tenth / 10, WARMUP_SHARE) * steps
        inside = [used for step, used in samples if begin < step <= (tenth + 1) / 10 * steps]
        if inside:
            tenths.append(((tenth + 1) * steps // 10, statistics.median(inside), max(inside)))
    return tenths


def main():
    arguments = parse()
    with tempfile.TemporaryDirectory(prefix="neoloom-soak-") as temporary:
        folder = Path(temporary)
        command = [arguments.program, "train", "--config", write_run(folder, arguments)]
        for setting in arguments.set:
            command += ["--set", setting]
        errors = (folder / "stderr").open("w+")
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors)
        samples = watch(process, folder / "run/metrics.jsonl")
        if process.returncode != 0:
            errors.seek(0)
            sys.exit(f"the run ended with {process.returncode}:\n{errors.read()}")
    tenths = summary(samples, arguments.steps)
    if len(tenths) < 4:
        sys.exit(f"only {len(samples)} readings: take more steps")
    print("| up to step | private MB, median | most |\n| --- | --- | --- |")
    for step, median, most in tenths:
        print(f"| {step} | {median:.2f} | {most:.2f} |")
    growth = tenths[-1][1] - tenths[len(tenths) // 2 - 1][1]
    print(f"\ngrowth of the second half: {growth:+.2f} MB ({len(samples)} readings)")
    sys.exit(growth > arguments.tolerance)


if __name__ == "__main__":
    main()
