# SPDX-License-Identifier: Apache-2.0
"""What the comparisons with transformers and peft, and the tests of bad input, share beyond common.py."""

import json
import os
from pathlib import Path

import common
import numpy as np
import pytest
import torch
from common import Run, merged
from safetensors.numpy import load_file

QUICK = {
    "trainer_config": {"save_strategy": "no", "logging_steps": 1},
    "runtime": {"device": "cpu", "threads_per_rank": 1},
    "logging": {"progress": "plain"},
}


def train(folder, cache, config, code=0, ranks=0, **variables):
    """Trains into folder/run with these environment variables and expects this exit code. Returns the run and how the
    command ended."""
    run = Run(folder / "run", merged(QUICK, config), runtime={**config.get("runtime", {}), **QUICK["runtime"],
                                                              "cache_dir": str(cache)})
    return run, run.train(ranks, **variables).expect(code)


def command(cache, *arguments, code=0, ranks=0):
    """Runs a command that takes a trained model, in fp32 on one thread. Returns its standard output."""
    settings = ["runtime.device=cpu", "runtime.threads_per_rank=1", f"runtime.cache_dir={cache}",
                "model_config.frozen_dtype=float32"]
    sets = [word for setting in settings for word in ("--set", setting)]
    return common.neoloom(ranks, *arguments, *sets).expect(code).out


def assert_one_message(ended, *fragments):
    """Checks for one error of the whole job that holds all of these words. Notes and mpirun's own remarks do not count."""
    lines = [line for line in ended.err.splitlines() if line.startswith("neoloom: ")]
    assert len(lines) == 1, ended.err
    assert lines[0].startswith("neoloom: error: ")
    message = ended.err[ended.err.index(lines[0]) :]
    for fragment in fragments:
        assert str(fragment) in message, f"{fragment!r} is not in:\n{message}"
    assert "terminate called" not in ended.err


def adapter(folder):
    """Returns the tensors of an adapter folder by name."""
    return load_file(folder / "adapter_model.safetensors")


def assert_equal(found, expected):
    """Checks for the same tensors, to the bit."""
    assert found.keys() == expected.keys()
    for name in expected:
        assert np.array_equal(found[name], expected[name]), name


def assert_same_end(run, expected):
    """Checks that two runs ended in the same state, by the same losses and evaluations, to the bit."""
    assert run.state() == expected.state()
    assert run.losses() == expected.losses()
    assert run.evaluations() == expected.evaluations()


def losses(run):
    return [event["loss"] for event in run.events("train")]


def json_lines(text):
    return [json.loads(line) for line in text.splitlines()]


def write_jsonl(path, rows):
    Path(path).write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return Path(path)


def shared_data(*parts):
    """Returns a path in the folder of shared test data. Skips the test where there is none."""
    root = Path(os.environ.get("NEOLOOM_SHARED", common.SOURCE.parent / "shared"))
    path = root.joinpath("data", *parts)
    if not path.exists():
        pytest.skip(f"no shared test data with {'/'.join(parts)} (NEOLOOM_SHARED names the folder)")
    return path


def padded(rows, pad_id):
    """Returns rows of ids as transformers takes them: padded on the right to the longest."""
    longest = max(map(len, rows))
    ids = torch.full((len(rows), longest), pad_id)
    mask = torch.zeros_like(ids)
    for row, values in enumerate(rows):
        ids[row, : len(values)] = torch.tensor(values)
        mask[row, : len(values)] = 1
    return {"input_ids": ids, "attention_mask": mask}


def write_long_run(folder, steps, spike):
    """Writes the metrics.jsonl of a run that logged each step: its loss fell from 2 to 1. At step `spike` it was 50; at the
    next the gradient norm was 9."""
    def dump(event):
        return json.dumps(event, separators=(",", ":")) + "\n"
    with open(folder / "metrics.jsonl", "w") as file:
        file.write(dump({"event": "run_start", "total_steps": steps}))
        for step in range(1, steps + 1):
            device = {"rank": 0, "host": "node1", "device": "cpu", "tokens_per_s": step, "compute_share": 0.5}
            file.write(dump({
                "event": "train", "step": step, "epoch": step / 1000,
                "loss": 50.0 if step == spike else 2 - (step - 1) / (steps - 1),
                "grad_norm": 9.0 if step == spike + 1 else 1.0, "learning_rate": 1e-3, "devices": [device], "time": 1e9 + step}))
        file.write(dump({"event": "eval", "step": steps, "eval_samples": 1, "eval_loss": 1.5, "time": 1e9 + steps}))
        file.write(dump({"event": "run_end", "status": "completed", "step": steps, "time": 1e9 + steps}))
