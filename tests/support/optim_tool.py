# SPDX-License-Identifier: Apache-2.0
"""Talks to build/optim_tool, which stays up for all tests of a file: starting it loads LibTorch."""

import json
import os
import subprocess

import pytest


class OptimTool:
    def __init__(self):
        program = os.path.join(os.environ.get("NEOLOOM_BUILD_DIR", "build"), "optim_tool")
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
    running = OptimTool()
    yield running
    running.close()
