# SPDX-License-Identifier: Apache-2.0
"""report_to: TensorBoard's own reader, csv and the text format of Prometheus find the numbers of metrics.jsonl, also after
a kill and a resume."""

import csv
import json
import math
import re
import signal

import common
import h5py
import numpy as np
import pytest
from runs import adapter, assert_one_message
from tensorboard.backend.event_processing import plugin_event_accumulator
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util import tensor_util

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
    found = EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0, "histograms": 0})
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


NORMS = ("adapter/norm_A", "adapter/norm_B", "adapter/norm_update")


def stored_tensors(checkpoint):
    with h5py.File(checkpoint) as file:
        index, params = file["index"], file["params"][:]
        return {name: params[offset : offset + np.prod(shape[:rank])].reshape(shape[:rank]) for name, offset, rank, shape in
                zip(index["name"].asstr()[:], index["offset"], index["rank"], index["shape"], strict=True)}


def norms_of(tensors, scaling):
    """Returns the norms of A, B and their product for each adapted linear, by tag."""
    modules = [name.removesuffix(".lora_A.weight") for name in tensors if name.endswith(".lora_A.weight")]
    pairs = [[tensors[f"{module}.lora_{letter}.weight"].astype(np.float64) for letter in "AB"] for module in modules]
    rows = [(np.linalg.norm(a), np.linalg.norm(b), scaling * np.linalg.norm(b @ a)) for a, b in pairs]
    return dict(zip(NORMS, np.array(rows).T, strict=True))


def assert_histogram(found, values):
    assert (found.min, found.max, found.num) == (pytest.approx(min(values)), pytest.approx(max(values)), len(values))
    assert found.sum == pytest.approx(sum(values)) and found.sum_squares == pytest.approx(sum(values**2))
    counts, edges = np.histogram(values, bins=30)
    assert found.bucket == list(counts) and found.bucket_limit == pytest.approx(edges[1:])


def test_tensorboard_shows_histograms_of_the_norms_of_adapters(resumed, config, tmp_path):
    found = accumulator(resumed.folder / "tensorboard")
    assert sorted(found.Tags()["histograms"]) == sorted(NORMS)
    steps = [event["step"] for event in resumed.events("train")]
    compared = 0
    for checkpoint in resumed.checkpoints():
        norms = norms_of(stored_tensors(checkpoint), scaling=2.0)
        step = int(checkpoint.stem.removeprefix("step-"))
        for tag in NORMS:
            [event] = [event for event in found.Histograms(tag) if event.step == step]
            assert len(norms[tag]) == 8
            assert_histogram(event.histogram_value, norms[tag])
            compared += 1
    assert compared >= 3 * 2
    straight = common.Run(tmp_path / "straight", config, trainer_config={"report_to": "tensorboard"})
    straight.train(2).expect(0)
    other = accumulator(straight.folder / "tensorboard")
    for tag in NORMS:
        assert [event.step for event in found.Histograms(tag)] == steps
        assert ([event.histogram_value for event in found.Histograms(tag)]
                == [event.histogram_value for event in other.Histograms(tag)]), "a kill and a resume change nothing"
    assert straight.state() == resumed.state()
    assert "norm_A" not in (straight.folder / "metrics.jsonl").read_text()
    # What TensorBoard's histogram page reads: a tensor of left edges, right edges and counts.
    shown = plugin_event_accumulator.EventAccumulator(str(straight.folder / "tensorboard"))
    shown.Reload()
    assert shown.SummaryMetadata(NORMS[0]).plugin_data.plugin_name == "histograms"
    last = tensor_util.make_ndarray(shown.Tensors(NORMS[0])[-1].tensor_proto)
    values = norms_of(adapter(straight.folder / "adapter"), scaling=2.0)[NORMS[0]]
    assert last[0, 0] == pytest.approx(min(values)) and last[-1, 1] == pytest.approx(max(values)) and last[:, 2].sum() == 8


def test_the_update_of_pissa_is_what_its_adapter_adds(config, tmp_path):
    run = common.Run(tmp_path / "run", common.merged(config, {"peft_config": {"init_lora_weights": "pissa"}}),
                     trainer_config={"report_to": "tensorboard", "max_steps": 3, "eval_strategy": "no"})
    run.train(0).expect(0)
    written = json.loads((run.folder / "adapter/adapter_config.json").read_text())
    plain = adapter(run.folder / "adapter")
    trained = {name: value[:4] if ".lora_A." in name else value[:, :4] for name, value in plain.items()
               if ".lora_" in name}
    found = accumulator(run.folder / "tensorboard")
    scaling = written["lora_alpha"] / written["r"]
    for tag, values in {**norms_of(trained, scaling), NORMS[2]: norms_of(plain, scaling)[NORMS[2]]}.items():
        assert_histogram(found.Histograms(tag)[-1].histogram_value, values)


def test_equal_norms_are_one_bucket_and_full_training_has_none(config, tmp_path):
    changes = {"report_to": "tensorboard", "max_steps": 1, "eval_strategy": "no", "learning_rate": 0}
    run = common.Run(tmp_path / "lora", config, trainer_config=changes)
    run.train(0).expect(0)
    [event] = accumulator(run.folder / "tensorboard").Histograms("adapter/norm_B")
    value = event.histogram_value
    assert (value.min, value.max, value.num, value.bucket_limit, value.bucket) == (0, 0, 8, [0], [8])
    config = {group: values for group, values in config.items() if group != "peft_config"}
    run = common.Run(tmp_path / "full", config, trainer_config=changes)
    run.train(0).expect(0)
    found = accumulator(run.folder / "tensorboard")
    assert found.Tags()["histograms"] == [] and len(found.Scalars("train/loss")) == 1


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
