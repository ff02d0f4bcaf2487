# SPDX-License-Identifier: Apache-2.0
"""What `train` says on standard error: four lines of what it will do, details and quiet on request, colours on terminals."""

import json
import re

import pytest
import terminal
from common import TOTAL_STEPS, Run, command, environment, make_config, merged, neoloom
from runs import assert_one_message

USAGE = 2
DETAILS = [r"^memory: .* planned per rank", r"^the first step begins", r"^attention: |^kernels: ", r"^debug: training",
           r"^\d+ trainable parameters, \d+ bytes all-reduced per step"]
YELLOW, RED, END = "\x1b[33m", "\x1b[31m", "\x1b[0m"


def said(text, pattern):
    return re.search(pattern, text, re.M) is not None


@pytest.fixture
def config(data, cache):
    return make_config("classification", data, cache)


def test_a_run_says_in_four_lines_what_it_will_do(tmp_path, config):
    run = Run(tmp_path / "run", config)
    text = run.train(2).expect(0).err
    lines = text.splitlines()
    start = next(at for at, line in enumerate(lines) if line.startswith("task: "))
    task, model, data, steps = lines[start : start + 4]
    [told] = run.events("run_start")
    names = ", ".join(rf"{label} \d+" for label in told["labels"])
    assert re.match(rf"task: sequence classification, 3 labels \(.+\): {names}$", task)
    assert re.match(r"model: .+, [\d,]+ parameters, frozen in float32, computed in float32; "
                    rf'LoRA r 4 on .*q_proj.*c_proj.* trains {told["trainable_parameters"]:,}$', model)
    assert re.match(r"data: 53 samples of .+train\S*, \d+ of .+ validate(; \d+ warnings? about them below)?$", data)
    assert re.match(rf"training on 53 samples: {TOTAL_STEPS} steps of 12 \(5 per epoch\) on 2 ranks; cpu with 1 thread", steps)
    counted = re.search(r"; (\d+) warning", data)
    before_training = text[: re.search(r"^ *step +epoch", text, re.M).start()]
    assert before_training.count("\nwarning: ") == (int(counted[1]) if counted else 0)
    assert not any(said(text, pattern) for pattern in DETAILS)
    assert lines[-1].startswith(f"done after {TOTAL_STEPS} steps: {run.folder}/adapter is the result; eval at step")


def test_warnings_are_counted_and_follow(tmp_path, config):
    # fewer than 10 rows of a label is a warning, so is a row that cannot be used
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"text": f"text {i}", "label": "ab"[i % 2]}) + "\n" for i in range(30)) +
                    '{"text": "odd", "label": "c"}\n{"text": 3}\n')
    changed = merged(config, {"data": {"train": str(rows), "validation_split": 0.2, "invalid_data_tolerance_percent": 10},
                              "trainer_config": {"max_steps": 1}})
    changed["data"].pop("validation", None)
    lines = Run(tmp_path / "run", changed).train(1).expect(0).err.splitlines()
    at = next(at for at, line in enumerate(lines) if line.startswith("data: 31 samples"))
    count = int(re.search(r", \d+ of them validate; (\d+) warnings about them below$", lines[at])[1])
    assert count >= 2
    following = lines[at + 2 :]
    assert all(line.startswith("warning: ") for line in following[:count])
    assert not following[count].startswith("warning: ")


def test_details_are_there_on_request_and_quiet_leaves_the_end(tmp_path, config):
    for name, options in (("flag", ["--verbose"]), ("key", ["--set", "logging.level=debug"])):
        text = Run(tmp_path / f"verbose-{name}", config).train(1, *options).expect(0).err
        assert all(said(text, pattern) for pattern in DETAILS), [p for p in DETAILS if not said(text, p)]
        assert said(text, "^task: ")
    for name, options in (("flag", ["--quiet"]), ("key", ["--set", "logging.level=warning"])):
        run = Run(tmp_path / f"quiet-{name}", config)
        lines = run.train(1, *options).expect(0).err.splitlines()
        assert lines[-1].startswith(f"done after {TOTAL_STEPS} steps: {run.folder}/adapter is the result")
        assert all(line.startswith("warning: ") for line in lines[:-1]), lines
        again = run.train(1, *options).expect(0).err.splitlines()
        assert again[-1] == f"this run is complete: {TOTAL_STEPS} of {TOTAL_STEPS} steps"
    best = Run(tmp_path / "best", config, trainer_config={"load_best_model_at_end": True})
    assert re.search(r"adapter is the result; the best model: step \d+, eval_\w+ [\d.]+$", best.train(1, "--quiet").expect(0).err)
    assert Run(tmp_path / "silent", config).train(1, "--set", "logging.level=error").expect(0).err == ""


def test_verbose_and_quiet_exclude_each_other(tmp_path, config):
    run = Run(tmp_path / "run", config)
    assert_one_message(run.train(0, "--verbose", "--quiet").expect(USAGE), "--quiet", "--verbose", "neoloom help train")
    printed = run.train(0, "--quiet", "--print-config").expect(0).out
    assert re.search(r"^ +level: warning$", printed, re.M)


def test_a_resume_says_from_where_and_keeps_the_four_lines(tmp_path, config):
    run = Run(tmp_path / "run", config, trainer_config={"save_strategy": "steps", "save_steps": 5})
    killed = run.train(1, NEOLOOM_FAULT="kill:rank=0:step=8")
    assert killed.code != 0
    lines = run.train(1).expect(0).err.splitlines()
    at = next(at for at, line in enumerate(lines) if line.startswith("task: "))
    assert [re.match(r"\w+", line)[0] for line in lines[at : at + 4]] == ["task", "model", "data", "training"]
    assert [line for line in lines if re.match(rf"resuming .*step-0*5\.h5 at step 5 of {TOTAL_STEPS}$", line)]


def test_the_time_is_told_where_rates_are_measured(tmp_path, config, data):
    config = merged(config, {"runtime": {"cache_dir": str(tmp_path / "cache")}})
    run = Run(tmp_path / "run", config)
    assert "measured GEMM rates" not in Run(tmp_path / "before", config).train(1).expect(0).err
    neoloom(0, "plan", "--config", run.config_file, "--measure").expect(0)
    assert said(run.train(1).expect(0).err, r"^training on .* on 1 rank, about [\d.]+ s by measured GEMM rates; cpu with")


def on_a_terminal(arguments, **variables):
    """Returns what neoloom writes to a terminal."""
    return terminal.on_a_terminal(100, command(0, *arguments), environment(**{"TERM": "xterm", **variables}))


def test_only_terminals_that_want_them_get_colours(tmp_path, config):
    run = Run(tmp_path / "run", merged(config, {"trainer_config": {"tf32": True}}))
    warns = ["train", "--config", run.config_file, "--print-config"]
    fails = ["train", "--config", tmp_path / "none.yaml"]
    assert f"{YELLOW}warning: {END}" in on_a_terminal(warns)
    assert f"{RED}neoloom: error: {END}" in on_a_terminal(fails)
    for variables in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
        for arguments, word in ((warns, "warning: "), (fails, "neoloom: error: ")):
            text = on_a_terminal(arguments, **variables)
            assert word in text and "\x1b" not in text
