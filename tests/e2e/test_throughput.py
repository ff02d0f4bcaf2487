# SPDX-License-Identifier: Apache-2.0
"""The reported throughput of a run that saves and evaluates between two log lines."""

import pytest
from common import Run, make_config

STEPS = 10
PARTS = ("compute_share", "comm_share", "data_share")


def test_time_before_a_save_or_an_evaluation_counts(tmp_path, data, cache):
    """Each part of a step was measured within the window of its line, so together they cannot exceed it."""
    between = {"logging_steps": STEPS, "save_steps": STEPS - 1, "eval_steps": STEPS - 1, "max_steps": 2 * STEPS}
    run = Run(tmp_path / "run", make_config("classification", data, cache), trainer_config=between)
    run.train(2).expect(0)

    lines, (end,) = run.events("train"), run.events("run_end")
    assert len(lines) == 2
    for line in lines:
        for device in line["devices"]:
            assert sum(device[part] for part in PARTS) <= 1.001, device
            assert 0.0 < device["exposed_sum_share"] <= device["comm_share"], device
            assert device["summed_bytes"] == run.events("run_start")[0]["allreduce_bytes_per_step"] * STEPS
            assert device["samples_per_s"] * line["step_seconds"] * STEPS <= line["samples"] * 1.001, line
    trained = sum(line["step_seconds"] * STEPS for line in lines)
    assert trained <= end["train_runtime"] + 0.001
    assert sum(line["samples"] for line in lines) == pytest.approx(
        end["train_samples_per_second"] * end["train_runtime"])
