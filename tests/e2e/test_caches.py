# SPDX-License-Identifier: Apache-2.0
"""What lies in the cache is verified or not used, and what training starts from is what the source holds."""

import json
import os
import shutil
import subprocess

import common
import pytest
import tiny_model
import torch
from common import Run, merged
from runs import QUICK, assert_one_message, train
from safetensors.torch import load_file

USAGE, DATA, WEIGHTS = 2, 3, 4


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    folder = tmp_path_factory.mktemp("good")
    tiny_model.make_model_folder(folder / "base", std=0.1)
    tiny_model.write_classification_jsonl(folder / "train.jsonl", 16, seed=1)
    for path in (folder / "base").iterdir():  # without it, new files are hashed at every start and not recorded
        os.utime(path, (1_000_000_000, 1_000_000_000))
    return folder


@pytest.fixture
def config(good):
    return {
        "model_config": {"pretrained_model_name": str(good / "base")},
        "peft_config": {"r": 4, "task_type": "SEQ_CLS"},
        "trainer_config": {"max_steps": 2, "per_device_train_batch_size": 4, "learning_rate": 1e-2},
        "data": {"train": str(good / "train.jsonl")},
        "runtime": {"global_batch_size": 8},
    }


def adapter(run):
    return (run.folder / "adapter/adapter_model.safetensors").read_bytes()


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) * 2 // 3] ^= 4
    path.write_bytes(content)


def cached(cache):
    return sorted(path for path in cache.rglob("*") if path.is_file())


