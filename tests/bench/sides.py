# SPDX-License-Identifier: Apache-2.0
"""Processes that take training steps in turns, so that other load on the machine meets all of them alike."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

from report import spread

HERE = Path(__file__).resolve().parent
LORA_RANK, LORA_ALPHA = 8, 16
LEARNING_RATE = 1e-3  # losses of a few steps must show whether they learn alike


class SideFailed(Exception):
    """A measured process ended early."""


def environment(threads, **variables):
    values = dict(os.environ | variables, OMP_NUM_THREADS=str(threads), HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
    if os.geteuid() == 0:
        for name in ("OMPI_ALLOW_RUN_AS_ROOT", "PRTE_ALLOW_RUN_AS_ROOT"):
            values |= {name: "1", name + "_CONFIRM": "1"}
    # Ranks share few cores and place themselves.
    return values | {"OMPI_MCA_hwloc_base_binding_policy": "none", "OMPI_MCA_rmaps_base_oversubscribe": "1",
                     "PRTE_MCA_hwloc_default_binding_policy": "none",
                     "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe"}


def lora_config(head, rank=LORA_RANK):
    import peft

    return peft.LoraConfig(task_type="CAUSAL_LM" if head == "causal_lm" else "SEQ_CLS", r=rank, lora_alpha=LORA_ALPHA,
                           target_modules=["q_proj", "v_proj"])


def make_start(folder, model, head, rank):
    """A PEFT folder that both sides start from: A (and the head of a classifier) random, B zero, as PEFT begins."""
    import torch
    from safetensors.torch import save_file

    config = json.loads((Path(model) / "config.json").read_text())
    width, draw, tensors = config["hidden_size"], torch.Generator().manual_seed(1), {}
    for layer in range(config["num_layers"]):
        for matrix in ("q_proj", "v_proj"):
            name = f"base_model.model.transformer.h.{layer}.attn.attention.{matrix}.lora_"
            tensors[name + "A.weight"] = torch.randn(rank, width, generator=draw) * width**-0.5
            tensors[name + "B.weight"] = torch.zeros(width, rank)
    if head != "causal_lm":
        tensors["base_model.model.score.weight"] = torch.randn(2, width, generator=draw) * 0.02
    lora_config(head, rank).save_pretrained(folder)
    save_file(tensors, folder / "adapter_model.safetensors", {"format": "pt"})
    return str(folder)


def make_request(work, name, vocabulary=50257, lora_r=LORA_RANK, **fields):
    """A file that step_bench and hf_steps.py read. `rows` x `length` random tokens, the same for equal sizes."""
    folder = work / "requests" / name.replace(" ", "-").replace("/", "-")
    folder.mkdir(parents=True, exist_ok=True)
    draw = random.Random(1)
    rows, length = fields.pop("rows"), fields.pop("length")
    request = dict(cache=str(work / "cache"), output=str(folder / "run"), micro_batches=1, learning_rate=LEARNING_RATE,
                   start=make_start(folder / "start", fields["model"], fields["head"], lora_r),
                   ids=[[draw.randrange(vocabulary) for _ in range(length)] for _ in range(rows)]) | fields
    path = folder / "request.json"
    path.write_text(json.dumps(request))
    log = folder / "run" / "metrics.jsonl"
    log.unlink(missing_ok=True)
    return path


class Side:
    """One process that answers "step N" with the seconds of N steps together."""

    def __init__(self, command, threads, log, **variables):
        self.errors = open(log, "w+")
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors,
                                        text=True, bufsize=1, env=environment(threads, **variables))
        self._read("ready")

    def _read(self, expected=None):
        line = self.process.stdout.readline()
        if line and expected in (None, line.strip()):
            return line
        self.process.kill()
        self.process.wait()
        self.errors.seek(0)
        raise SideFailed(f"{self.process.args[0]} ended early:\n{line}{self.errors.read()[-2000:]}")

    def ask(self, word):
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()
        return json.loads(self._read())

    def end(self):
        answer = self.ask("end")
        self.process.stdin.close()
        self.process.wait()
        self.errors.close()
        return answer


def neoloom_side(build, request, ranks=1, **variables):
    threads = json.loads(request.read_text())["threads"]
    command = [str(build / "step_bench"), str(request)]
    if ranks > 1:
        command = ["mpirun", "-np", str(ranks), *command]
    return Side(command, threads, request.parent / "stderr.txt", **variables)


def hf_side(request, **variables):
    threads = json.loads(request.read_text())["threads"]
    return Side([sys.executable, str(HERE / "hf_steps.py"), str(request)], threads, request.parent / "hf-stderr.txt",
                **variables)


def in_turns(sides, steps, warmup):
    """Steps of every side by name, one after the other: (spread of seconds, memory in GiB)."""
    times = {name: [] for name in sides}
    for step in range(steps + warmup):
        for name, side in sides.items():
            seconds = side.ask("step 1")["seconds"]
            if step >= warmup:
                times[name].append(seconds)
    result = {}
    for name, side in sides.items():
        memory = side.end()
        result[name] = dict(seconds=spread(times[name]), peak_gib=memory["peak_kib"] / 2**20,
                            private_gib=(memory["peak_kib"] - memory["mapped_kib"]) / 2**20, extra=memory.get("extra"))
    return result


def check_losses(name, ours, theirs, tolerance):
    """Losses of the same steps, or means of as many, of two sides that start alike. A first loss says little where
    weights are random; what the following ones lose depends on all that forward and backward compute."""
    lost = [losses[0] - losses[-1] for losses in (ours, theirs)]
    if abs(lost[0] - lost[1]) > tolerance * abs(lost[1]) or abs(ours[0] - theirs[0]) > tolerance * theirs[0]:
        raise SideFailed(f"{name}: the sides learn differently: losses {ours} here, {theirs} there")


def logged_steps(request):
    """The `train` events that step_bench's trainer wrote."""
    log = Path(json.loads(request.read_text())["output"]) / "metrics.jsonl"
    events = [json.loads(line) for line in log.read_text().splitlines()]
    return [event for event in events if event["event"] == "train"]
