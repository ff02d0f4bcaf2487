# SPDX-License-Identifier: Apache-2.0
"""Tells how a job ended. If its ranks end within MPI_Finalize, Debian's mpirun 4.1.4 itself sometimes crashes or hangs."""

import os
import signal
import subprocess

MPIRUN_FAILED = "mpirun failed by itself"


def outcome(process, mpirun, within_finalize, seconds):
    """Returns (exit code, stdout, stderr) of a started job. `mpirun` finds its pid. A mpirun that crashed in its PMIx
    server, or still runs after `seconds`, counts as MPIRUN_FAILED, but only for a job that ends within MPI_Finalize."""
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        if not within_finalize:
            raise
        os.kill(mpirun(), signal.SIGKILL)
        return (MPIRUN_FAILED, *process.communicate(timeout=60))
    crashed = process.returncode in (-signal.SIGSEGV, 128 + signal.SIGSEGV) and "PMIx_server_finalize" in err
    return (MPIRUN_FAILED if within_finalize and crashed else process.returncode), out, err
