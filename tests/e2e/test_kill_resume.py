# SPDX-License-Identifier: Apache-2.0
"""Killed, stopped, out of memory, with damaged checkpoints: the run ends where the undisturbed one ends, to the bit."""

import itertools
import os
import random
import re
import shutil
import signal
from collections import Counter
from pathlib import Path

import pytest
from common import ROWS, STOPPED, TOTAL_STEPS, Run, children, end, make_config, mpirun_of, read_trace, wait_until
from runs import assert_same_end

SEED = 20240607
KILL_POINTS = 10


def draw_points():
    """(rank killed, its step, step of the signal, who gets the signal)"""
    rng = random.Random(SEED)
    points = []
    for index in range(KILL_POINTS):
        kill_step = rng.randint(1, TOTAL_STEPS - 4)
        stop_step = rng.randint(kill_step, TOTAL_STEPS - 4)
        receiver = ("script", "mpirun", "one rank")[index % 3]
        points.append((rng.randrange(2), kill_step, stop_step, receiver))
    return points


@pytest.fixture(scope="module")
def config(data, cache):
    return make_config("classification", data, cache)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, config):
    run = Run(tmp_path_factory.mktemp("undisturbed") / "run", config)
    run.train(2).expect(0)
    return run


@pytest.fixture
def copy_of_it(tmp_path, undisturbed, config):
    """A finished run that a test may damage."""
    run = Run(tmp_path / "run", config)
    shutil.copytree(undisturbed.folder, run.folder)
    return run


def contents(folder):
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def stop_with_usr1(run, ranks, step, receiver, tmp_path):
    """Starts `ranks` ranks that are slow from `step` on, and sends USR1 once rank 0 computes that step."""
    trace = tmp_path / "trace"
    process = run.start(ranks, NEOLOOM_FAULT=f"slow:rank=0:step={step}", NEOLOOM_TRACE_SAMPLES=trace)
    try:
        own = Path(f"{trace}.0")
        assert wait_until(own.exists, process), process.communicate()[0]
        mpirun = mpirun_of(process.pid)
        receivers = {"script": process.pid, "mpirun": mpirun, "one rank": random.Random(step).choice(children(mpirun))}
        reached = wait_until(lambda: f"\n{step} " in "\n" + own.read_text(), process)
        assert reached, process.communicate()[0]
        os.kill(receivers[receiver], signal.SIGUSR1)
        output, _ = process.communicate(timeout=60)
    finally:
        end(process)
    assert process.returncode == STOPPED, output
    return output


@pytest.mark.parametrize("rank, kill_step, stop_step, receiver", draw_points())
def test_killed_on_two_ranks_stopped_on_three_and_finished_on_one(
    tmp_path, config, undisturbed, rank, kill_step, stop_step, receiver
):
    print(f"seed {SEED}: SIGKILL of rank {rank} at step {kill_step}, USR1 to {receiver} at step {stop_step}")
    run = Run(tmp_path / "run", config)
    killed = run.train(2, NEOLOOM_FAULT=f"kill:rank={rank}:step={kill_step}")
    assert killed.code not in (0, STOPPED), killed.err
    saved = [int(path.stem[5:]) for path in run.checkpoints()]
    due = (kill_step - 1) // 2 * 2
    assert max(saved, default=0) in (due, due - 2)  # rank 1 may die while rank 0 still writes

    stop_with_usr1(run, 3, stop_step, receiver, tmp_path)
    stopped_at = run.events("run_end")[-1]
    assert stopped_at["status"] == "stopped"
    assert stop_step <= stopped_at["step"] <= stop_step + 2
    assert int(run.checkpoints()[-1].stem[5:]) == stopped_at["step"]

    run.train(1).expect(0)
    resumed = run.events("resume")
    assert [event["world_size_before"] for event in resumed] == ([2, 3] if saved else [3])
    assert resumed[-1]["step"] == stopped_at["step"]
    assert_same_end(run, undisturbed)


def test_bare_start_is_killed_and_resumed_without_mpirun(tmp_path, config, undisturbed):
    run = Run(tmp_path / "run", config)
    run.train(0, NEOLOOM_FAULT="kill:rank=0:step=8").expect(-signal.SIGKILL)
    run.train(0).expect(0)
    assert [event["step"] for event in run.events("resume")] == [6]
    assert_same_end(run, undisturbed)


@pytest.mark.parametrize("peft", [dict(use_dora=True), dict(bias="all", lora_bias=True), dict(modules_to_save=["wte", "ln_f"]), dict(trainable_token_indices=[97, 101, 32])], ids=lambda peft: next(iter(peft)))
def test_other_adapters_killed_on_three_ranks_end_alike_on_one(tmp_path, config, undisturbed, peft):
    whole, killed = (Run(tmp_path / name, config, peft_config=peft) for name in ("whole", "killed"))
    whole.train(2).expect(0)
    assert killed.train(3, NEOLOOM_FAULT="kill:rank=1:step=9").code not in (0, STOPPED)
    killed.train(1).expect(0)
    assert_same_end(killed, whole)
    assert whole.state()["params"] != undisturbed.state()["params"]


def test_resume_none_is_refused_where_checkpoints_exist(copy_of_it):
    before = contents(copy_of_it.folder)
    refused = copy_of_it.train(2, "--resume", "none").expect(2)
    assert "holds checkpoints" in refused.err and "--resume none" in refused.err
    assert contents(copy_of_it.folder) == before