def test_damaged_files_of_every_kind_are_named_and_rebuilt_and_the_bits_stay(config, tmp_path):
    cache = tmp_path / "cache"
    whole, ended = train(tmp_path / "whole", cache, config)
    assert "rebuilt" not in ended.err
    files = cached(cache)
    before = {path: path.read_bytes() for path in files}
    assert {path.parent.name for path in files} == {"cache", "weights", "hashes"}
    for path in files:
        flip(path)
    again, ended = train(tmp_path / "again", cache, config, ranks=2)
    for path in files:
        assert ended.err.count(f"cache: {path} cannot be used and is rebuilt") == 1, ended.err
    assert {path: path.read_bytes() for path in files} == before
    assert adapter(again) == adapter(whole)

    for path in files:  # cut, a folder, a pipe
        path.unlink()
        if path.parent.name == "hashes":
            path.mkdir()
        elif path.suffix == ".h5":
            path.write_bytes(before[path][: len(before[path]) // 2])
        else:
            os.mkfifo(path)
    mended, ended = train(tmp_path / "mended", cache, config)
    assert ended.err.count("rebuilt") == len(files), ended.err
    assert adapter(mended) == adapter(whole)


def test_a_cache_that_everybody_may_write_to_is_refused_unless_it_is_trusted(config, tmp_path):
    cache = tmp_path / "cache"
    cache.mkdir()
    cache.chmod(0o777)
    _, ended = train(tmp_path / "refused", cache, config, code=USAGE)
    assert_one_message(ended, f"{cache} is a folder that everybody may write to", "runtime.trust_cache: true")
    trusting = merged(QUICK, merged(config, {"runtime": {"trust_cache": True, "cache_dir": str(cache)}}))
    Run(tmp_path / "trusting/run", trusting).train(0).expect(0)


def test_a_cache_that_cannot_be_written_is_named_with_the_key_that_moves_it(config, tmp_path):
    run = Run(tmp_path / "run", merged(QUICK, config))
    ended = run.train(2, exported={"HOME": "/proc/self", "XDG_CACHE_HOME": "not/absolute"}).expect(USAGE)
    assert_one_message(ended, "cannot create directory /proc/self/.cache/neoloom", "runtime.cache_dir")
    ended = run.train(0, HOME="nowhere", XDG_CACHE_HOME="").expect(USAGE)
    assert_one_message(ended, 'HOME is "nowhere"', "runtime.cache_dir")


@pytest.mark.skipif(os.geteuid() != 0, reason="a small file system can be mounted by root only")
def test_a_cache_on_a_full_or_read_only_disk_is_named_with_the_key_that_moves_it(config, tmp_path):
    cache = tmp_path / "cache"
    cache.mkdir()
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", cache], capture_output=True)
    if mount.returncode != 0:
        pytest.skip("no file system can be mounted here")
    try:
        _, ended = train(tmp_path / "full", cache, config, code=USAGE)
        assert_one_message(ended, f"this is the cache ({cache})", "runtime.cache_dir")
        assert not [path for path in cached(cache) if "tmp" in path.name]
        subprocess.run(["mount", "-o", "remount,ro", cache], check=True)
        shutil.copy(config["data"]["train"], tmp_path / "other.jsonl")
        with open(tmp_path / "other.jsonl", "a") as rows:
            rows.write(json.dumps({"text": "one more", "label": "ham"}) + "\n")
        config["data"]["train"] = str(tmp_path / "other.jsonl")
        _, ended = train(tmp_path / "read-only", cache, config, code=USAGE)
        assert_one_message(ended, "Read-only file system", f"this is the cache ({cache})", "runtime.cache_dir")
    finally:
        subprocess.run(["umount", "-l", cache], check=True)


@pytest.mark.parametrize("name,code", [("base/config.json", WEIGHTS), ("base/tokenizer.json", WEIGHTS),
                                       ("base/tokenizer_config.json", WEIGHTS), ("base/model.safetensors", WEIGHTS),
                                       ("train.jsonl", DATA)])
def test_a_pipe_in_a_files_place_is_named_and_nothing_waits_for_it(config, good, tmp_path, cache, name, code):
    shutil.copytree(good, tmp_path / "spoiled")
    path = tmp_path / "spoiled" / name
    path.unlink()
    os.mkfifo(path)
    config["model_config"]["pretrained_model_name"] = str(tmp_path / "spoiled/base")
    config["data"]["train"] = str(tmp_path / "spoiled/train.jsonl")
    _, ended = train(tmp_path, cache, config, code=code)
    assert_one_message(ended, path, "a named pipe")


# What training starts from


def full(config, **trainer):
    changed = merged(config, {"trainer_config": trainer})
    del changed["peft_config"]
    changed["data"]["label_column"] = "label"
    return changed


@pytest.mark.parametrize("bf16", [False, True])
def test_full_training_starts_from_the_sources_values_to_the_bit(config, good, tmp_path, cache, bf16):
    source = load_file(good / "base/model.safetensors")
    assert any((value != value.half().float()).any() for value in source.values()), "nothing could be rounded"
    run, ended = train(tmp_path, cache, full(config, learning_rate=0.0, weight_decay=0.0, bf16=bf16))
    trained = load_file(run.folder / "model/model.safetensors")
    for name, value in source.items():
        assert trained[name].dtype == torch.float32 and torch.equal(trained[name], value), name
    [start] = run.events("run_start")
    assert start["frozen_dtype"] == "float32" and start["frozen_parameters"] == 0
    assert "trained in float32" in ended.err


def test_a_fully_trained_model_evaluates_as_it_did_while_it_was_trained(config, tmp_path, cache):
    config = full(config, eval_strategy="steps", eval_steps=2)
    config["data"]["validation"] = config["data"]["train"]
    run, _ = train(tmp_path, cache, config)
    during = run.evaluations()[-1]["eval_loss"]

    def evaluated(*settings):
        sets = [word for setting in settings for word in ("--set", setting)]
        ended = common.neoloom(0, "evaluate", "--run", run.folder, "--data", config["data"]["train"], *sets)
        return json.loads(ended.expect(0).out)["eval_loss"]

    assert evaluated() == pytest.approx(during, rel=1e-7)
    assert evaluated("model_config.frozen_dtype=float16") != pytest.approx(during, rel=1e-7), "it has a say"


def test_frozen_weights_of_a_bfloat16_run_are_the_sources_rounded_once(config, good, tmp_path):
    cache = tmp_path / "cache"
    config["trainer_config"]["bf16"] = True
    run, _ = train(tmp_path, cache, config)
    [start] = run.events("run_start")
    assert start["frozen_dtype"] == "bfloat16"
    [stored] = [path for path in (cache / "weights").iterdir() if "panels" not in path.name]
    weights = load_file(stored)
    twice = 0
    for name, value in load_file(good / "base/model.safetensors").items():
        assert torch.equal(weights[name], value.to(torch.bfloat16)), name
        twice += int((value.half().to(torch.bfloat16) != value.to(torch.bfloat16)).sum())
    assert twice > 0, "by way of float16 nothing would have come out otherwise"
