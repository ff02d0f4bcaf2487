# SPDX-License-Identifier: Apache-2.0
"""runtime.gradient_sum: float trades the guarantee of equal bits for half the bytes; what is learnt stays the same."""

import pytest
from common import Run, make_config


@pytest.fixture(scope="module")
def runs(tmp_path_factory, data, cache):
    """(exact, float), each on two ranks"""
    folder = tmp_path_factory.mktemp("float_sum")
    finished = []
    for kind in ("fixed", "float"):
        run = Run(folder / kind, make_config("classification", data, cache, "float32"), runtime={"gradient_sum": kind})
        run.train(2).expect(0)
        finished.append(run)
    return finished


def test_losses_are_those_of_the_exact_sum_to_rounding(runs):
    exact, inexact = ([loss for _, _, loss, _, _ in run.losses()] for run in runs)
    assert inexact == pytest.approx(exact, rel=1e-4)


def test_half_the_bytes_travel(runs):
    exact, inexact = (run.events("run_start")[0]["allreduce_bytes_per_step"] for run in runs)
    assert inexact * 2 == exact


def test_a_run_does_not_go_on_with_another_kind_of_sum(runs):
    _, inexact = runs
    assert "runtime.gradient_sum" in inexact.train(1, "--set", "runtime.gradient_sum=fixed").expect(2).err
