# SPDX-License-Identifier: Apache-2.0
"""A checkpoint opened by h5py holds what runtime/checkpoint/FORMAT.md says, and a file that h5py writes by that page loads.

build/checkpoint_tool writes the state below and prints what it reads."""

import hashlib
import json
import os
import subprocess

import h5py
import numpy as np
import pytest

TOOL = os.path.join(os.environ.get("NEOLOOM_BUILD_DIR", "build"), "checkpoint_tool")

STATE = {
    "index": [["a.lora_A.weight", [2, 3], 0], ["a.lora_B.weight", [4], 16], ["scale", [], 20]],
    "params": [float(np.float32(0.1) * i) for i in range(32)],
    "exp_avg": [float(np.float32(-0.3) * i) for i in range(32)],
    "exp_avg_sq": [float(np.float32(1e-9) * i * i) for i in range(32)],
    "step": 1234567,
    "epoch": 2,
    "step_in_epoch": 17,
    "loss_scale": 32768.0,
    "good_steps": 1999,
    "skipped_steps": 3,
    "best_metric": 0.1,
    "best_step": 1200000,
    "config": "trainer_config:\n  learning_rate: 2.0e-4  # \u00fc\n",
    "identity": '{"model":"abc"}',
    "label_map": '["ham","spam \U0001f600"]',
    "history": "",
}
BEST = [float(np.float32(0.7) * i) for i in range(32)]
ARRAYS = ["params", "exp_avg", "exp_avg_sq"]
INTEGERS = ["step", "epoch", "step_in_epoch", "good_steps", "skipped_steps", "best_step"]
NUMBERS = ["loss_scale", "best_metric"]
TEXTS = ["config", "identity", "label_map", "history"]


def run(*arguments, text=None):
    return subprocess.run([TOOL, *arguments], input=text, capture_output=True, text=True, timeout=60)


def publish(folder, state):
    done = run("write", str(folder), text=json.dumps(state))
    assert done.returncode == 0, done.stderr
    return folder / "step-000001234567.h5"


@pytest.fixture
def published(tmp_path):
    return publish(tmp_path, STATE)


def test_h5py_finds_every_attribute_and_dataset_of_the_format(published):
    with h5py.File(published) as file:
        assert sorted(file.attrs) == sorted(INTEGERS + NUMBERS + ["format", "format_version"])
        assert file.attrs["format"] in (b"neoloom-checkpoint", "neoloom-checkpoint")
        assert file.attrs["format_version"] == 1
        for name in INTEGERS:
            assert file.attrs[name] == STATE[name] and file.attrs[name].dtype == np.int64, name
        for name in NUMBERS:
            assert file.attrs[name] == STATE[name] and file.attrs[name].dtype == np.float64, name
        assert sorted(file) == sorted(ARRAYS + TEXTS + ["index"])
        for name in ARRAYS:
            assert file[name].dtype == np.float32 and file[name].fletcher32, name
            assert np.array_equal(file[name][:], np.array(STATE[name], np.float32)), name
        for name in TEXTS:
            assert file[name].asstr()[0] == STATE[name], name
        index = file["index"]
        assert sorted(index) == ["name", "offset", "rank", "shape"]
        for row, (name, shape, offset) in enumerate(STATE["index"]):
            assert index["name"].asstr()[row] == name
            assert list(index["shape"][row][: index["rank"][row]]) == shape
            assert index["offset"][row] == offset


def test_a_state_with_best_parameters_is_of_version_two(tmp_path):
    with h5py.File(publish(tmp_path, {**STATE, "best_params": BEST})) as file:
        assert file.attrs["format_version"] == 2
        assert sorted(file) == sorted([*ARRAYS, *TEXTS, "index", "best_params"])
        best = file["best_params"]
        assert best.dtype == np.float32 and best.fletcher32
        assert np.array_equal(best[:], np.array(BEST, np.float32))


def test_nothing_in_the_file_records_a_time(published):
    with h5py.File(published) as file:
        objects = [file["/"]]
        file.visititems(lambda name, item: objects.append(item))
        for item in objects:
            info = h5py.h5o.get_info(item.id)
            assert getattr(info, "ctime", 0) == 0 and getattr(info, "mtime", 0) == 0, item.name


def test_the_hash_file_is_the_sha256_of_the_data(published):
    digest = hashlib.sha256(published.read_bytes()).hexdigest()
    assert published.with_suffix(".sha256").read_text() == f"{digest}  {published.name}\n"


def write_by_the_page(path, state):
    """Writes a checkpoint as FORMAT.md says, without code of neoloom."""

    def text(parent, name, values):
        encoded = [value.encode() for value in values]
        kind = h5py.string_dtype("utf-8", max(1, *(len(value) for value in encoded)))
        parent.create_dataset(name, data=np.array(encoded, dtype=kind), dtype=kind, fletcher32=True, chunks=(len(values),))

    with h5py.File(path, "w", libver=("v110", "v110")) as file:
        file.attrs.create("format", np.bytes_("neoloom-checkpoint"), dtype=h5py.string_dtype("utf-8", 18))
        version = 1 + ("best_params" in state) + 2 * ("initial_params" in state)
        file.attrs.create("format_version", np.int64(version))
        for name in INTEGERS:
            file.attrs.create(name, np.int64(state[name]))
        for name in NUMBERS:
            file.attrs.create(name, np.float64(state[name]))
        for name in TEXTS:
            text(file, name, [state[name]])
        for name in [*ARRAYS, *(name for name in ("best_params", "initial_params") if name in state)]:
            file.create_dataset(name, data=np.array(state[name], "<f4"), fletcher32=True, chunks=True)
        index = file.create_group("index")
        widest = max(1, *(len(shape) for _, shape, _ in state["index"]))
        text(index, "name", [name for name, _, _ in state["index"]])
        index["offset"] = np.array([offset for _, _, offset in state["index"]], "<i8")
        index["rank"] = np.array([len(shape) for _, shape, _ in state["index"]], "<i8")
        index["shape"] = np.array([shape + [0] * (widest - len(shape)) for _, shape, _ in state["index"]], "<i8")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    path.with_suffix(".sha256").write_text(f"{digest}  {path.name}\n")


@pytest.mark.parametrize("state", [STATE, {**STATE, "best_params": BEST}, {**STATE, "initial_params": BEST},
                                   {**STATE, "best_params": BEST, "initial_params": BEST[::-1]}],
                         ids=["version 1", "version 2", "version 3", "version 4"])
def test_a_file_written_by_h5py_after_the_page_loads(tmp_path, state):
    path = tmp_path / "step-000001234567.h5"
    write_by_the_page(path, state)
    done = run("read", str(path))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == state


def test_what_was_written_is_read_back(published):
    done = run("read", str(published))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == STATE


@pytest.mark.parametrize("library", ["earliest", "latest"])
def test_a_file_of_another_layout_version_is_accepted_or_refused_but_never_misread(tmp_path, library):
    path = tmp_path / "step-000000000001.h5"
    with h5py.File(path, "w", libver=library) as file:
        file["params"] = np.zeros(4, "<f4")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    path.with_suffix(".sha256").write_text(f"{digest}  {path.name}\n")
    done = run("read", str(path))
    assert done.returncode == 5 and "format" in done.stderr
