# SPDX-License-Identifier: Apache-2.0
"""Talks to build/optim_tool and build/metrics_tool, which stay up for all tests of a file: a start loads LibTorch."""

import json
import os
import subprocess

import pytest


class Tool:
    def __init__(self, name):
        program = os.path.join(os.environ.get("NEOLOOM_BUILD_DIR", "build"), name)
        self.process = subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, **request):
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        assert "error" not in answer, answer["error"]
        return answer

    def close(self):
        self.process.stdin.close()
        assert self.process.wait(timeout=60) == 0


@pytest.fixture(scope="module")
def tool():
    running = Tool("optim_tool")
    yield running
    running.close()


@pytest.fixture(scope="module")
def metrics_tool():
    running = Tool("metrics_tool")
    yield running
    running.close()
