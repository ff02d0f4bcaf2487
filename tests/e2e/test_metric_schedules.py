# SPDX-License-Identifier: Apache-2.0
"""Learning rates that follow evaluations: those of Hugging Face's Trainer, on any number of ranks, across resumes."""

import pytest
from common import Run, make_config, merged
from trainer_replay import Replay

TOTAL_STEPS = 20
SCHEDULES = {
    "reduce_lr_on_plateau": {"factor": 0.5, "patience": 0, "threshold": 0.01},
    "greedy": {"factor": 0.7, "patience": 0, "min_lr": 1e-4, "smooth": True, "window_size": 3},
}
RHYTHM = {"max_steps": TOTAL_STEPS, "learning_rate": 2e-2, "eval_strategy": "steps", "eval_steps": 2, "logging_steps": 1}


@pytest.fixture(scope="module", params=SCHEDULES)
def config(request, data, cache):
    trainer = {"lr_scheduler_type": request.param, "lr_scheduler_kwargs": SCHEDULES[request.param], "warmup_steps": 0,
               "save_steps": 3}
    return merged(make_config("classification", data, cache), {"trainer_config": {**RHYTHM, **trainer}})


@pytest.fixture(scope="module")
def whole(tmp_path_factory, config):
    run = Run(tmp_path_factory.mktemp("whole") / "run", config)
    run.train(1).expect(0)
    return run


def rates(run):
    return {event["step"]: event["learning_rate"] for event in run.events("train")}


def test_the_rates_are_those_of_hugging_face(tmp_path, config, whole):
    trainer = config["trainer_config"]
    oracle = Replay(tmp_path, 53, {event["step"]: event for event in whole.evaluations()}, save_strategy="no",
                    per_device_train_batch_size=12, lr_scheduler_type=trainer["lr_scheduler_type"],
                    lr_scheduler_kwargs=trainer["lr_scheduler_kwargs"], **RHYTHM)
    oracle.train()
    assert rates(whole) == oracle.rates
    assert len(set(oracle.rates.values())) > 2, "the learning rate was to move"


def test_a_kill_and_other_ranks_change_no_bit(tmp_path, config, whole):
    run = Run(tmp_path / "run", config)
    assert run.train(2, NEOLOOM_FAULT="kill:rank=1:step=14").code != 0
    run.train(3).expect(0)
    assert run.state() == whole.state()
    assert rates(run) == rates(whole)


def test_a_step_on_the_device_takes_the_same_rates(tmp_path, config, whole):
    """Its losses round differently, so its own evaluations decide."""
    run = Run(tmp_path / "run", config)
    run.train(1, NEOLOOM_STEP="device").expect(0)
    assert list(rates(run).values())[:2] == list(rates(whole).values())[:2]
    again = Run(tmp_path / "again", config)
    assert again.train(1, NEOLOOM_STEP="device", NEOLOOM_FAULT="kill:rank=0:step=14").code != 0
    again.train(2, NEOLOOM_STEP="device").expect(0)
    assert rates(again) == rates(run) and again.state() == run.state()
    assert len(set(rates(run).values())) > 2


@pytest.mark.parametrize("change", [{"eval_steps": 4}, {"metric_for_best_model": "accuracy"},
                                    {"per_device_eval_batch_size": 7}], ids=lambda change: next(iter(change)))
def test_a_resume_with_other_evaluations_is_refused(tmp_path, config, change):
    run = Run(tmp_path / "run", config)
    assert run.train(1, NEOLOOM_FAULT="kill:rank=0:step=8").code != 0
    other = Run(tmp_path / "run", config, trainer_config=change)
    refused = other.train(1).expect(2)
    assert "evaluations that decide the learning rate: was eval_loss, smaller is better" in refused.err
