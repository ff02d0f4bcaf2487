# SPDX-License-Identifier: Apache-2.0
"""report_to: TensorBoard's own reader, csv and the text format of Prometheus find the numbers of metrics.jsonl, also after
a kill and a resume."""

import csv
import math
import re
import signal

import common
import numpy as np
import pytest
from runs import assert_one_message
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

NUMBERS = (int, float, type(None))


@pytest.fixture(scope="module")
def config(data, cache):
    return common.make_config("classification", data, cache)


@pytest.fixture(scope="module")
def resumed(tmp_path_factory, config):
    """A run of two ranks that was killed, and resumed by one."""
    run = common.Run(tmp_path_factory.mktemp("runs") / "resumed", config, trainer_config={"report_to": "all"})
    assert run.train(2, NEOLOOM_FAULT="kill:rank=1:step=8").code not in (0, common.STOPPED)
    run.train(1).expect(0)
    assert run.events("resume")
    return run


def accumulator(folder):
    found = EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0})
    found.Reload()
    return found


def scalars(found, tag):
    return [(event.step, event.value) for event in found.Scalars(tag)]


def equal(found, expected):
    """Compares steps, and values as 32-bit numbers; None is NaN."""
    assert [step for step, _ in found] == [step for step, _ in expected]
    values = np.array([math.nan if value is None else value for _, value in expected], dtype=np.float32)
    assert np.array_equal(np.array([value for _, value in found], dtype=np.float32), values, equal_nan=True)


def test_tensorboard_finds_every_number_once(resumed):
    found = accumulator(resumed.folder / "tensorboard")
    assert len(list((resumed.folder / "tensorboard").iterdir())) == 2
    train, evaluations = resumed.events("train"), resumed.events("eval")
    tags = set()
    for key, value in train[0].items():
        if isinstance(value, NUMBERS) and key not in ("step", "time"):
            tags.add(f"train/{key}")
            equal(scalars(found, f"train/{key}"), [(e["step"], e[key]) for e in train])
    for key, value in evaluations[0].items():
        if isinstance(value, NUMBERS) and key not in ("step", "time"):
            tags.add(tag := f"eval/{key.removeprefix('eval_')}")
            equal(scalars(found, tag), [(e["step"], e[key]) for e in evaluations])
    for rank in (0, 1):
        for key in train[0]["devices"][0]:
            if key in ("rank", "host", "device"):
                continue
            tags.add(tag := f"devices/rank_{rank}/{key}")
            equal(scalars(found, tag), [(e["step"], d[key]) for e in train for d in e["devices"] if d["rank"] == rank])
    assert {"train/loss", "train/learning_rate", "eval/accuracy", "eval/loss"} <= tags == set(found.Tags()["scalars"])
    assert [event.wall_time for event in found.Scalars("train/loss")] == [e["time"] for e in train]


def test_tensorboard_shows_the_configuration(resumed):
    found = accumulator(resumed.folder / "tensorboard")
    assert found.SummaryMetadata("configuration").plugin_data.plugin_name == "text"
    [text] = found.Tensors("configuration")[-1].tensor_proto.string_val
    lines = [line[4:] for line in text.decode().splitlines()]
    assert lines == (resumed.folder / "config.yaml").read_text().splitlines()


def test_csv_has_the_rows_that_count(resumed):
    for name, kind in (("train", "train"), ("eval", "eval")):
        rows = list(csv.DictReader((resumed.folder / f"{name}.csv").open()))
        events = resumed.events(kind)
        assert len(rows) == len(events)
        for row, event in zip(rows, events):
            for key, value in event.items():
                if isinstance(value, NUMBERS):
                    assert row[key] == "" if value is None else float(row[key]) == value, key
            devices = event.get("devices")
            if devices:
                assert float(row["tokens_per_s"]) == pytest.approx(sum(d["tokens_per_s"] for d in devices), rel=1e-12)
                assert float(row["peak_memory_bytes"]) == max(d["peak_memory_bytes"] for d in devices)


