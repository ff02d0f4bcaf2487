# SPDX-License-Identifier: Apache-2.0
"""cluster/local/mpirun.sh and cluster/slurm/train.sbatch, with a small MPI program in neoloom's place."""

import os
import pathlib
import pty
import signal
import subprocess
import time

import pytest

ROOT = pathlib.Path(os.environ["NEOLOOM_SOURCE_DIR"])
MPIRUN = ROOT / "cluster/local/mpirun.sh"
SBATCH = ROOT / "cluster/slurm/train.sbatch"


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    binary = tmp_path_factory.mktemp("ranks") / "signal_ranks"
    subprocess.run(["mpicc", "-O1", "-o", binary, ROOT / "tests/structure/signal_ranks.c"], check=True)
    return binary


def wait_for(path, text, count=1, seconds=30):
    deadline = time.monotonic() + seconds
    while path.read_text().count(text) < count:
        assert time.monotonic() < deadline, f"{text!r} did not come:\n{path.read_text()}"
        time.sleep(0.05)


def start(command, log, **options):
    # Python's children get default signal handlers; background jobs of a shell would ignore INT.
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log.open("w"), stderr=subprocess.STDOUT, **options)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP])
def test_a_stop_signal_lets_every_rank_save(program, tmp_path, number):
    log = tmp_path / "log"
    process = start([MPIRUN, "-np", "3", program], log)
    wait_for(log, "started", 3)
    process.send_signal(number)
    assert process.wait(30) == 75, log.read_text()
    assert log.read_text().count(f"saved after signal {signal.SIGUSR2.value}") == 3


def test_ctrl_c_on_a_terminal_lets_every_rank_save(program, tmp_path):
    log = tmp_path / "log"
    log.touch()
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(MPIRUN, [str(MPIRUN), "-np", "2", "bash", "-c", f"exec {program} >> {log}"])
    wait_for(log, "started", 2)
    os.write(terminal, b"\x03")
    wait_for(log, "saved", 2)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 75
    os.close(terminal)


def test_exit_codes_pass_through(program):
    for code in (0, 5):
        done = subprocess.run([MPIRUN, "-np", "2", program], env=os.environ | {"PLANNED_CODE": str(code)}, capture_output=True)
        assert done.returncode == code


def test_settings_from_outside_win(tmp_path):
    command = ["-np", "1", "bash", "-c", "echo $OMPI_MCA_mpi_yield_when_idle $OMPI_MCA_oob_tcp_keepalive_time"]
    output = subprocess.run([MPIRUN, *command], env=os.environ | {"OMPI_MCA_mpi_yield_when_idle": "0"}, capture_output=True, text=True)
    assert output.stdout.split() == ["0", "5"]


@pytest.fixture
def job(program, tmp_path):
    """A checkout with the program in neoloom's place, and a scontrol that writes down what it is asked."""
    (tmp_path / "build").mkdir()
    (tmp_path / "cluster").symlink_to(ROOT / "cluster")
    (tmp_path / "build/neoloom").symlink_to(program)
    (tmp_path / "bin").mkdir()
    scontrol = tmp_path / "bin/scontrol"
    scontrol.write_text(f"#!/bin/sh\necho scontrol $* >> {tmp_path}/asked\n")
    scontrol.chmod(0o755)
    (tmp_path / "asked").touch()

    def run(log, **variables):
        environment = os.environ | {
            "PATH": f"{tmp_path}/bin:{os.environ['PATH']}", "SLURM_SUBMIT_DIR": str(tmp_path), "SLURM_JOB_ID": "17",
            "NEOLOOM_RESTART_PAUSE_SECONDS": "0", "OMPI_MCA_plm": "isolated",
        } | variables
        return start(["bash", SBATCH, "run.yaml"], log, env=environment, cwd=tmp_path)

    return run, tmp_path


def test_the_warning_before_the_time_limit_saves_and_requeues(job):
    run, folder = job
    log = folder / "log"
    process = run(log)
    wait_for(log, "started")
    process.send_signal(signal.SIGUSR2)
    assert process.wait(30) == 0
    assert "saved" in log.read_text()
    assert (folder / "asked").read_text() == "scontrol requeue 17\n"


def test_requeues_are_bounded(job):
    run, folder = job
    process = run(folder / "log", PLANNED_CODE="75", SLURM_RESTART_COUNT="3", NEOLOOM_MAX_REQUEUES="3")
    assert process.wait(30) == 75
    assert (folder / "asked").read_text() == ""


def test_a_lost_peer_restarts_inside_the_allocation_first(job):
    run, folder = job
    process = run(folder / "log", PLANNED_CODE="6", NEOLOOM_MAX_RESTARTS="1")
    assert process.wait(60) == 0
    log = (folder / "log").read_text()
    ranks = log.count("started")
    assert ranks % 2 == 0 and log.count("inside the allocation") == 1
    assert (folder / "asked").read_text() == "scontrol requeue 17\n"


def test_errors_that_a_restart_does_not_cure_end_the_job(job):
    run, folder = job
    process = run(folder / "log", PLANNED_CODE="3")
    assert process.wait(30) == 3
    assert (folder / "asked").read_text() == ""


@pytest.mark.parametrize("script", sorted(str(p.relative_to(ROOT)) for p in [*ROOT.glob("cluster/**/*.sh"), *ROOT.glob("cluster/**/*.sbatch"), *ROOT.glob("tests/*.sh"), *ROOT.glob("launch/*.sh")]))
def test_scripts_parse(script):
    subprocess.run(["bash", "-n", ROOT / script], check=True)
