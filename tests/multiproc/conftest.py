# SPDX-License-Identifier: Apache-2.0
"""Starts small jobs under mpirun, with what a test machine needs: root allowed, more ranks than cores, no binding."""
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

BUILD = Path(os.environ["NEOLOOM_BUILD_DIR"])
MPI_ENVIRONMENT = {
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
}


@dataclass
class Ended:
    code: int
    out: str
    err: str


class Launcher:
    def command(self, ranks, mode, bind=("--bind-to", "none"), exported=None):
        # -x reaches the ranks only: a library preloaded into them must not be preloaded into mpirun.
        export = [word for name, value in (exported or {}).items() for word in ("-x", f"{name}={value}")]
        return ["mpirun", "-np", str(ranks), "--oversubscribe", *bind, *export, str(BUILD / "mpi_job"), mode]

    def environment(self):
        return {**os.environ, **MPI_ENVIRONMENT}

    def run(self, ranks, mode, timeout=120, bind=("--bind-to", "none"), exported=None):
        done = subprocess.run(self.command(ranks, mode, bind, exported), env=self.environment(), capture_output=True,
                              text=True, timeout=timeout)
        return Ended(done.returncode, done.stdout, done.stderr)

    def alone(self, mode):
        done = subprocess.run([str(BUILD / "mpi_job"), mode], capture_output=True, text=True, timeout=120)
        return Ended(done.returncode, done.stdout, done.stderr)

    def start(self, ranks, mode):
        return subprocess.Popen(self.command(ranks, mode), env=self.environment(), stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, text=True)


@pytest.fixture
def job():
    return Launcher()


@pytest.fixture(scope="session")
def build():
    return BUILD


@pytest.fixture(scope="session")
def job_environment():
    return Launcher().environment()
