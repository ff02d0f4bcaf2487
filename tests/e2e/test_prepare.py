# SPDX-License-Identifier: Apache-2.0
"""What `prepare` leaves in the caches is all that a job builds before its first step."""

import common
import pytest
import tiny_model
from common import Run, merged
from runs import QUICK, assert_one_message, train

DATA = 3


@pytest.fixture
def config(tmp_path):
    tiny_model.make_model_folder(tmp_path / "base", std=0.1)
    tiny_model.write_classification_jsonl(tmp_path / "train.jsonl", 16, seed=1)
    tiny_model.write_classification_jsonl(tmp_path / "dev.jsonl", 8, seed=2)
    return {
        "model_config": {"pretrained_model_name": str(tmp_path / "base")},
        "peft_config": {"r": 4, "task_type": "SEQ_CLS"},
        "trainer_config": {"max_steps": 2, "per_device_train_batch_size": 4, "eval_strategy": "epoch"},
        "data": {"train": str(tmp_path / "train.jsonl"), "validation": str(tmp_path / "dev.jsonl")},
        "runtime": {"global_batch_size": 8},
    }


def prepare(folder, cache, config, ranks=0, code=0):
    """Returns the run that is prepared, and how the command ended."""
    run = Run(folder / "run", merged(QUICK, config), runtime={**config["runtime"], "cache_dir": str(cache)})
    return run, common.neoloom(ranks, "prepare", "--config", run.config_file).expect(code)


def files(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("ranks", [0, 2])
def test_a_job_after_it_builds_nothing(config, tmp_path, ranks):
    cache = tmp_path / "cache"
    run, done = prepare(tmp_path / "login", cache, config, ranks)
    assert "train        16 samples" in done.out and "validation   8 samples" in done.out, done.out
    assert not run.folder.exists(), "prepare must write no run folder"
    before = files(cache)
    assert {path.suffix for path in before} >= {".h5", ".safetensors"}, before
    prepared, _ = train(tmp_path / "prepared", cache, config)
    built = {path: when for path, when in files(cache).items() if before.get(path) != when}
    assert not built, built
    plain, _ = train(tmp_path / "plain", tmp_path / "other", config)
    name = "adapter/adapter_model.safetensors"
    assert (prepared.folder / name).read_bytes() == (plain.folder / name).read_bytes()


def test_a_login_node_without_a_gpu_prepares_for_one(config, tmp_path):
    config["runtime"]["device"] = "cuda"
    _, done = prepare(tmp_path / "login", tmp_path / "cache", config)
    assert "without copies for CPUs" in done.out, done.out


def test_it_refuses_what_train_would_refuse(config, tmp_path):
    config["data"]["text_column"] = "words"
    _, done = prepare(tmp_path / "login", tmp_path / "cache", config, code=DATA)
    assert_one_message(done, "words")
