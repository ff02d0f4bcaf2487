# SPDX-License-Identifier: Apache-2.0
"""The benchmark's report and its refusals; nothing here is timed."""

import os
import pathlib
import subprocess
import sys

import pytest

BENCH = pathlib.Path(os.environ["NEOLOOM_SOURCE_DIR"]) / "tests" / "bench"
sys.path.insert(0, str(BENCH))

import report  # noqa: E402


def bench(*arguments, folder):
    command = [sys.executable, BENCH / "bench.py", *map(str, arguments), "--output", folder / "report"]
    return subprocess.run(command, capture_output=True, text=True)


def test_a_list_of_seconds_becomes_median_quartiles_and_range():
    assert report.spread([4.0, 1.0, 2.0, 3.0, 5.0]) == dict(median=3.0, p25=2.0, p75=4.0, min=1.0, max=5.0, n=5)
    assert report.spread([7.0]) == dict(median=7.0, p25=7.0, p75=7.0, min=7.0, max=7.0, n=1)


@pytest.mark.parametrize("value,cells", [(1.25, [">= 1.25", "met"]), (1.2, [">= 1.25", "missed"])])
def test_a_speed_is_held_against_its_target(value, cells):
    assert report.target_cells(value, 1.25) == cells


@pytest.mark.parametrize("value,cells", [(0.5, ["<= 0.500", "met"]), (0.6, ["<= 0.500", "missed"])])
def test_a_memory_is_held_against_its_target(value, cells):
    assert report.target_cells(value, 0.5, larger_is_better=False) == cells


def test_a_row_without_a_target_is_not_judged():
    assert report.target_cells(1.0, None) == ["", ""]


@pytest.mark.parametrize("value,text", [(0, "0"), (0.01234, "0.0123"), (0.1234, "0.123"), (1.234, "1.23"), (12.34, "12.3"), (1234.5, "1234")])
def test_figures_have_three_digits(value, text):
    assert report.figure(value) == text


def test_a_table_has_one_row_a_line():
    assert report.table(["a", "b"], [[1, 2]]) == "| a | b |\n| --- | --- |\n| 1 | 2 |"


@pytest.mark.parametrize("arguments,words", [
    (["epoch"], "--data FOLDER"),
    (["epoch", "--sets", "poems"], "no data set poems"),
    (["stepps"], "no section stepps"),
    (["epoch", "--data", "nowhere"], "nowhere is no folder"),
    (["--only", "poems,novels", "steps"], "no row's name contains poems or novels"),
], ids=["no data", "unknown set", "unknown section", "missing folder", "no such row"])
def test_what_cannot_be_measured_is_refused_with_its_reason(arguments, words, tmp_path):
    done = bench(*arguments, folder=tmp_path)
    assert done.returncode == 2, done.stderr
    assert words in done.stderr
    assert not (tmp_path / "report.md").exists()


def test_data_of_another_shape_is_named(tmp_path):
    done = bench("epoch", "--sets", "spam", "--data", tmp_path, folder=tmp_path)
    assert done.returncode == 2
    assert f"{tmp_path}/classification/sms_spam is missing" in done.stderr


def test_the_one_command_explains_itself():
    done = subprocess.run(["bash", BENCH / "run.sh", "--help"], capture_output=True, text=True)
    assert done.returncode == 0
    for section in ("steps", "epoch", "micro", "growth", "start", "data", "instructions"):
        assert section in done.stdout
