# SPDX-License-Identifier: Apache-2.0
"""Each optimizer: the same bits on 1 to 4 ranks, after a kill and a resume, and as a GPU steps; no change on the way."""

import hashlib

import h5py
import pytest
from common import TOTAL_STEPS, Run, make_config, merged, neoloom

CASES = {
    "sgd": {"optim": "sgd", "optim_args": "momentum=0.9,nesterov=true"},
    "adafactor": {"optim": "adafactor"},
    "lion": {"optim": "lion", "learning_rate": 1e-3},
    "adamw_8bit": {"optim": "adamw_8bit"},
    "lora+": {"loraplus_lr_ratio": 8},
}
DATASETS = {"sgd": ["exp_avg"], "adafactor": ["exp_avg_sq"], "lion": ["exp_avg"],
            "adamw_8bit": ["exp_avg", "exp_avg_codes", "exp_avg_sq", "exp_avg_sq_codes"],
            "lora+": ["exp_avg", "exp_avg_sq"]}


@pytest.fixture(scope="module", params=list(CASES))
def case(request):
    return request.param


@pytest.fixture(scope="module")
def config(case, data, cache):
    return merged(make_config("classification", data, cache), {"trainer_config": CASES[case]})


@pytest.fixture(scope="module")
def reference(tmp_path_factory, config):
    run = Run(tmp_path_factory.mktemp("optimizer") / "run", config)
    run.train(1).expect(0)
    return run


def state(run):
    """Run.state, with the codes of 8-bit moments."""
    digests = run.state()
    with h5py.File(run.checkpoints()[-1]) as file:
        for name in ("exp_avg_codes", "exp_avg_sq_codes"):
            if name in file:
                digests[name] = hashlib.sha256(file[name][:].tobytes()).hexdigest()
    return digests


def test_it_learns_and_stores_the_moments_that_it_has(case, reference):
    losses = [loss for _, _, loss, _, _ in reference.losses()]
    assert len(losses) == TOTAL_STEPS
    assert sum(losses[-3:]) < sum(losses[:3])
    with h5py.File(reference.checkpoints()[-1]) as file:
        stored = [name for name in ("exp_avg", "exp_avg_codes", "exp_avg_sq", "exp_avg_sq_codes")
                  if name in file and file[name][:].size]
        assert stored == DATASETS[case]
        assert all(file[name][:].any() for name in stored)


@pytest.mark.parametrize("ranks", [2, 3, 4])
def test_every_bit_is_the_same_on_any_number_of_ranks(tmp_path, config, reference, ranks):
    run = Run(tmp_path / "run", config)
    run.train(ranks).expect(0)
    assert state(run) == state(reference)
    assert run.losses() == reference.losses()


def test_killed_and_resumed_on_other_ranks_it_ends_with_the_same_bits(tmp_path, config, reference):
    run = Run(tmp_path / "run", config)
    assert run.train(2, NEOLOOM_FAULT="kill:rank=1:step=10").code != 0
    run.train(3).expect(0)
    assert [event["step"] for event in run.events("resume")] == [8]
    assert state(run) == state(reference)


def test_the_step_of_a_gpu_learns_the_same(tmp_path, config, reference):
    run = Run(tmp_path / "run", config)
    run.train(2, NEOLOOM_STEP="device").expect(0)
    for mine, theirs in zip(run.losses(), reference.losses(), strict=True):
        assert mine == pytest.approx(theirs, rel=1e-3)


def test_another_optimizer_may_not_continue_the_run(config, reference):
    changed = "lion" if config["trainer_config"].get("optim") != "lion" else "sgd"
    arguments = ["--set", f"trainer_config.optim={changed}", "--set", "trainer_config.optim_args=''",
                 "--set", "trainer_config.loraplus_lr_ratio=null"]
    ended = reference.train(1, *arguments).expect(2)
    assert "trainer_config.optim" in ended.err or "trainer_config.loraplus_lr_ratio" in ended.err


def test_plan_counts_the_moments(config, reference):
    plan = neoloom(0, "plan", "--config", reference.config_file, "--ranks", "1").expect(0)
    line = next(line for line in plan.out.splitlines() if "training state" in line)
    with h5py.File(reference.checkpoints()[-1]) as file:
        bytes_ = sum(file[name][:].nbytes for name in file if name.startswith("exp_avg"))
    assert f"moments {bytes_ / 1e6:.1f} MB" in line
