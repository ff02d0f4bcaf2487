# SPDX-License-Identifier: Apache-2.0
"""Processes that take training steps in turns, so that other load on the machine meets all of them alike."""

import json
import os
import random
import select
import subprocess
import sys
import time
from pathlib import Path

from report import spread

HERE = Path(__file__).resolve().parent
LORA_RANK, LORA_ALPHA = 8, 16
LEARNING_RATE = 1e-3  # so large that the losses of a few steps show whether the sides learn alike
READY_SECONDS = 900  # to load a model
FIRST_STEP_SECONDS, STEP_SECONDS = 300, 120  # a side that takes longer is ended; torch.compile works in the first step
ROW_SECONDS = 600  # then no further steps of a row
FEWEST_STEPS = 3  # of these
SLOW_SECONDS, SLOW_TIMES = 20, 5  # a step that takes so long, and so many times the fastest side's, is not repeated


class SideFailed(Exception):
    """A measured process ended early."""


class SideSlow(SideFailed):
    """A measured process did not answer in time."""


def environment(threads, **variables):
    values = dict(os.environ | variables, OMP_NUM_THREADS=str(threads), HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
    if os.geteuid() == 0:
        for name in ("OMPI_ALLOW_RUN_AS_ROOT", "PRTE_ALLOW_RUN_AS_ROOT"):
            values |= {name: "1", name + "_CONFIRM": "1"}
    # Ranks share few cores and place themselves, so mpirun must not bind them.
    return values | {"OMPI_MCA_hwloc_base_binding_policy": "none", "OMPI_MCA_rmaps_base_oversubscribe": "1",
                     "PRTE_MCA_hwloc_default_binding_policy": "none",
                     "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe"}


def lora_config(head, rank=LORA_RANK):
    """Returns the fields of PEFT's LoraConfig."""
    return dict(task_type="CAUSAL_LM" if head == "causal_lm" else "SEQ_CLS", r=rank, lora_alpha=LORA_ALPHA,
                target_modules=["q_proj", "v_proj"])


def make_start(folder, model, head, rank):
    """Writes a PEFT folder that both sides start from: A (and the head of a classifier) random, B zero, as PEFT begins."""
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
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps(dict(peft_type="LORA", **lora_config(head, rank))))
    save_file(tensors, folder / "adapter_model.safetensors", {"format": "pt"})
    return str(folder)


def make_request(work, name, vocabulary=50257, lora_r=LORA_RANK, **fields):
    """Writes a file that step_bench and hf_steps.py read. `rows` x `length` random tokens, the same for equal sizes."""
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
        self._read(READY_SECONDS, "ready")

    def _read(self, seconds, expected=None):
        if not select.select([self.process.stdout], [], [], seconds)[0]:
            self.close()
            raise SideSlow(f"{self.process.args[0]} did not answer within {seconds} s")
        line = self.process.stdout.readline()
        if line and expected in (None, line.strip()):
            return line
        self.close()
        self.errors.seek(0)
        raise SideFailed(f"{self.process.args[0]} ended early:\n{line}{self.errors.read()[-2000:]}")

    def ask(self, word, seconds=None):
        """Raises SideSlow, and ends the process, if there is no answer within `seconds`."""
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()
        return json.loads(self._read(seconds))

    def close(self):
        """Ends the process if it is still there."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

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


def hf_side(request, python=sys.executable, **variables):
    """`python`: an interpreter that has torch, transformers and peft."""
    threads = json.loads(request.read_text())["threads"]
    return Side([str(python), str(HERE / "hf_steps.py"), str(request)], threads, request.parent / "hf-stderr.txt",
                **variables)


def take_turns(sides, steps, warmup):
    """Returns seconds of the measured steps of every side by name; an empty list for one that had to be ended."""
    times, active, begin = {name: [] for name in sides}, dict(sides), time.monotonic()
    for step in range(steps + warmup):
        if step >= warmup + FEWEST_STEPS and time.monotonic() - begin > ROW_SECONDS:
            break
        taken = {}
        for name, side in list(active.items()):
            try:
                taken[name] = side.ask("step 1", STEP_SECONDS if step > 0 else FIRST_STEP_SECONDS)["seconds"]
            except SideSlow:
                del active[name]
        for name, seconds in taken.items():
            slow = step > 0 and seconds > max(SLOW_SECONDS, SLOW_TIMES * min(taken.values()))
            if step >= warmup or slow:
                times[name].append(seconds)
            if slow:
                del active[name]
    return times


def in_turns(sides, steps, warmup):
    """Takes steps of every side in turns. Returns by name the spread of seconds and the memory in GiB; of a side that
    had to be ended, only what a step takes at least."""
    try:
        times, result = take_turns(sides, steps, warmup), {}
        for name, side in sides.items():
            if side.process.poll() is not None:
                result[name] = dict(at_least_seconds=STEP_SECONDS)
                continue
            memory = side.end()
            result[name] = dict(seconds=spread(times[name]), peak_gib=memory["peak_kib"] / 2**20,
                                private_gib=(memory["peak_kib"] - memory["mapped_kib"]) / 2**20,
                                limit=memory.get("limit"), extra=memory.get("extra"))
        return result
    finally:
        for side in sides.values():
            side.close()


def distance(losses, reference):
    """Returns how far losses are from those of the same steps of a side that started alike: the difference of the first
    ones, or of how far they fall, as a share of the reference's; the larger one. The first loss says little where weights
    are random. How far the following ones fall depends on all that forward and backward compute."""
    fall, expected = losses[0] - losses[-1], reference[0] - reference[-1]
    of_falls = abs(fall - expected) / abs(expected) if expected else float(fall != 0)
    return max(abs(losses[0] - reference[0]) / reference[0], of_falls)


def check_losses(name, ours, theirs, tolerance):
    """Compares losses of the same steps, or means of as many, of two sides that start alike."""
    if distance(ours, theirs) > tolerance:
        raise SideFailed(f"{name}: the sides learn differently: losses {ours} here, {theirs} there")


def logged_steps(request):
    """Returns the `train` events that step_bench's trainer wrote."""
    log = Path(json.loads(request.read_text())["output"]) / "metrics.jsonl"
    events = [json.loads(line) for line in log.read_text().splitlines()]
    return [event for event in events if event["event"] == "train"]
