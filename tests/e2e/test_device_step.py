# SPDX-License-Identifier: Apache-2.0
"""The optimizer step as GPUs make it, on CPU tensors: enqueued in operators that read nothing back, sums over ranks in
buckets that begin during the last micro-batch, results read one step late."""

import os
import re
import signal
from pathlib import Path

import pytest
from common import TOTAL_STEPS, Run, children, end, make_config, merged, mpirun_of, wait_until

AS_ON_DEVICES = {"NEOLOOM_STEP": "device"}
BUCKETS = {"bucket_bytes": 4096}
# Nothing needs most of the results at once, so they are read late.
RARELY = {"trainer_config": {"logging_steps": 5, "save_steps": 7, "eval_steps": 7},
          "runtime": {"state_check_steps": 0, **BUCKETS}}


@pytest.fixture(scope="module")
def config(data, cache):
    return merged(make_config("classification", data, cache), RARELY)


@pytest.fixture(scope="module")
def reference(tmp_path_factory, config):
    """A run on one rank that reads every result at once, with the sum in one piece."""
    run = Run(tmp_path_factory.mktemp("reference") / "run", config,
              trainer_config={"logging_steps": 1}, runtime={"bucket_bytes": 0})
    run.train(1, **AS_ON_DEVICES).expect(0)
    return run


def same_parameters(run, other):
    keys = ("params", "exp_avg", "exp_avg_sq", "step", "skipped_steps", "adapter")
    mine, theirs = run.state(), other.state()
    return [mine[key] for key in keys] == [theirs[key] for key in keys]


@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
def test_late_results_and_buckets_change_no_bit_on_any_number_of_ranks(tmp_path, config, reference, ranks):
    run = Run(tmp_path / "run", config)
    run.train(ranks, **AS_ON_DEVICES).expect(0)
    assert run.events("run_start")[0]["allreduce_buckets"] == 2
    assert same_parameters(run, reference)
    assert run.evaluations() == reference.evaluations()


@pytest.mark.parametrize("ranks", [1, 2])
def test_lines_written_late_name_the_steps_that_they_are_about(tmp_path, config, reference, ranks):
    run = Run(tmp_path / "run", config)
    run.train(ranks, **AS_ON_DEVICES).expect(0)
    each = {step: values for step, *values in reference.losses()}
    lines = run.losses()
    assert [step for step, *_ in lines] == [5, 10, 15]
    for step, epoch, loss, norm, rate in lines:
        assert [epoch, norm, rate] == [each[step][i] for i in (0, 2, 3)]
        assert loss == pytest.approx(sum(each[s][1] for s in range(step - 4, step + 1)) / 5, rel=1e-12)


def test_the_host_step_learns_the_same_to_rounding(tmp_path, config, reference):
    run = Run(tmp_path / "run", config, trainer_config={"logging_steps": 1})
    run.train(2).expect(0)
    assert [line[0] for line in run.losses()] == [line[0] for line in reference.losses()]
    for mine, theirs in zip(run.losses(), reference.losses()):
        assert mine == pytest.approx(theirs, rel=1e-4)


@pytest.mark.parametrize("step", ["host", "device"])
def test_buckets_change_no_bit_of_the_exact_sum(tmp_path, data, cache, step):
    config = make_config("causal_lm", data, cache)
    runs = []
    for name, runtime in (("whole", {}), ("cut", BUCKETS)):
        run = Run(tmp_path / name, config, runtime=runtime)
        run.train(3, **(AS_ON_DEVICES if step == "device" else {})).expect(0)
        runs.append(run)
    assert [run.events("run_start")[0]["allreduce_buckets"] for run in runs] == [1, 2]
    assert runs[0].state() == runs[1].state()
    assert runs[0].losses() == runs[1].losses()


def test_killed_and_resumed_ends_with_the_same_bits(tmp_path, config, reference):
    run = Run(tmp_path / "run", config)
    assert run.train(2, NEOLOOM_FAULT="kill:rank=1:step=10", **AS_ON_DEVICES).code != 0
    run.train(3, **AS_ON_DEVICES).expect(0)
    assert [event["step"] for event in run.events("resume")] == [7]
    assert same_parameters(run, reference)
    assert [line[:3] for line in run.losses()][-1][0] == TOTAL_STEPS


def test_float16_reads_at_once_as_its_loss_scale_follows_from_the_flags(tmp_path, data, cache):
    config = make_config("classification", data, cache, "float16")
    config["runtime"]["compute_dtype"] = "float16"
    states = []
    for ranks in (1, 3):
        run = Run(tmp_path / f"np{ranks}", config, runtime=BUCKETS)
        run.train(ranks, **AS_ON_DEVICES).expect(0)
        states.append((run.state(), run.losses()))
    assert states[0] == states[1]


def test_too_many_steps_that_are_not_finite_end_every_rank(tmp_path, config):
    """The learning rate throws the parameters out of fp32's range: then nothing is finite any more."""
    run = Run(tmp_path / "run", config, trainer_config={"learning_rate": 1e38, "warmup_steps": 0},
              runtime={"max_skipped_steps": 3})
    ended = run.train(3, **AS_ON_DEVICES).expect(7)
    assert "3 steps in a row" in ended.err
    warned = [event["step"] for event in run.events("warning")]
    assert warned == list(range(warned[0], warned[0] + 3))
    assert run.events("run_end")[-1]["step"] == warned[-1]


def test_out_of_memory_in_the_last_micro_batch_leaves_no_peer_in_a_sum(tmp_path, config):
    small = Run(tmp_path / "small", config, trainer_config={"per_device_train_batch_size": 1})
    small.train(2, **AS_ON_DEVICES).expect(0)
    found = Run(tmp_path / "found", config, trainer_config={"auto_find_batch_size": True})
    found.train(2, NEOLOOM_FAULT="oom:rank=1:step=1:rows=2", **AS_ON_DEVICES).expect(0)
    assert same_parameters(found, small)


def test_a_peer_that_stops_during_a_step_ends_the_job_with_code_six(tmp_path, config):
    run = Run(tmp_path / "run", config, runtime={"peer_timeout_seconds": 3})
    trace = tmp_path / "trace"
    process = run.start(2, NEOLOOM_FAULT="slow:rank=-1:step=3", NEOLOOM_TRACE_SAMPLES=trace, **AS_ON_DEVICES)
    try:
        own = Path(f"{trace}.0")
        assert wait_until(lambda: own.exists() and re.search(r"^4 ", own.read_text(), re.M), process)
        os.kill(children(mpirun_of(process.pid))[1], signal.SIGSTOP)
        output, _ = process.communicate(timeout=60)
    finally:
        end(process)
    assert process.returncode == 6, output
    assert "waited more than 3.0 s in" in output


def test_another_value_of_the_switch_is_refused(tmp_path, config):
    assert "NEOLOOM_STEP: expected device" in Run(tmp_path / "run", config).train(1, NEOLOOM_STEP="gpu").expect(2).err
