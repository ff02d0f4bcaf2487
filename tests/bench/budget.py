# SPDX-License-Identifier: Apache-2.0
"""Runs a command within a budget of seconds, and leaves no process of it behind."""

import contextlib
import os
import signal
import subprocess
import time
from dataclasses import dataclass

GRACE_SECONDS = 1.0  # between asking the processes to end and ending them


@dataclass
class Ended:
    code: int
    seconds: float
    overran: bool  # it was ended, its budget being used up


def is_gone(process):
    """Whether no process is left of the group that `process` leads."""
    process.poll()
    try:
        os.killpg(process.pid, 0)
    except ProcessLookupError:
        return True
    return False


def end_group(process):
    """Ends all processes of the group that `process` leads, the process itself too."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if is_gone(process):
            break
        with contextlib.suppress(ProcessLookupError):  # the last one may end at this moment
            os.killpg(process.pid, number)
        until = time.monotonic() + GRACE_SECONDS
        while not is_gone(process) and time.monotonic() < until:
            time.sleep(0.01)
    process.wait()


def run(command, seconds, output, environment):
    """Writes standard output to `output` and errors beside it, as they come."""
    begin, overran = time.monotonic(), False
    with open(output, "wb") as out, open(output.with_suffix(".err"), "wb") as errors:
        process = subprocess.Popen(list(map(str, command)), stdin=subprocess.DEVNULL, stdout=out, stderr=errors,
                                   env=environment, start_new_session=True)
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            overran = True
        finally:
            end_group(process)
    return Ended(process.returncode, time.monotonic() - begin, overran)


class Budget:
    """Time for a list of items: says which still fit, keeping as much as the longest one has taken so far."""

    def __init__(self, seconds):
        self.end, self.longest, self.begun = time.monotonic() + seconds, 0.0, None

    def fits(self):
        now = time.monotonic()
        if self.begun is not None:
            self.longest = max(self.longest, now - self.begun)
        self.begun = now
        return now + self.longest <= self.end
