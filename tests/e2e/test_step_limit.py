# SPDX-License-Identifier: Apache-2.0
"""How near a run was to the limit that its GEMMs set: unknown until `plan --measure` has measured their rates."""

import json
import re

from common import Run, make_config, neoloom

ADVICE = "unknown (neoloom plan --measure measures it)"


def plan(run, *arguments):
    ended = neoloom(0, "plan", "--config", run.config_file, "--ranks", 2, *arguments).expect(0)
    return {line[:24].strip(): line[24:] for line in ended.out.splitlines()}, ended


def train(folder, config, share):
    """Returns the finished run, its log and its run_end. `share`: what the log says of it."""
    run = Run(folder, config)
    ended = run.train(2).expect(0)
    assert re.search(rf"^share of the limit: {share}", ended.err, re.M), ended.err
    return run, ended.err, run.events("run_end")[-1]


def test_a_plan_measures_once_and_runs_use_it(tmp_path, data):
    rates = tmp_path / "cache" / "gemm-rates.json"
    config = make_config("classification", data, tmp_path / "cache")
    before = Run(tmp_path / "planned", config)

    assert plan(before)[0]["expected time"] == ADVICE
    unmeasured, _, end = train(tmp_path / "unmeasured", config, re.escape(ADVICE))
    assert end["share_of_limit"] is None and "gemm_rates" not in end
    assert not rates.exists(), "only plan --measure measures"

    measured, ended = plan(before, "--measure")
    assert "measuring the GEMMs of this configuration" in ended.err
    assert re.match(r"more than .+: GEMMs take \d+\.\d ms of a step, which allows \d+ tokens/s$", measured["expected time"])
    assert re.search(r" GFLOP/s a rank on average, measured \d{4}-\d\d-\d\d on .+ with 1 thread$", measured["GEMM rates"])
    written = rates.read_bytes()
    again, _ = plan(before)
    assert {name: again[name] for name in ("expected time", "GEMM rates")} == \
        {name: measured[name] for name in ("expected time", "GEMM rates")}

    run, _, end = train(tmp_path / "measured", config, r"\d+ % \(GEMM rates measured ")
    # This checks no timing: overhead makes the share of this tiny model small. The bound only catches wrong units.
    assert 0.0 < end["share_of_limit"] < 1.5
    assert measured["GEMM rates"].endswith(end["gemm_rates"])
    assert rates.read_bytes() == written, "a run measures nothing"
    assert run.state() == unmeasured.state(), "the measure changes no bit"


def test_a_damaged_file_of_rates_is_ignored_and_made_again(tmp_path, data):
    rates = tmp_path / "cache" / "gemm-rates.json"
    rates.parent.mkdir()
    rates.write_text('{"format": 1, "rates": ')
    config = make_config("causal_lm", data, tmp_path / "cache")
    _, log, end = train(tmp_path / "run", config, re.escape(ADVICE))
    assert log.count("GEMM rates are ignored") == 1 and str(rates) in log
    assert end["share_of_limit"] is None

    lines, ended = plan(Run(tmp_path / "planned", config), "--measure")
    assert "GEMM rates are ignored" in ended.err and lines["expected time"].startswith("more than ")
    assert json.loads(rates.read_text())["format"] == 1
