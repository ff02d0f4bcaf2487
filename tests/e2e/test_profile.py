# SPDX-License-Identifier: Apache-2.0
"""The profile of some steps, and the ranges for NVTX: what they hold, and that they change no bit."""

import collections
import json

import pytest
import tiny_model
from common import BUILD, merged
from runs import train

FIRST, COUNT = 3, 2


@pytest.fixture
def config(tmp_path):
    tiny_model.make_model_folder(tmp_path / "base", std=0.1)
    tiny_model.write_classification_jsonl(tmp_path / "train.jsonl", 32, seed=1)
    return {
        "model_config": {"pretrained_model_name": str(tmp_path / "base")},
        "peft_config": {"r": 4, "task_type": "SEQ_CLS"},
        "trainer_config": {"max_steps": 6, "per_device_train_batch_size": 2},
        "data": {"train": str(tmp_path / "train.jsonl")},
        "runtime": {"global_batch_size": 8},
    }


def ranges(path):
    """Returns how often each named range stands in a Chrome trace."""
    events = json.loads(path.read_text())["traceEvents"]
    return collections.Counter(event["name"] for event in events if event.get("cat") == "user_annotation")


def test_each_rank_writes_the_ranges_of_the_steps_that_are_asked_for(config, tmp_path, cache):
    plain, _ = train(tmp_path / "plain", cache, config, ranks=2)
    asked = merged(config, {"runtime": {"profile_from_step": FIRST, "profile_steps": COUNT}})
    run, ended = train(tmp_path / "profiled", cache, asked, ranks=2)
    name = "adapter/adapter_model.safetensors"
    assert (run.folder / name).read_bytes() == (plain.folder / name).read_bytes()
    traces = [run.folder / f"profile/step-{FIRST}-rank-{rank}.json" for rank in range(2)]
    assert str(traces[0]) in ended.err and "perfetto" in ended.err, ended.err
    for trace in traces:
        found = ranges(trace)
        assert found["update"] == found["sum over ranks"] == COUNT, found
        micro_batches = COUNT * 8 // 2 // 2  # a rank's share
        assert found["micro-batch"] == found["head"] == micro_batches, found
        assert found["block 0 forward"] == found["block 0 backward"] == micro_batches, found
        assert found["attention forward"] > 0, found
    assert not [line for line in ended.err.splitlines() if line.startswith(("INFO", "STAGE", "WARNING"))], ended.err


def test_a_run_without_it_writes_none(config, tmp_path, cache):
    run, _ = train(tmp_path / "plain", cache, config)
    assert not (run.folder / "profile").exists()


def test_a_tool_for_nvtx_sees_the_ranges_of_every_step(config, tmp_path, cache):
    recorder = BUILD / "libnvtx_recorder.so"
    if not recorder.exists():
        pytest.skip("built without NVTX's headers")
    plain, _ = train(tmp_path / "plain", cache, config)
    record = tmp_path / "ranges.txt"
    run, _ = train(tmp_path / "run", cache, config, NVTX_INJECTION64_PATH=recorder, NVTX_RECORD=record)
    name = "adapter/adapter_model.safetensors"
    assert (run.folder / name).read_bytes() == (plain.folder / name).read_bytes()
    found = collections.Counter(record.read_text().splitlines())
    steps, micro_batches = 6, 6 * 8 // 2
    assert found["update"] == found["sum over ranks"] == steps, found
    assert found["micro-batch"] == found["  head"] == micro_batches, found
    assert found["  block 0 forward"] == found["  block 0 backward"] == micro_batches, found
    assert found["    attention forward"] == found["    attention backward"] > 0, found
