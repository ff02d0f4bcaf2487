# SPDX-License-Identifier: Apache-2.0
"""Runs the build's model_files_tool: one JSON request in, one JSON answer out."""

import json
import os
import subprocess
from pathlib import Path

BUILD = Path(os.environ.get("NEOLOOM_BUILD_DIR", Path(__file__).resolve().parents[2] / "build"))


class Refused(Exception):
    """The tool ended with an error; `code` is its exit code."""

    def __init__(self, code, text):
        super().__init__(text)
        self.code = code


def call(op, **request):
    """Returns the answer, or raises Refused."""
    done = subprocess.run(
        [BUILD / "model_files_tool"],
        input=json.dumps({"op": op, **{key: _plain(value) for key, value in request.items()}}),
        capture_output=True,
        text=True,
        timeout=300,
    )
    if done.returncode != 0:
        raise Refused(done.returncode, done.stderr)
    return json.loads(done.stdout)


def _plain(value):
    return str(value) if isinstance(value, Path) else value
