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
LORA_RANK = 8


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


def make_request(work, name, vocabulary=50257, **fields):
    """A file that step_bench and hf_steps.py read. `rows` x `length` random tokens, the same for equal sizes."""
    folder = work / "requests" / name.replace(" ", "-").replace("/", "-")
    folder.mkdir(parents=True, exist_ok=True)
    draw = random.Random(1)
    rows, length = fields.pop("rows"), fields.pop("length")
    request = dict(cache=str(work / "cache"), output=str(folder / "run"), micro_batches=1, lora_r=LORA_RANK,
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


def logged_steps(request):
    """The `train` events that step_bench's trainer wrote."""
    log = Path(json.loads(request.read_text())["output"]) / "metrics.jsonl"
    events = [json.loads(line) for line in log.read_text().splitlines()]
    return [event for event in events if event["event"] == "train"]
