# SPDX-License-Identifier: Apache-2.0
"""Early stopping: at the step of transformers' callback, on any number of ranks, and across kill and resume."""

import pytest
from common import Run, make_config, merged
from runs import adapter, assert_equal
from trainer_replay import Replay
from transformers import EarlyStoppingCallback

TOTAL_STEPS, PATIENCE, THRESHOLD = 30, 3, 0.002
TRAINER = {"max_steps": TOTAL_STEPS, "learning_rate": 5e-2, "lr_scheduler_type": "constant", "warmup_steps": 0,
           "eval_strategy": "steps", "eval_steps": 1, "logging_steps": 4, "save_steps": 5}


@pytest.fixture(scope="module")
def config(data, cache):
    early = {"early_stopping_patience": PATIENCE, "early_stopping_threshold": THRESHOLD, "load_best_model_at_end": True}
    return merged(make_config("classification", data, cache), {"trainer_config": {**TRAINER, **early}})


@pytest.fixture(scope="module")
def whole(tmp_path_factory, config):
    run = Run(tmp_path_factory.mktemp("whole") / "run", config)
    run.ended = run.train(1).expect(0)
    return run


def stopped_at(run):
    return run.events("run_end")[-1]["step"]


def test_the_run_ends_where_the_callback_ends_it_and_says_why(tmp_path, whole):
    oracle = Replay(tmp_path, 53, {event["step"]: event for event in whole.evaluations()},
                    [EarlyStoppingCallback(PATIENCE, THRESHOLD)], per_device_train_batch_size=12,
                    metric_for_best_model="loss", save_strategy="no",
                    **{key: value for key, value in TRAINER.items() if key != "save_steps"})
    oracle.train()
    last = oracle.state.global_step
    assert PATIENCE < last < TOTAL_STEPS, "the run was to stop early"
    (end,) = whole.events("run_end")
    assert (end["status"], end["step"]) == ("completed", last)
    reason = f"early stopping: eval_loss has not improved by more than {THRESHOLD} in {PATIENCE} evaluations (the best is "
    assert end["reason"].startswith(reason) and f"of step {best_step(whole)})" in end["reason"]
    assert f"the run ends at step {last} of {TOTAL_STEPS}" in whole.ended.err
    assert [int(path.stem[5:]) for path in whole.checkpoints()][-1] == last
    assert whole.events("train")[-1]["step"] == last
    assert_equal(adapter(whole.folder / "adapter"), adapter(whole.folder / "adapter-best"))


def best_step(run):
    losses = {event["step"]: event["eval_loss"] for event in run.events("eval")}
    return min(losses, key=losses.get)


@pytest.mark.parametrize("before", range(1, PATIENCE + 2))
def test_a_kill_changes_neither_the_bits_nor_the_end(tmp_path, config, whole, before):
    """The kill comes so many steps before the end, so that the count is under way; each step is saved."""
    run = Run(tmp_path / "run", config, trainer_config={"save_steps": 1})
    assert run.train(2, NEOLOOM_FAULT=f"kill:rank=1:step={stopped_at(whole) - before + 1}").code != 0
    run.train(3).expect(0)
    assert run.events("resume")[0]["step"] in (stopped_at(whole) - before, stopped_at(whole) - before - 1)
    assert stopped_at(run) == stopped_at(whole)
    assert run.state() == whole.state()
    assert run.evaluations() == whole.evaluations()


def test_the_same_command_says_that_the_run_is_complete_and_more_patience_continues_it(tmp_path, config):
    run = Run(tmp_path / "run", config)
    run.train(2).expect(0)
    last, before = stopped_at(run), run.state()
    again = run.train(2).expect(0)
    assert f"this run is complete: {last} of {TOTAL_STEPS} steps" in again.err
    assert run.events("run_end")[-1]["reason"].startswith("early stopping: ")
    assert run.state() == before
    run.train(2, "--set", f"trainer_config.early_stopping_patience={TOTAL_STEPS}").expect(0)
    assert run.events("resume")[-1]["step"] == last and stopped_at(run) > last
    assert "reason" not in run.events("run_end")[-1]


def test_without_the_best_model_a_warning_says_what_the_result_is(tmp_path, config):
    run = Run(tmp_path / "run", config, trainer_config={"load_best_model_at_end": False, "max_steps": 2})
    assert "without load_best_model_at_end: true, the result is the last state" in run.train(0).expect(0).err
