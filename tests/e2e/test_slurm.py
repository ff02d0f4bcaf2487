# SPDX-License-Identifier: Apache-2.0
"""cluster/slurm/train.sbatch under real Slurm daemons of its own on this host; skipped where Slurm is not installed."""

import os
import re
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest
from common import NEOLOOM, SOURCE, Run, make_config

SBATCH = SOURCE / "cluster/slurm/train.sbatch"
PATH = f"{os.environ['PATH']}:/usr/sbin"
HOST = socket.gethostname().split(".")[0]
TOOLS = ("slurmctld", "slurmd", "sbatch", "scancel", "scontrol", "sinfo")
# One node, no munge, no accounting, no control groups. A requeued job waits for cred_expire and the next sched_interval, seconds.
CONFIGURATION = """
ClusterName=neoloom
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={daemon_port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/none
CredType=cred/none
AuthInfo=cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
MpiDefault=none
SwitchType=switch/none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=sched_interval=1,sched_min_interval=0,batch_sched_delay=0
SlurmdParameters=config_overrides
CompleteWait=0
NodeName={host} NodeAddr=127.0.0.1 CPUs=4 State=UNKNOWN
PartitionName=test Nodes=ALL Default=YES MaxTime=60 State=UP
"""


def free_ports(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def until(condition, seconds):
    """Waits for the condition. Returns False when it did not come true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


class Slurm:
    def __init__(self, folder):
        self.folder = folder
        self.daemons = []
        self.environment = {**os.environ, "PATH": PATH, "SLURM_CONF": str(folder / "slurm.conf"), "OMP_NUM_THREADS": "1"}
        controller_port, daemon_port = free_ports(2)
        for name in ("state", "spool"):
            (folder / name).mkdir()
        (folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")
        user = subprocess.check_output(["id", "-un"], text=True).strip()
        (folder / "slurm.conf").write_text(CONFIGURATION.format(
            host=HOST, user=user, folder=folder, controller_port=controller_port, daemon_port=daemon_port))

    def start(self):
        for name in ("slurmctld", "slurmd"):
            with open(self.folder / f"{name}.log", "w") as log:
                self.daemons.append(subprocess.Popen([shutil.which(name, path=PATH), "-D"], env=self.environment,
                                                     stdin=subprocess.DEVNULL, stdout=log, stderr=log))
        return until(lambda: self.ask("sinfo", "-h", "-o", "%T") == "idle", 20)

    def stop(self):
        self.ask("scancel", "--state=RUNNING,PENDING")
        until(lambda: self.ask("squeue", "-h") == "", 20)
        for daemon in reversed(self.daemons):
            daemon.send_signal(signal.SIGTERM)
            daemon.wait(20)

    def ask(self, *command):
        return subprocess.run(command, env=self.environment, capture_output=True, text=True).stdout.strip()

    def last_words(self):
        return " | ".join((self.folder / f"{name}.log").read_text().splitlines()[-1] for name in ("slurmctld", "slurmd"))

    def submit(self, run, *arguments, **variables):
        log = run.folder.parent / "log"
        job = self.ask("env", f"NEOLOOM_ROOT={SOURCE}", *(f"{k}={v}" for k, v in variables.items()), "sbatch", "--parsable",
                       "--ntasks=2", f"--output={log}", SBATCH, run.config_file, *arguments)
        assert job.isdigit(), "sbatch gave no job id"
        return job, log

    def outcome(self, job):
        """(state, restarts, exit code), e.g. ("COMPLETED", 1, "0:0")"""
        text = self.ask("scontrol", "--oneliner", "show", "job", job)
        found = {key: value for key, value in re.findall(r"(\w+)=(\S*)", text)}
        return found["JobState"], int(found["Restarts"]), found["ExitCode"]

    def wait(self, job, log, seconds=120):
        ended = until(lambda: self.outcome(job)[0] not in ("PENDING", "RUNNING", "COMPLETING"), seconds)
        assert ended, f"{self.outcome(job)}\n{log.read_text()}"
        return self.outcome(job)


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    missing = [name for name in TOOLS if shutil.which(name, path=PATH) is None]
    if missing:
        pytest.skip(f"no {', '.join(missing)} here (Debian: slurmctld slurmd slurm-client)")
    if Path(os.environ.get("NEOLOOM_BUILD_DIR", SOURCE / "build")) != SOURCE / "build":
        pytest.skip("train.sbatch starts build/neoloom of the checkout, and this build lies elsewhere")
    slurm = Slurm(tmp_path_factory.mktemp("slurm"))
    try:
        if not slurm.start():
            pytest.skip(f"Slurm's daemons do not come up here: {slurm.last_words()}")
        yield slurm
    finally:
        slurm.stop()


@pytest.fixture
def config(data, cache):
    return make_config("classification", data, cache)


def test_a_warned_job_saves_and_requeues_itself_and_ends_as_if_undisturbed(slurm, tmp_path, config):
    run, undisturbed = Run(tmp_path / "run", config), Run(tmp_path / "undisturbed", config)
    undisturbed.train(3).expect(0)
    job, log = slurm.submit(run, NEOLOOM_FAULT="slow:rank=-1:step=1")
    assert until(lambda: run.checkpoints(), 60), log.read_text()
    slurm.ask("scancel", "--batch", "--signal=USR2", job)
    assert slurm.wait(job, log) == ("COMPLETED", 1, "0:0"), log.read_text()
    assert len(run.events("resume")) == 1
    assert run.state() == undisturbed.state()


def test_a_wrong_configuration_fails_at_once_with_its_code(slurm, tmp_path, config):
    job, log = slurm.submit(Run(tmp_path / "run", config), "--set", "trainer_config.save_stepss=3")
    assert slurm.wait(job, log) == ("FAILED", 0, "2:0"), log.read_text()
    assert "did you mean save_steps?" in log.read_text()


def test_a_cancelled_job_stays_cancelled(slurm, tmp_path, config):
    run = Run(tmp_path / "run", config)
    job, log = slurm.submit(run, NEOLOOM_FAULT="slow:rank=-1:step=1")
    assert until(lambda: run.checkpoints(), 60), log.read_text()
    slurm.ask("scancel", job)
    assert slurm.wait(job, log)[:2] == ("CANCELLED", 0), log.read_text()


def test_a_job_that_slurm_requeues_goes_on_in_the_folder_that_its_killed_copy_had_locked(slurm, tmp_path, config):
    run, undisturbed = Run(tmp_path / "run", config), Run(tmp_path / "undisturbed", config)
    undisturbed.train(3).expect(0)
    job, log = slurm.submit(run, NEOLOOM_FAULT="slow:rank=-1:step=1")
    assert until(lambda: run.checkpoints(), 60), log.read_text()
    slurm.ask("scontrol", "requeue", job)
    assert slurm.wait(job, log) == ("COMPLETED", 1, "0:0"), log.read_text()
    assert run.state() == undisturbed.state()


def test_srun_without_a_launcher_does_not_train_twice_and_one_message_says_why(slurm, tmp_path, config):
    run = Run(tmp_path / "run", config)
    step = [NEOLOOM, "train", "--config", run.config_file]
    done = subprocess.run(["srun", "--ntasks=2", "--mpi=none", *step], env=slurm.environment, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("neoloom: error: srun started 2 tasks") == 1, done.stderr
    assert not run.folder.exists()
    # The same program as a world of one: in a step of one task, in a shell of salloc, in a batch script.
    for number, launch in enumerate((["srun", "--ntasks=1", "--mpi=none"], ["salloc", "--ntasks=2"])):
        alone = Run(tmp_path / f"alone{number}", config)
        done = subprocess.run([*launch, NEOLOOM, "train", "--config", alone.config_file], env=slurm.environment,
                              capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    batch = Run(tmp_path / "batch", config)
    script = tmp_path / "job.sh"
    script.write_text(f"#!/bin/bash\nexec {NEOLOOM} train --config {batch.config_file}\n")
    log = tmp_path / "batch.log"
    job = slurm.ask("sbatch", "--parsable", "--ntasks=2", f"--output={log}", str(script))
    assert slurm.wait(job, log) == ("COMPLETED", 0, "0:0"), log.read_text()
    # A command that needs no other ranks runs in every task.
    done = subprocess.run(["srun", "--ntasks=2", "--mpi=none", NEOLOOM, "checkpoint", "list", batch.folder],
                          env=slurm.environment, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.count("step-") + done.stdout.count("valid") >= 2, done.stderr
