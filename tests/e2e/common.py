# SPDX-License-Identifier: Apache-2.0
"""Starts the built program on tiny models and reads what a run leaves behind."""

import hashlib
import json
import os
import signal
import subprocess
import time
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import h5py
import tiny_model

SOURCE = Path(os.environ.get("NEOLOOM_SOURCE_DIR", Path(__file__).resolve().parents[2]))
BUILD = Path(os.environ.get("NEOLOOM_BUILD_DIR", SOURCE / "build"))
NEOLOOM = BUILD / "neoloom"
MPIRUN = SOURCE / "cluster/local/mpirun.sh"
HAS_GPU = any(Path(node).exists() for node in ("/dev/nvidiactl", "/dev/nvidia0"))
STOPPED = 75  # exit code: stopped on request, resume me
STATE = ("params", "exp_avg", "exp_avg_sq")
CLOCK_KEYS = ("eval_runtime", "eval_samples_per_second")


@dataclass
class Ended:
    code: int
    out: str
    err: str

    def expect(self, code):
        assert self.code == code, f"exit code {self.code}, expected {code}\n{self.out}\n{self.err}"
        return self


def environment(**extra):
    # Only tests of the hub use a network, which is loopback.
    return {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", **{name: str(value) for name, value in extra.items()}}


def command(ranks, *arguments, exported=None):
    """Returns a command line; `ranks` 0: without mpirun. `exported` reaches the ranks only, e.g. a library to preload."""
    program = [str(NEOLOOM), *map(str, arguments)]
    if ranks == 0:
        return program
    export = [word for name, value in (exported or {}).items() for word in ("-x", f"{name}={value}")]
    return [str(MPIRUN), "-np", str(ranks), *export, *program]


def neoloom(ranks, *arguments, exported=None, timeout=120, **variables):
    done = subprocess.run(
        command(ranks, *arguments, exported=exported),
        env=environment(**variables),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    return Ended(done.returncode, done.stdout, done.stderr)


def merged(base, changes):
    result = deepcopy(base)
    for group, values in changes.items():
        result[group] = {**result.get(group, {}), **values}
    return result


class Run:
    """One output folder and the configuration that is trained into it."""

    def __init__(self, folder, config, **changes):
        self.folder = Path(folder)
        changes = merged(changes, {"trainer_config": {"output_dir": str(self.folder)}})
        self.config = merged(config, changes)
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        self.config_file = self.folder.parent / f"{self.folder.name}.json"
        self.config_file.write_text(json.dumps(self.config))

    def train(self, ranks, *arguments, **keywords):
        return neoloom(ranks, "train", "--config", self.config_file, *arguments, **keywords)

    def start(self, ranks, **variables):
        return subprocess.Popen(
            command(ranks, "train", "--config", self.config_file),
            env=environment(**variables),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def checkpoints(self):
        return sorted((self.folder / "checkpoints").glob("step-*.h5"))

    def events(self, *kinds):
        """Returns metrics.jsonl as a reader sees it: a resume drops the `train` and `eval` lines beyond its step."""
        kept, started = [], False
        for line in (self.folder / "metrics.jsonl").read_text().splitlines():
            event = json.loads(line)
            if event["event"] == "run_start":
                started = True
            elif event["event"] == "resume" or (started and event["event"] in ("train", "eval")):
                first = event["step"] if event["event"] == "resume" else 0
                kept = [e for e in kept if e["event"] not in ("train", "eval") or e["step"] <= first]
                started = False
            kept.append(event)
        return [event for event in kept if not kinds or event["event"] in kinds]

    def losses(self):
        return [tuple(e[key] for key in ("step", "epoch", "loss", "grad_norm", "learning_rate"))
                for e in self.events("train")]

    def evaluations(self):
        return [{key: value for key, value in e.items() if key not in ("time", *CLOCK_KEYS)} for e in self.events("eval")]

    def state(self):
        """Returns the SHA-256 of each part of the newest checkpoint that decides how training goes on."""
        with h5py.File(self.checkpoints()[-1]) as file:
            stored = [name for name in (*STATE, "initial_params") if name in file]
            digests = {name: hashlib.sha256(file[name][:].tobytes()).hexdigest() for name in stored}
            digests["step"] = int(file.attrs["step"])
            digests["loss_scale"] = float(file.attrs["loss_scale"])
            digests["skipped_steps"] = int(file.attrs["skipped_steps"])
            digests["history"] = file["history"].asstr()[0]
        adapter = (self.folder / "adapter/adapter_model.safetensors").read_bytes()
        digests["adapter"] = hashlib.sha256(adapter).hexdigest()
        return digests


def make_config(kind, data, cache, dtype="float32"):
    """Returns the configuration that these tests repeat: 53 rows in micro-batches of 2, 12 rows a step, 3 epochs of 5 steps."""
    classifies = kind == "classification"
    config = {
        "model_config": {"pretrained_model_name": str(data / "base"), "frozen_dtype": dtype},
        "peft_config": {
            "peft_type": "LORA",
            "task_type": "SEQ_CLS" if classifies else "CAUSAL_LM",
            "r": 4,
            "lora_alpha": 8,
            "lora_dropout": 0.1,
            "target_modules": ["q_proj", "v_proj", "c_fc", "c_proj"],
        },
        "tokenizer_config": {"max_length": 48},
        "trainer_config": {
            "per_device_train_batch_size": 2,
            "per_device_eval_batch_size": 4,
            "num_train_epochs": 3,
            "learning_rate": 1e-2,
            "weight_decay": 0.1,
            "warmup_steps": 2,
            "train_sampling_strategy": "group_by_length",
            "logging_steps": 1,
            "eval_strategy": "steps",
            "eval_steps": 4,
            "save_steps": 2,
        },
        "data": {
            "train": str(data / "train.jsonl"),
            "validation": str(data / "validation.jsonl"),
            "text_column": "text",
        },
        "runtime": {
            "device": "cpu",
            "threads_per_rank": 1,
            "global_batch_size": 12,
            "state_check_steps": 1,
            "cache_dir": str(cache),
        },
    }
    if classifies:
        config["model_config"]["problem_type"] = "single_label_classification"
        config["data"]["label_column"] = "label"
    return config


ROWS = 53
TOTAL_STEPS = 15
LABELS = ("ham", "spam", "other")


def make_data(folder):
    """Makes a base model with its tokenizer, 53 rows to train on and 21 to evaluate."""
    tiny_model.make_model_folder(folder / "base", hidden_size=32, num_layers=2, std=0.1)
    tiny_model.write_classification_jsonl(folder / "train.jsonl", ROWS, LABELS, seed=1)
    tiny_model.write_classification_jsonl(folder / "validation.jsonl", 21, LABELS, seed=2)
    return folder


def read_trace(prefix, ranks):
    """Returns for each rank [(step, [sample ids])] in the order of computation."""
    trace = []
    for rank in range(ranks):
        lines = Path(f"{prefix}.{rank}").read_text().splitlines()
        numbers = [[int(word) for word in line.split()] for line in lines]
        trace.append([(words[0], words[1:]) for words in numbers])
    return trace


def wait_until(condition, process, seconds=60):
    """Waits for the condition. Returns False when the process ended before it came true."""
    deadline = time.monotonic() + seconds
    while not condition():
        if process.poll() is not None:
            return condition()
        assert time.monotonic() < deadline, "nothing happened for too long"
        time.sleep(0.01)
    return True


def children(pid):
    path = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(word) for word in path.read_text().split()] if path.exists() else []


def mpirun_of(wrapper_pid):
    """Returns the mpirun that the wrapper script started; Open MPI 5 calls it prterun."""
    for child in children(wrapper_pid):
        program = Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")[0]
        if Path(program.decode()).name in ("mpirun", "prterun"):
            return child
    raise AssertionError("the wrapper runs no mpirun")


def end(process):
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=30)
