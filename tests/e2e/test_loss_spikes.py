# SPDX-License-Identifier: Apache-2.0
"""Steps with a loss far above the last ones, and steps that are not finite: what makes no update, and when a run ends."""

import numpy as np
import pytest
from common import Run, make_config, merged
from runs import adapter, assert_equal, assert_one_message, write_jsonl

USAGE, NUMERIC = 2, 7
STEP, STEPS, SPIKE = 4, 16, 12
POLICY = {"z_score": 8, "window": 5, "most_skipped": 2}


def rows(spikes):
    """Returns rows of one sentence; those of the steps `spikes` are other characters."""
    texts = [{"text": "the cat sat on the mat and the cat sat on the mat"} for _ in range(STEPS * STEP)]
    for step in spikes:
        texts[(step - 1) * STEP : step * STEP] = [{"text": "@#%^&*()!~{}|<>?/;:" * 2}] * STEP
    return texts


def config_of(data, cache, path, steps=STEPS):
    return merged(make_config("causal_lm", data, cache), {
        "data": {"train": str(path)},
        "peft_config": {"lora_dropout": 0.0},
        "trainer_config": {"train_sampling_strategy": "sequential", "num_train_epochs": 1, "eval_strategy": "no",
                           "learning_rate": 2e-2, "lr_scheduler_type": "constant", "warmup_steps": 0, "save_steps": 3,
                           "max_steps": steps, "loss_spike_policy": POLICY},
        "runtime": {"global_batch_size": STEP}})


@pytest.fixture(scope="module")
def config(tmp_path_factory, data, cache):
    return config_of(data, cache, write_jsonl(tmp_path_factory.mktemp("spiky") / "train.jsonl", rows([SPIKE])))


@pytest.fixture(scope="module")
def whole(tmp_path_factory, config):
    run = Run(tmp_path_factory.mktemp("whole") / "run", config)
    run.train(1).expect(0)
    return run


def test_a_spike_makes_no_update_and_is_counted(tmp_path, whole, data, cache):
    (warning,) = whole.events("warning")
    assert warning["step"] == SPIKE and "standard deviations above the mean" in warning["message"]
    (end,) = whole.events("run_end")
    assert (end["loss_spikes"], end["skipped_steps"]) == (1, 1)
    logged = {event["step"]: event["loss"] for event in whole.events("train")}
    others = [logged[step] for step in range(SPIKE - 5, SPIKE)]
    assert logged[SPIKE] > np.mean(others) + POLICY["z_score"] * np.std(others, ddof=1)
    without = [row for index, row in enumerate(rows([])) if not (SPIKE - 1) * STEP <= index < SPIKE * STEP]
    path = write_jsonl(tmp_path / "train.jsonl", without)
    smooth = Run(tmp_path / "smooth", config_of(data, cache, path, STEPS - 1))
    smooth.train(0).expect(0)
    assert smooth.events("run_end")[0]["loss_spikes"] == 0
    assert_equal(adapter(whole.folder / "adapter"), adapter(smooth.folder / "adapter"))


@pytest.mark.parametrize("kill_step", [SPIKE, SPIKE + 1, SPIKE + 2])
def test_a_kill_and_other_ranks_change_no_bit(tmp_path, config, whole, kill_step):
    run = Run(tmp_path / "run", config, trainer_config={"save_steps": 1})
    assert run.train(2, NEOLOOM_FAULT=f"kill:rank=1:step={kill_step}").code != 0
    run.train(3).expect(0)
    assert run.state() == whole.state()
    assert run.events("run_end")[-1]["loss_spikes"] == 1


def test_a_step_on_the_device_skips_the_same(tmp_path, config):
    run = Run(tmp_path / "run", config)
    run.train(2, NEOLOOM_STEP="device").expect(0)
    assert [event["step"] for event in run.events("warning")] == [SPIKE]
    assert run.events("run_end")[0]["loss_spikes"] == 1


def test_without_the_policy_the_update_is_made(tmp_path, config, whole):
    run = Run(tmp_path / "run", config, trainer_config={"loss_spike_policy": None})
    run.train(0).expect(0)
    assert not run.events("warning") and "loss_spikes" not in run.events("run_end")[0]
    assert run.state()["adapter"] != whole.state()["adapter"]


def test_too_many_in_a_row_end_the_run_on_every_rank(tmp_path, data, cache):
    path = write_jsonl(tmp_path / "train.jsonl", rows([SPIKE, SPIKE + 1]))
    run = Run(tmp_path / "run", config_of(data, cache, path))
    ended = run.train(3).expect(NUMERIC)
    assert_one_message(ended, "2 steps in a row had a loss far above", "loss_spike_policy", "--resume PATH")
    assert run.events("run_end")[-1] | {"loss_spikes": 2, "status": "failed", "step": SPIKE + 1} == run.events("run_end")[-1]


def test_another_policy_is_another_run(tmp_path, config):
    run = Run(tmp_path / "run", config, trainer_config={"max_steps": 4})
    run.train(0).expect(0)
    ended = run.train(0, "--set", "trainer_config.loss_spike_policy={z_score: 5}").expect(USAGE)
    assert "trainer_config.loss_spike_policy: was {z_score: 8, window: 5, most_skipped: 2}" in ended.err


@pytest.mark.parametrize("policy, steps", [("abort", 1), ("skip 3", 3)])
def test_steps_that_are_not_finite_end_the_run_as_the_policy_says(tmp_path, config, policy, steps):
    """The learning rate throws the parameters out of fp32's range: then nothing is finite any more."""
    run = Run(tmp_path / "run", config, trainer_config={"learning_rate": 1e38, "non_finite_policy": policy})
    ended = run.train(2).expect(NUMERIC)
    expected = "a step had gradients" if steps == 1 else "3 steps in a row had gradients"
    assert_one_message(ended, f"{expected} that are not finite (trainer_config.non_finite_policy)")
    assert len(run.events("warning")) == steps


def test_abort_lets_a_float16_run_search_its_loss_scale(tmp_path, data, cache):
    config = make_config("classification", data, cache, "float16")
    run = Run(tmp_path / "run", config, model_config={"frozen_dtype": "float16"}, runtime={"compute_dtype": "float16"},
              trainer_config={"non_finite_policy": "abort", "eval_strategy": "no"})
    run.train(0).expect(0)
