# SPDX-License-Identifier: Apache-2.0
"""A rank that is stopped where its peers wait for it, in each phase of a small job; work that only takes long; hosts that
do not reach each other. The jobs run beside each other: most of their time is waiting."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
import hosts  # noqa: E402
from mpirun_end import MPIRUN_FAILED, outcome  # noqa: E402

HOST = socket.gethostname()
# In the first two the timeout comes from the environment, because no configuration is read yet.
STOPPED = [(1, "start", "MPI_Init"), (0, "start", "MPI_Init"), (2, "building a cache", None), (0, "building a cache", None),
           (1, "uneven work", None), (0, "sums", None), (2, "the end of the run", None), (0, "the end of the run", None),
           (1, "MPI_Finalize", None), (0, "MPI_Finalize", None)]


def errors(text):
    return [line for line in text.splitlines() if line.startswith("neoloom: error: ")]


def suspend(mpirun, seconds):
    """Stops all ranks of a job for some seconds."""
    deadline = time.monotonic() + 30
    ranks = []
    while len(ranks) < 3:
        assert time.monotonic() < deadline, "no ranks"
        time.sleep(0.1)
        ranks = [int(pid) for pid in Path(f"/proc/{mpirun}/task/{mpirun}/children").read_text().split()]
    time.sleep(1)
    for number in (signal.SIGSTOP, signal.SIGCONT):
        for pid in ranks:
            os.kill(pid, number)
        if number == signal.SIGSTOP:
            time.sleep(seconds)


@pytest.fixture(scope="module")
def ended(job_environment, build):
    def start(ranks, *words):
        return subprocess.Popen(["mpirun", "-np", str(ranks), "--oversubscribe", "--bind-to", "none", build / "mpi_job", *words],
                                env={**job_environment, "NEOLOOM_PEER_TIMEOUT_SECONDS": "5"}, stdin=subprocess.DEVNULL,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    running = {(rank, phase): start(3, "pass_phases", str(rank), phase) for rank, phase, _ in STOPPED}
    running["undisturbed"] = start(3, "pass_phases")
    running["hung"] = start(2, "work_for_ever")
    running["suspended"] = start(3, "pass_phases")
    suspend(running["suspended"].pid, seconds=5)
    return {name: outcome(process, lambda p=process: p.pid, "MPI_Finalize" in name, seconds=100)
            for name, process in running.items()}


@pytest.mark.parametrize("rank, phase, where", STOPPED)
def test_stopped_rank_is_named_by_one_of_those_that_wait_for_it(ended, rank, phase, where):
    code, _, err = ended[rank, phase]
    assert code in (6, MPIRUN_FAILED), err
    (message,) = errors(err)
    assert f"rank {rank} on {HOST} is missing" in message or f"rank {rank} is missing" in message
    told_by = int(re.match(r"neoloom: error: rank (\d) on " + HOST, message)[1])
    assert told_by != rank
    assert f"waited more than {'5.0' if where else '2.0' if phase == 'MPI_Finalize' else '1.0'} s in '" in message
    if where:
        assert f"in '{where}'" in message


def test_ranks_that_work_for_longer_than_the_timeout_are_waited_for(ended):
    code, out, err = ended["undisturbed"]
    assert (code, out, errors(err)) == (0, "passed\n", [])


def test_time_in_which_the_whole_job_was_suspended_does_not_count(ended):
    code, out, err = ended["suspended"]
    assert (code, out, errors(err)) == (0, "passed\n", [])


def test_rank_that_lives_but_does_not_come_is_named_with_what_it_does(ended):
    code, _, err = ended["hung"]
    assert code == 6, err
    (message,) = errors(err)
    assert f"rank 1 on {HOST} is alive but late: it is still in 'a long sum'" in message
    assert "runtime.peer_timeout_seconds" in message


def test_hosts_that_do_not_reach_each_other_end_the_job_with_a_word_about_networks(tmp_path, job_environment, build):
    if reason := hosts.why_not():
        pytest.skip(reason)
    with hosts.Hosts(tmp_path) as two:
        places = ",".join(f"{address}:1" for address in two.addresses)
        command = ["mpirun", "--host", places, "-np", "2", "-x", "NEOLOOM_PEER_TIMEOUT_SECONDS", build / "mpi_job", "pass_phases"]
        done = subprocess.run(two.command("head", *command), capture_output=True, text=True, timeout=60,
                              env={**job_environment, **two.mpi, "NEOLOOM_PEER_TIMEOUT_SECONDS": "4"})
    assert done.returncode == 6, done.stderr
    (message,) = errors(done.stderr)
    assert f"rank 0 on {two.names[0]} waited more than 4.0 s in 'the first message between ranks': rank 1 is missing" in message
    assert "none since the job started" in message
    assert "btl_tcp_if_include" in message


def test_timeout_of_the_environment_that_is_no_number_is_refused(job_environment, build):
    done = subprocess.run([build / "mpi_job", "count_bytes"], capture_output=True, text=True, timeout=40,
                          env={**os.environ, "NEOLOOM_PEER_TIMEOUT_SECONDS": "5m"})
    assert done.returncode == 2, done.stderr
    assert "NEOLOOM_PEER_TIMEOUT_SECONDS: expected a number of seconds above 0, found '5m'" in done.stderr
