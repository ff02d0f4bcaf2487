# SPDX-License-Identifier: Apache-2.0
"""Runs tests/e2e/test_gpu.py in several pytest processes at a time: its tests start tiny runs, which leave a GPU idle.

    python3 tests/bench/gpu_tests.py [ARGUMENT...]    arguments go to every pytest
"""

import subprocess
import sys
import threading
from pathlib import Path

FILE = Path(__file__).resolve().parents[1] / "e2e" / "test_gpu.py"
CASES = ("classification-bfloat16", "causal_lm-bfloat16", "classification-float16", "causal_lm-float16", "causal_lm-float32")
NO_TESTS = 5  # exit code of pytest


def groups():
    """Returns what -k selects for each process: the tests of one case, which share a run, or those of none."""
    return [*CASES, f"not ({' or '.join(CASES)})"]


def start(group, arguments):
    command = [sys.executable, "-m", "pytest", "-v", "-rsf", "--tb=short", "--no-header", "-p", "no:cacheprovider", "-k", group,
               *arguments, str(FILE)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def relay(process):
    for line in process.stdout:
        sys.stdout.write(line)  # one call, so that lines stay whole
        sys.stdout.flush()


def main():
    processes = [start(group, sys.argv[1:]) for group in groups()]
    threads = [threading.Thread(target=relay, args=[process]) for process in processes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    codes = [process.wait() for process in processes]
    return max((abs(code) for code in codes if code != NO_TESTS), default=NO_TESTS)


if __name__ == "__main__":
    sys.exit(main())