SAMPLE = re.compile(r'(neoloom_[a-z_]+)\{run="([^"]*)",host="([^"]*)"(?:,metric="([^"]*)")?\} (\S+)')


def test_prometheus_holds_the_last_values(resumed):
    text = (resumed.folder / "metrics.prom").read_text()
    values, typed = {}, set()
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            typed.add(line.split()[2])
            assert line.endswith(" gauge")
        elif not line.startswith("# HELP "):
            name, run, host, metric, value = SAMPLE.fullmatch(line).groups()
            assert name in typed and run == str(resumed.folder) and host
            assert (name, metric) not in values
            values[name, metric] = float(value)
    last, saved = resumed.events("train")[-1], resumed.events("checkpoint")[-1]
    for name, expected in (("step", 15), ("total_steps", 15), ("running", 0), ("ranks", 1), ("loss", last["loss"]),
                           ("learning_rate", last["learning_rate"]), ("checkpoint_step", saved["step"]),
                           ("checkpoint_timestamp_seconds", saved["time"]),
                           ("tokens_per_second", sum(d["tokens_per_s"] for d in last["devices"]))):
        assert values[f"neoloom_{name}", None] == pytest.approx(expected, rel=1e-12), name
    assert values["neoloom_evaluation", "eval_accuracy"] == resumed.events("eval")[-1]["eval_accuracy"]


def test_the_bits_are_those_of_a_run_without(resumed, config, tmp_path):
    plain = common.Run(tmp_path / "plain", config)
    plain.train(2).expect(0)
    assert plain.state() == resumed.state() and plain.losses() == resumed.losses()
    assert not any((plain.folder / name).exists() for name in ("tensorboard", "train.csv", "eval.csv", "metrics.prom"))


def test_killed_before_its_first_checkpoint_a_run_begins_anew(config, tmp_path):
    run = common.Run(tmp_path / "run", config, trainer_config={
        "report_to": ["tensorboard", "csv"], "logging_dir": str(tmp_path / "logs"), "save_steps": 10, "max_steps": 6})
    run.train(0, NEOLOOM_FAULT="kill:rank=0:step=4").expect(-signal.SIGKILL)
    run.train(0).expect(0)
    steps = [1, 2, 3, 4, 5, 6]
    assert [step for step, _ in scalars(accumulator(tmp_path / "logs"), "train/loss")] == steps
    assert [int(row["step"]) for row in csv.DictReader((run.folder / "train.csv").open())] == steps
    assert not (run.folder / "tensorboard").exists()


def test_a_file_that_cannot_be_written_is_refused_at_the_start(config, tmp_path):
    run = common.Run(tmp_path / "run", config, trainer_config={"report_to": "csv", "max_steps": 2})
    (run.folder / "train.csv").mkdir(parents=True)
    (run.folder / "train.csv" / "file").write_text("")
    assert_one_message(run.train(0).expect(2), run.folder / "train.csv")


def test_a_file_that_cannot_be_written_later_does_not_fail_the_run(config, tmp_path):
    run = common.Run(tmp_path / "run", config, trainer_config={"report_to": "prometheus", "max_steps": 2000})
    process = run.start(0)
    try:
        assert common.wait_until(lambda: (run.folder / "metrics.prom").exists() and run.events("train"), process)
        (run.folder / "metrics.prom").unlink()
        (run.folder / "metrics.prom").mkdir()
        (run.folder / "metrics.prom" / "file").write_text("")
        steps = len(run.events("train"))
        assert common.wait_until(lambda: len(run.events("train")) > steps + 2, process)
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=60)
    finally:
        common.end(process)
    assert process.returncode == common.STOPPED, output
    assert output.count("trainer_config.report_to: ") == 1 and "metrics.prom" in output


def test_services_are_refused_by_name(config, tmp_path):
    run = common.Run(tmp_path / "run", config, trainer_config={"report_to": ["tensorboard", "wandb"]})
    assert_one_message(run.train(0).expect(2), "wandb", "metrics.jsonl", "trainer_config.report_to")