def test_completed_run_says_so_and_changes_nothing(copy_of_it, undisturbed):
    before = contents(copy_of_it.folder / "checkpoints")
    again = copy_of_it.train(2).expect(0)
    assert f"this run is complete: {TOTAL_STEPS} of {TOTAL_STEPS} steps" in again.out + again.err
    assert contents(copy_of_it.folder / "checkpoints") == before
    assert_same_end(copy_of_it, undisturbed)


def test_a_named_checkpoint_is_resumed(copy_of_it, undisturbed):
    older = copy_of_it.checkpoints()[-2]
    copy_of_it.train(2, "--resume", older).expect(0)
    assert copy_of_it.events("resume")[-1]["path"] == str(older)
    assert_same_end(copy_of_it, undisturbed)


def test_truncated_newest_checkpoint_is_named_and_the_next_older_one_used(copy_of_it, undisturbed):
    *_, older, newest = copy_of_it.checkpoints()
    newest.write_bytes(newest.read_bytes()[: newest.stat().st_size // 2])
    ended = copy_of_it.train(2).expect(0)
    assert re.search(rf"checkpoint skipped: {re.escape(str(newest))}: ", ended.out + ended.err)
    assert copy_of_it.events("resume")[-1]["path"] == str(older)
    assert_same_end(copy_of_it, undisturbed)


def test_without_any_valid_checkpoint_the_run_stops_and_overwrites_nothing(copy_of_it):
    for index, path in enumerate(copy_of_it.checkpoints()):
        content = bytearray(path.read_bytes())
        content[len(content) // (index + 2)] ^= 1
        path.write_bytes(content)
    before = contents(copy_of_it.folder)
    ended = copy_of_it.train(2).expect(5)
    for path in copy_of_it.checkpoints():
        assert str(path) in ended.err
    assert contents(copy_of_it.folder) == before


class TestOutOfMemory:
    """One rank cannot hold two rows: all ranks go on with micro-batches of one, and the global batch stays."""

    @pytest.fixture
    def automatic(self, config):
        return {**config, "trainer_config": {**config["trainer_config"], "auto_find_batch_size": True}}

    def test_at_the_first_step_gives_the_bits_of_a_run_configured_with_the_smaller_size(
        self, tmp_path, automatic, config, undisturbed
    ):
        ones = Run(tmp_path / "ones", config, trainer_config={"per_device_train_batch_size": 1})
        ones.train(2).expect(0)
        run = Run(tmp_path / "run", automatic)
        ended = run.train(2, NEOLOOM_FAULT="oom:rank=1:step=1:rows=2").expect(0)
        assert "micro-batches of 1 samples" in ended.out + ended.err
        assert_same_end(run, ones)
        assert run.state()["params"] != undisturbed.state()["params"]

    def test_later_goes_on_from_the_last_step_on_any_number_of_ranks(self, tmp_path, automatic, undisturbed):
        two, three = Run(tmp_path / "two", automatic), Run(tmp_path / "three", automatic)
        trace = tmp_path / "trace"
        # Every step compares the ranks' states.
        two.train(2, NEOLOOM_FAULT="oom:rank=1:step=3:rows=2", NEOLOOM_TRACE_SAMPLES=trace).expect(0)
        three.train(3, NEOLOOM_FAULT="oom:rank=2:step=3:rows=2").expect(0)
        assert_same_end(three, two)
        assert two.losses()[:2] == undisturbed.losses()[:2]
        # Each epoch takes each sample once. Pairs from the third step on were computed in vain and do not count.
        seen = [Counter(), Counter(), Counter()]
        for step, ids in itertools.chain(*read_trace(trace, 2)):
            if step < 3 or len(ids) == 1:
                seen[(step - 1) // (TOTAL_STEPS // 3)].update(ids)
        assert seen == [Counter(range(ROWS))] * 3
        # A resume keeps the smaller size, although the configuration still says two rows.
        shutil.rmtree(two.folder / "adapter")
        newest = two.checkpoints()[-1]
        newest.unlink()
        newest.with_suffix(".sha256").unlink()
        two.train(1).expect(0)
        assert two.events("run_start")[-1]["micro_batch_size"] == 1
        assert_same_end(two, three)

    def test_without_the_option_the_run_ends_as_a_device_error(self, tmp_path, config):
        run = Run(tmp_path / "run", config)
        ended = run.train(2, NEOLOOM_FAULT="oom:rank=1:step=3:rows=2", timeout=60)
        assert ended.code == 8, ended.err
        assert "out of memory in step 3 with micro-batches of 2 samples" in ended.err
        assert "auto_find_batch_size: true" in ended.err
        assert [int(path.stem[5:]) for path in run.checkpoints()] == [2]


def test_a_checkpoint_behind_a_skipped_step_resumes(tmp_path, config):
    """Parameters out of fp32's range skip every further step, and their loss is NaN."""
    run = Run(tmp_path / "run", config, runtime={"max_skipped_steps": 100},
              trainer_config={"learning_rate": 1e38, "warmup_steps": 0, "logging_steps": TOTAL_STEPS, "save_steps": 2,
                              "eval_strategy": "no"})
    assert run.train(1, NEOLOOM_FAULT="kill:rank=0:step=8").code != 0
    before = run.events("warning")
    assert before and before[0]["step"] <= 6, "a checkpoint lies behind a skipped step"
    run.train(2).expect(74)  # values out of range are no adapter that could be written
    assert run.events("resume")[0]["step"] == 6
    assert run.events("train")[-1]["loss"] is None
