# SPDX-License-Identifier: Apache-2.0
"""One run, one folder, one world: the same command twice, srun without a launcher, folders that cannot serve, signals."""

import os
import signal
import subprocess

import pytest
from common import NEOLOOM, STOPPED, Run, environment, make_config, neoloom, wait_until
from runs import assert_one_message

SLOW = {"NEOLOOM_FAULT": "slow:rank=-1:step=1"}
AS_SRUN = {"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "2", "SLURM_NTASKS": "2"}


@pytest.fixture
def config(data, cache):
    return make_config("classification", data, cache)


def snapshot(folder):
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_the_same_command_twice_is_refused_while_the_first_runs_and_readers_are_not(tmp_path, config):
    run, undisturbed = Run(tmp_path / "run", config), Run(tmp_path / "undisturbed", config)
    undisturbed.train(0).expect(0)
    first = run.start(0, **SLOW)
    assert wait_until(run.checkpoints, first)
    second = run.train(0).expect(2)
    assert_one_message(second, run.folder, f"process {first.pid} on ", "trainer_config.output_dir")
    neoloom(0, "checkpoint", "list", run.folder).expect(0)
    first.send_signal(signal.SIGKILL)
    first.wait()
    after = run.train(0).expect(0)
    assert "waiting up to" not in after.err  # the lock of a killed process holds nobody up
    assert run.state() == undisturbed.state()
    assert not (run.folder / "run.lock").exists()
    neoloom(0, "evaluate", "--run", run.folder).expect(0)


def test_ranks_of_one_job_share_its_lock(tmp_path, config):
    Run(tmp_path / "run", config).train(2, "--expect_ranks", 2).expect(0)


def test_another_number_of_ranks_than_expected_is_refused(tmp_path, config):
    run = Run(tmp_path / "run", config)
    assert_one_message(run.train(0, "--expect_ranks", 2).expect(2), "--expect_ranks is 2", "this job has 1 rank")
    assert_one_message(run.train(2, "--expect_ranks", 3).expect(2), "--expect_ranks is 3", "this job has 2 ranks")
    assert not run.folder.exists()


def test_tasks_of_srun_that_are_no_world_do_not_train_but_may_do_the_rest(tmp_path, config, data):
    run = Run(tmp_path / "run", config)
    ended = [run.train(0, **AS_SRUN, SLURM_PROCID=str(task)).expect(2) for task in (0, 1)]
    assert_one_message(ended[0], "srun started 2 tasks", "--mpi=pmix")
    assert ended[1].err == "", "one message for the whole step"
    neoloom(0, "tokenize", "--tokenizer", data / "base", "--text", "x", **AS_SRUN, SLURM_PROCID="1").expect(0)
    # A batch script or a shell of salloc knows the allocation's tasks, but is no step; an interactive step has one task.
    run.train(0, SLURM_JOB_ID="7", SLURM_NTASKS="2").expect(0)
    Run(tmp_path / "step", config).train(0, **{**AS_SRUN, "SLURM_STEP_NUM_TASKS": "1"}).expect(0)


def test_a_result_without_its_checkpoints_is_not_overwritten(tmp_path, config):
    run = Run(tmp_path / "run", config)
    run.train(0).expect(0)
    for file in (run.folder / "checkpoints").iterdir():
        file.unlink()
    (run.folder / "checkpoints").rmdir()
    before = snapshot(run.folder)
    for resume in ("auto", "none"):
        assert_one_message(run.train(0, "--resume", resume).expect(2), run.folder, run.folder / "adapter", "no checkpoint")
    assert snapshot(run.folder) == before


def test_folders_that_cannot_serve_are_named_and_left_alone(tmp_path, config):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "dangling").symlink_to("/nonexistent/place")
    for folder, words in [("", "is empty"), (tmp_path / "file", "is a file"), (tmp_path / "dangling", "/nonexistent/place")]:
        run = Run(tmp_path / "run", config)
        ended = run.train(0, "--set", f'trainer_config.output_dir="{folder}"').expect(2)
        assert_one_message(ended, "trainer_config.output_dir", words)
    assert (tmp_path / "file").read_text() == "mine"


def test_a_folder_is_taken_for_its_newest_checkpoint(tmp_path, config):
    run, undisturbed = Run(tmp_path / "run", config), Run(tmp_path / "undisturbed", config)
    undisturbed.train(0).expect(0)
    run.train(0, NEOLOOM_FAULT="kill:rank=0:step=9").expect(-signal.SIGKILL)
    ended = run.train(0, "--resume", run.folder / "checkpoints").expect(0)
    assert "step-000000000008.h5" in ended.err
    assert run.state() == undisturbed.state()
    (tmp_path / "empty").mkdir()
    other = Run(tmp_path / "other", config)
    assert_one_message(other.train(0, "--resume", tmp_path / "empty").expect(5), tmp_path / "empty", "no checkpoint")


def test_a_closed_terminal_saves_and_nohup_goes_on(tmp_path, config):
    run = Run(tmp_path / "run", config)
    process = run.start(0, **SLOW)
    assert wait_until(run.checkpoints, process)
    process.send_signal(signal.SIGHUP)
    assert process.wait(timeout=60) == STOPPED
    assert run.events("run_end")[-1]["status"] == "stopped"

    ignoring = subprocess.Popen(["nohup", NEOLOOM, "train", "--config", run.config_file], env=environment(),
                                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    assert wait_until(lambda: len(run.events("resume")) > 0, ignoring)
    ignoring.send_signal(signal.SIGHUP)
    assert ignoring.wait(timeout=60) == 0


def test_a_reader_that_went_away_ends_the_program_by_the_signal(data):
    read, write = os.pipe()
    os.close(read)
    texts = "free cash\n" * 5
    for ignored in (False, True):  # some launchers pass on SIGPIPE as ignored
        handler = signal.signal(signal.SIGPIPE, signal.SIG_IGN if ignored else signal.SIG_DFL)
        process = subprocess.Popen([NEOLOOM, "tokenize", "--tokenizer", data / "base", "--text", texts], env=environment(),
                                   stdin=subprocess.DEVNULL, stdout=write, stderr=subprocess.PIPE, restore_signals=False)
        signal.signal(signal.SIGPIPE, handler)
        assert process.communicate(timeout=60)[1] == b""
        assert process.returncode == -signal.SIGPIPE
    os.close(write)


def test_a_bare_start_needs_no_daemon_and_no_session_folder(tmp_path, data):
    """Open MPI makes a folder below TMPDIR when it starts, and fails where it cannot."""
    (tmp_path / "tmp").mkdir()
    for folder in (tmp_path / "tmp", "/proc/self"):
        ended = neoloom(0, "tokenize", "--tokenizer", data / "base", "--text", "free cash", TMPDIR=folder).expect(0)
        assert ended.err == ""
    assert not list((tmp_path / "tmp").iterdir())


def test_many_bare_starts_at_the_same_moment_all_work(data):
    command = [NEOLOOM, "tokenize", "--tokenizer", data / "base", "--text", "free cash"]
    running = [subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(12)]
    outputs = {(process.communicate(timeout=120), process.returncode) for process in running}
    assert len(outputs) == 1 and next(iter(outputs))[1] == 0, outputs
