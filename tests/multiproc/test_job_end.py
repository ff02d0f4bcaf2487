# SPDX-License-Identifier: Apache-2.0
"""A job ends without hanging (Launcher.run waits for a limited time), with the code of what went wrong, and with
one message."""
import os
import signal

import pytest


def test_error_of_one_rank_ends_its_waiting_peers_with_its_code(job):
    ended = job.run(3, "fail_on_one_rank")
    assert ended.code == 4, ended.err
    assert "error: rank 1: this rank's file is gone" in ended.err


def test_error_that_all_ranks_have_is_printed_once_without_an_abort(job):
    ended = job.run(3, "fail_together")
    assert ended.code == 5, ended.err
    assert ended.err.count("none of 3 checkpoints is valid") == 1
    assert "MPI_ABORT" not in ended.err


def test_stopped_rank_is_noticed_by_the_watchdogs_of_its_peers(job):
    ended = job.run(2, "hang_one_rank")
    assert ended.code == 6, ended.err
    assert "waited more than 1.0 s in 'gradient sum' at step 12" in ended.err
    assert "rank 0 on " in ended.err


def test_killed_rank_ends_the_job(job):
    ended = job.run(2, "die_on_one_rank")
    assert ended.code == 137, ended.err


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGUSR2])
def test_signal_to_mpirun_stops_all_ranks_at_one_step_with_the_code_for_resume(job, number):
    running = job.start(2, "stop_on_signal")
    assert running.stdout.readline().strip() == "running"
    os.kill(running.pid, number)
    _, err = running.communicate(timeout=30)
    assert running.returncode == 75, err


def test_job_without_mpirun_does_not_start_open_mpi(job):
    ended = job.alone("tell_of_mpi")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out == "not started\n", "alone, it costs time and a session folder"
    assert job.run(1, "tell_of_mpi").out == "started\n"


def test_ranks_that_mpirun_bound_to_single_cores_by_default_get_all_cores_back(job):
    allowed = len(os.sched_getaffinity(0))
    if allowed < 2:
        pytest.skip("needs two cores to tell")
    ended = job.run(2, "show_cores", bind=())
    assert ended.out.split("\n")[:2] == [f"cores {allowed}"] * 2, ended.err


def test_binding_that_the_user_asked_for_stays(job, monkeypatch):
    monkeypatch.setenv("OMPI_MCA_hwloc_base_binding_policy", "none")  # as cluster/local/mpirun.sh does
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("needs two cores to tell")
    ended = job.run(2, "show_cores", bind=("--bind-to", "core"))
    assert ended.out.split("\n")[:2] == ["cores 1"] * 2, ended.err
