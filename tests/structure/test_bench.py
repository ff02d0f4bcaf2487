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
import sides  # noqa: E402
import steps  # noqa: E402


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


class TimedSide:
    """Answers like sides.Side, with seconds from a list; None: no answer in time."""

    def __init__(self, seconds):
        self.seconds, self.ended, self.process, self.asked = list(seconds), False, self, 0

    def ask(self, word, seconds=None):
        self.asked += 1
        taken = self.seconds.pop(0)
        if taken is None or taken > seconds:
            self.close()
            raise sides.SideSlow("no answer")
        return dict(seconds=taken)

    def end(self):
        self.close()
        return dict(peak_kib=2**20, mapped_kib=2**19)

    def poll(self):
        return 0 if self.ended else None

    def close(self):
        self.ended = True


def test_sides_take_their_steps_in_turns_after_the_warm_up():
    both = dict(here=TimedSide([9, 1, 2, 3]), there=TimedSide([9, 4, 5, 6]))
    found = sides.in_turns(both, steps=3, warmup=1)
    assert found["here"]["seconds"]["median"] == 2 and found["there"]["seconds"]["median"] == 5
    assert found["here"]["private_gib"] == 0.5


def test_a_slow_side_does_not_repeat_its_step():
    both = dict(here=TimedSide([1] * 9), there=TimedSide([70, 70, 70]))
    found = sides.in_turns(both, steps=6, warmup=3)
    assert found["here"]["seconds"]["n"] == 6
    assert found["there"]["seconds"]["n"] == 1 and both["there"].asked == 2


def test_a_side_without_an_answer_is_ended_and_the_others_go_on():
    both = dict(here=TimedSide([1] * 5), there=TimedSide([1, None]))
    found = sides.in_turns(both, steps=4, warmup=1)
    assert found["here"]["seconds"]["n"] == 4
    assert found["there"] == dict(at_least_seconds=sides.STEP_SECONDS)


def test_equally_slow_sides_both_take_all_steps():
    both = dict(here=TimedSide([30] * 5), there=TimedSide([60] * 5))
    found = sides.in_turns(both, steps=4, warmup=1)
    assert found["here"]["seconds"]["n"] == found["there"]["seconds"]["n"] == 4


def test_no_process_is_left_when_a_side_fails():
    both = dict(here=TimedSide([1, 1]), there=TimedSide([]))
    with pytest.raises(IndexError):
        sides.in_turns(both, steps=1, warmup=0)
    assert both["here"].ended and both["there"].ended


def test_a_real_process_that_does_not_answer_is_killed(tmp_path):
    side = sides.Side(["bash", "-c", "echo ready; read word; sleep 600"], 1, tmp_path / "errors.txt")
    with pytest.raises(sides.SideSlow):
        side.ask("step 1", seconds=0.1)
    assert side.process.poll() is not None


LOSSES = {"fp32": [1.0, 0.9, 0.8], "near": [1.01, 0.9, 0.81], "far": [1.2, 1.1, 0.9], "farther": [1.3, 1.2, 0.8], "flat": [1.0, 1.0, 1.0]}


@pytest.mark.parametrize("here,there,fails", [("near", "near", False), ("far", "farther", False), ("farther", "far", True),
                                              ("near", "far", False), ("far", "near", True),
                                              ("flat", "near", True)])
def test_sixteen_bit_losses_fail_only_where_neoloom_is_the_farther_one(here, there, fails, monkeypatch):
    row = steps.Row("bf16", "single_label", "bfloat16", 8, 128, 1.0)
    monkeypatch.setattr(steps, "fp32_losses", lambda context, row: LOSSES["fp32"])
    result = dict(loss=dict(neoloom=LOSSES[here], eager=LOSSES[there]))
    if fails:
        with pytest.raises(sides.SideFailed):
            steps.judge_losses(None, row, result, "eager")
    else:
        steps.judge_losses(None, row, result, "eager")
        assert result["loss_distance"]["reference"] == 1.0


def test_fp32_losses_are_compared_with_the_other_side():
    row = steps.Row("fp32", "single_label", "float32", 8, 128, 1.0)
    with pytest.raises(sides.SideFailed):
        steps.judge_losses(None, row, dict(loss=dict(neoloom=LOSSES["near"], eager=LOSSES["fp32"])), "eager")


def test_a_side_that_does_not_learn_is_far_away_though_its_losses_are_near():
    assert sides.distance([1.0, 1.0, 1.0], [1.0, 0.999, 0.998]) == pytest.approx(1.0)
    assert sides.distance([1.0, 0.9], [1.0, 0.9]) == 0.0


def side(seconds, **more):
    return dict(seconds=report.spread([seconds]), peak_gib=1.0, private_gib=0.5, tokens_per_s=1024 / seconds) | more


def test_a_row_that_fails_leaves_the_others_in_the_report(monkeypatch):
    good, bad = steps.ROWS[:2]
    found = dict(neoloom=side(2.0, share_of_limit=0.8), eager=side(4.0, ratio=2.0, extra=dict(versions=dict(torch="2.11"))),
                 loss_distance=dict(reference=1.0, neoloom=1e-4))

    def measure(context, row):
        if row is bad:
            raise sides.SideFailed("it ended")
        return found

    class Context:
        steps, warmup, threads, hf, newest = 1, 0, 2, [], None
        chosen = staticmethod(lambda rows: [good, bad])
        say = staticmethod(lambda text: None)

    monkeypatch.setattr(steps, "measure", measure)
    section = steps.run(Context)
    text = section.markdown()
    assert section.failed
    assert f"FAILED: {bad.name}" in text and "it ended" in text
    assert f"| {good.name} | 512 (1 step) | 80 % | 256 (1 step) | 2.00 |" in text
