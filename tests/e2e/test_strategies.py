# SPDX-License-Identifier: Apache-2.0
"""When a run logs, evaluates and saves, beside Hugging Face's Trainer with the same evaluations."""

import pytest
from common import Run, make_config, merged
from trainer_replay import Replay

ROWS, STEP = 53, 12
LAST = 13  # 2.5 epochs of 5 steps
SHARED = {"num_train_epochs": 2.5, "learning_rate": 5e-2, "lr_scheduler_type": "constant", "warmup_steps": 0,
          "metric_for_best_model": "loss"}
CASES = {
    "steps": {"eval_strategy": "steps", "eval_steps": 4, "save_strategy": "steps", "save_steps": 3,
              "logging_strategy": "steps", "logging_steps": 3},
    "epochs": {"eval_strategy": "epoch", "eval_delay": 2, "save_strategy": "epoch", "logging_strategy": "epoch",
               "logging_first_step": True},
    "best": {"eval_strategy": "steps", "eval_steps": 1, "save_strategy": "best", "logging_strategy": "no"},
    "late": {"eval_strategy": "steps", "eval_steps": 3, "eval_delay": 7, "eval_on_start": True,
             "save_strategy": "best", "logging_strategy": "no", "logging_first_step": True},
    "start": {"eval_strategy": "no", "eval_on_start": True, "save_strategy": "no", "logging_strategy": "no"},
}


@pytest.fixture(scope="module")
def config(data, cache):
    config = make_config("classification", data, cache)
    for key in ("eval_steps", "save_steps", "logging_steps"):
        del config["trainer_config"][key]
    return merged(config, {"trainer_config": {**SHARED, "save_total_limit": 0}})


def steps_of(run, kind):
    return [event["step"] for event in run.events(kind)]


@pytest.mark.parametrize("case", CASES)
def test_steps_are_those_of_hugging_face(tmp_path, config, case):
    run = Run(tmp_path / "run", config, trainer_config=CASES[case])
    run.train(0).expect(0)
    oracle = Replay(tmp_path / "hf", ROWS, {event["step"]: event for event in run.evaluations()},
                    per_device_train_batch_size=STEP, **SHARED, **CASES[case])
    oracle.train()
    # The end of a run is logged and saved, too.
    logged = set(oracle.rates) | ({LAST} if CASES[case]["logging_strategy"] != "no" else set())
    assert steps_of(run, "eval") == oracle.evaluated
    assert steps_of(run, "train") == sorted(logged)
    assert steps_of(run, "checkpoint") == sorted({*oracle.saved, LAST})
    if CASES[case]["save_strategy"] == "best":
        assert 0 < len(oracle.saved) < len(oracle.evaluated), "some evaluations were to be no improvement"


def test_checkpoints_of_the_best_evaluations_resume_to_the_same_bits(tmp_path, config):
    """An evaluation before the first step is part of the history. It is no evaluation to compare with."""
    changes = {**CASES["best"], "eval_on_start": True, "load_best_model_at_end": True}
    whole = Run(tmp_path / "whole", config, trainer_config=changes)
    whole.train(1).expect(0)
    saved = [int(path.stem[5:]) for path in whole.checkpoints()]
    kill_step = next(step for step in range(saved[0] + 1, LAST + 1) if step not in saved)
    killed = Run(tmp_path / "killed", config, trainer_config=changes)
    assert killed.train(2, NEOLOOM_FAULT=f"kill:rank=1:step={kill_step + 1}").code != 0
    killed.train(3).expect(0)
    assert killed.events("resume")[0]["step"] == max(step for step in saved if step < kill_step)
    assert steps_of(killed, "eval") == list(range(LAST + 1))
    assert killed.state() == whole.state()
    assert killed.evaluations() == whole.evaluations()
