# SPDX-License-Identifier: Apache-2.0
"""tests/README.md: every capability that is done names tests that exist and that ctest runs."""

import os
import re
from pathlib import Path

import pytest

SOURCE = Path(os.environ.get("NEOLOOM_SOURCE_DIR", Path(__file__).resolve().parents[2]))
PAGE = SOURCE / "tests/README.md"
STATES = ("done", "partly", "open")


def table():
    """Returns (capability, state, cell of tests) of each row of the page's table."""
    rows = [[cell.strip() for cell in line.strip("|").split(" | ")]
            for line in PAGE.read_text().splitlines() if re.match(r"\| \d+ \| ", line)]
    assert all(len(row) == 4 for row in rows), [row for row in rows if len(row) != 4]
    return [(int(number), *rest) for number, *rest in rows]


def registered():
    """Returns the names that ctest knows, and the pytest files that it runs."""
    names, files = set(), set()
    for lists in (SOURCE / "tests").rglob("CMakeLists.txt"):
        text = lists.read_text()
        for name, file, label in re.findall(r"^neoloom_pytest\((\S+) (\S+) (\w+)", text, re.M):
            names.add(f"{label}.{name}")
            files.add(str((lists.parent / file).relative_to(SOURCE / "tests")))
        names |= {f"unit.{room}" for room in re.findall(r"^neoloom_unit_test\((\w+)", text, re.M)}
        names |= {f"multiproc.{name}" for name in re.findall(r"^neoloom_mpi_test\((\w+)", text, re.M)}
        names |= set(re.findall(r"add_test\(NAME ([a-z._]+) ", text))
    return names, files


def problems(rows, names, files):
    """Says what is wrong with the rows."""
    found = []
    for number, _, state, tests in rows:
        if state not in STATES:
            found.append(f"row {number}: state {state!r}")
        quoted = re.findall(r"`([^`]+)`", tests)
        if state != "open" and not quoted:
            found.append(f"row {number} is {state} and names no test")
        for name in quoted:
            known = name in files if name.endswith(".py") else name in names
            if not known or (name.endswith(".py") and not (SOURCE / "tests" / name).is_file()):
                found.append(f"row {number}: ctest does not run {name}")
    return found


def test_every_test_that_the_page_names_is_run():
    names, files = registered()
    assert len(names) > 40 and len(files) > 40
    rows = table()
    assert rows and [row[0] for row in rows] == list(range(1, len(rows) + 1))
    assert problems(rows, names, files) == []


@pytest.mark.parametrize("row, words", (
    ((1, "x", "done", "`e2e/test_never_written.py`"), "does not run e2e/test_never_written.py"),
    ((1, "x", "done", "`unit.nothing`"), "does not run unit.nothing"),
    ((1, "x", "done", ""), "names no test"),
    ((1, "x", "almost", "`unit.optim`"), "state 'almost'"),
))
def test_a_wrong_row_is_told(row, words):
    (problem,) = problems([row], *registered())
    assert words in problem
