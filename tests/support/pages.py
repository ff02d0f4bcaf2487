# SPDX-License-Identifier: Apache-2.0
"""The pages, the commands in their blocks, and the list of those that no test runs."""

import fnmatch
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

ROOT = Path(__file__).resolve().parents[2]

# Commands as fnmatch has them, without their comment: why tests/e2e/test_pages.py leaves them out.
NOT_RUN = {
    "bash cluster/bootstrap/bootstrap.sh*": "installs packages; structure/test_bootstrap.py runs what needs no network",
    "cmake --preset *": "builds neoloom, as tests/run.sh does before the tests",
    "cmake --workflow *": "builds neoloom and runs all tests",
    "cmake --build *": "formats the sources; structure/test_tree.py looks at their format",
    "ctest *": "runs tests that are run anyway",
    "bash tests/run.sh*": "runs all tests, this one too",
    "bash launch/quickstart.sh": "sets up, builds and trains for 8 minutes; run before a release",
    "bash cluster/bootstrap/bundle.sh --cuda *": "packs the 3 GB of CUDA's libraries",
    "tar xzf neoloom-cuda.tar.gz": "needs the bundle for GPUs",
    "podman *": "builds or starts an image; structure/test_bundle.py compares the recipes",
    "apptainer *": "the same",
    "mpirun -np 2 apptainer *": "the same",
    "mpirun -np 1 RUN *": "needs a debug build and gdb",
    "NEOLOOM_FAULT=pause*": "the same",
    "gdb *": "the same",
    "bash tests/bench/run.sh": "measures on an idle machine",
    "bash tests/bench/run.sh steps *": "the same; structure/test_bench.py runs what is not timed",
    "bash tests/bench/run.sh quality *": "trains for hours",
    "bash tests/bench/run.sh gpu_*": "needs a GPU; structure/test_gpu_report.py rehearses it",
    "for part in neoloom-gpu-*": "needs the parts of gpu_bundle; structure/test_gpu_report.py unpacks some",
    "bash neoloom-gpu/*": "needs a GPU",
    "build/*_probe *": "built with -DNL_BUILD_BENCH=ON only; unit.probes checks their cases",
    "python3 tests/bench/soak.py *": "trains 10,000 steps",
}
# How blocks begin that hold something else. YAML and output are told by a first word with a colon at its end.
NO_COMMANDS = ("launch/            the program", "Below is an instruction", "### User:", "config = GPTNeoConfig(")
PYTHON, OTHERS = ("python",), ("json", "yaml", "text")  # languages of fenced blocks; all others are shells


@dataclass
class Block:
    """A block of commands, which share one shell. Python is one command."""

    python: bool
    commands: list


def tracked():
    """Returns the pages of this checkout, as paths from its root."""
    listed = subprocess.run(["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"], cwd=ROOT,
                            capture_output=True, text=True)
    if listed.returncode != 0:  # not a checkout
        pytest.skip("not a git checkout: which pages belong to it is unknown", allow_module_level=True)
    return listed.stdout.splitlines()


def blocks(page):
    """Returns the blocks of a page that hold commands or Python."""
    found = []
    for token in MarkdownIt().parse((ROOT / page).read_text()):
        text, first = token.content, token.content.split(None, 1)[:1]
        if token.type not in ("fence", "code_block") or text.startswith(NO_COMMANDS):
            continue
        if token.info in PYTHON or (token.type == "code_block" and first in (["import"], ["from"])):
            found.append(Block(True, [text]))
        elif token.info not in OTHERS and not first[0].endswith(":"):
            found.append(Block(False, split(text)))
    return found


def split(text):
    """Returns the commands of a block: a line, with what a backslash or a here-document adds to it."""
    pattern = r".*<<'?(\w+)'?\n(?:.*\n)*?\1\n|(?:.*\\\n)*.+\n"
    return [match[0] for match in re.finditer(pattern, text)]


def pattern_that_leaves_out(command):
    """Returns the key of NOT_RUN that a command matches, or None."""
    bare = re.sub(r"\s+#.*", "", command).strip()
    return next((pattern for pattern in NOT_RUN if fnmatch.fnmatchcase(bare, pattern)), None)
