# SPDX-License-Identifier: Apache-2.0
"""Wrong input of each kind ends with its exit code and one message that says what and where, on any number of ranks."""

import json
import os
import re
import shutil
import struct
import subprocess
from pathlib import Path

import common
import pytest
import tiny_model
from common import HAS_GPU, Run, merged
from runs import QUICK, assert_one_message, train, write_jsonl

USAGE, DATA, WEIGHTS, CHECKPOINT, DEVICE = 2, 3, 4, 5, 8
RANKS = pytest.mark.parametrize("ranks", [0, 2], ids=["alone", "2 ranks"])
ROWS = 16


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A folder with a base model and 16 rows; nothing is wrong with it."""
    folder = tmp_path_factory.mktemp("good")
    tiny_model.make_model_folder(folder / "base", std=0.1)
    tiny_model.write_classification_jsonl(folder / "train.jsonl", ROWS, seed=1)
    return folder


@pytest.fixture
def config(good):
    return {
        "model_config": {"pretrained_model_name": str(good / "base"), "problem_type": "single_label_classification"},
        "peft_config": {"r": 4},
        "trainer_config": {"max_steps": 1, "per_device_train_batch_size": 2},
        "data": {"train": str(good / "train.jsonl")},
    }


def refused(tmp_path, cache, config, code, ranks=0, fragments=()):
    run, ended = train(tmp_path, cache, config, code=code, ranks=ranks)
    assert_one_message(ended, *fragments)
    assert not (run.folder / "config.yaml").exists(), "a corrected configuration must find the output folder free"
    return ended


def test_nothing_is_wrong_with_what_the_other_tests_spoil(config, tmp_path, cache):
    run, _ = train(tmp_path, cache, config)
    assert (run.folder / "adapter/adapter_model.safetensors").exists()


# Configuration


@RANKS
def test_an_unknown_key_is_named_with_its_line_and_the_nearest_known_one(config, tmp_path, cache, ranks):
    config["trainer_config"]["learning_rat"] = 1e-3
    refused(tmp_path, cache, config, USAGE, ranks, ["run.json:1", "learning_rat", "learning_rate"])


def test_a_value_of_a_wrong_type_is_named_with_its_line(config, tmp_path, cache):
    config["trainer_config"]["per_device_train_batch_size"] = "eight"
    refused(tmp_path, cache, config, USAGE, 0, ["run.json:1", "per_device_train_batch_size", "eight", "integer"])


def test_what_only_the_model_can_refuse_is_told_at_once_with_lines(config, tmp_path, cache):
    config["model_config"]["pad_token_id"] = 10**6
    config["tokenizer_config"] = {"max_length": 10**6}
    config["peft_config"] |= {"target_modules": ["q_proj", "o_proj"], "layers_to_transform": [0, 99],
                              "rank_pattern": {"k_proj": 2, "nothing": 3}, "alpha_pattern": {"none": 4}}
    config["trainer_config"] |= {"metric_for_best_model": "f2", "load_best_model_at_end": True, "eval_strategy": "epoch"}
    config["data"]["validation"] = config["data"]["train"]
    run = Run(tmp_path / "run", merged(QUICK, config), runtime={"cache_dir": str(cache)})
    run.config_file.write_text(json.dumps(json.loads(run.config_file.read_text()), indent=1))  # a key a line
    lines = run.config_file.read_text().splitlines()
    for arguments in (("train",), ("train", "--dry-run")):
        ended = common.neoloom(0, *arguments, "--config", run.config_file).expect(USAGE)
        assert_one_message(ended, f"{run.config_file}: 7 mistakes:")
        found = re.findall(r"^  \S*:(\d+): ([a-z_]+)\.([a-z_]+)[: ]", ended.err, re.M)
        assert {key for _, _, key in found} == {"pad_token_id", "target_modules", "layers_to_transform", "rank_pattern",
                                                "alpha_pattern", "metric_for_best_model", "max_length"}
        assert all(f'"{key}": ' in lines[int(line) - 1] for line, _, key in found), ended.err
    assert "6 mistakes:" in common.neoloom(0, "plan", "--config", run.config_file).expect(USAGE).err, "all but the metric"


def test_a_weight_of_a_label_that_the_data_lack_is_told_with_its_line(config, tmp_path, cache):
    config["trainer_config"]["class_weights"] = {"eggs": 2.0}
    refused(tmp_path, cache, config, USAGE, 0, ["run.json:1: trainer_config.class_weights", "eggs"])


def test_a_quantization_that_is_asked_for_is_refused_by_name(config, tmp_path, cache):
    refused(tmp_path, cache, config | {"quantization_config": {"load_in_8bit": True}}, USAGE, 0,
            ["run.json:1", "quantization_config"])


def test_an_option_that_does_not_exist_is_a_usage_error():
    assert_one_message(common.neoloom(2, "train", "--config", "run.yaml", "--konfig").expect(USAGE), "--konfig",
                       "neoloom help train")


@pytest.mark.skipif(HAS_GPU, reason="this machine has a GPU")
@RANKS
def test_a_gpu_that_is_not_there_is_one_sentence(config, tmp_path, cache, ranks):
    run = Run(tmp_path / "run", merged(QUICK, config), runtime={"device": "cuda", "cache_dir": str(cache)})
    assert_one_message(run.train(ranks).expect(DEVICE), "this machine has none", "runtime.device: cpu")


@pytest.mark.parametrize("key,ours,theirs", [("trainer_config.learning_rate", "0.25", "0.5"),
                                             ("data.train", None, "train copy.jsonl")])
def test_ranks_of_unlike_configurations_are_told_both_values(config, good, tmp_path, cache, key, ours, theirs):
    group, name = key.split(".")
    ours = ours or config[group][name]
    if name == "train":
        theirs = str(tmp_path / theirs)
        shutil.copy(good / "train.jsonl", theirs)
    run = Run(tmp_path / "run", merged(QUICK, config), runtime={**QUICK["runtime"], "cache_dir": str(cache)})
    # Both ranks run one program, because the mpirun of Debian 13 crashes on `-np 1 one : -np 1 other`.
    choose = 'mine=$((OMPI_COMM_WORLD_RANK + 1)); setting=${!mine}; shift 2; exec "$@" --set "$setting"'
    done = subprocess.run([common.MPIRUN, "-np", "2", "bash", "-c", choose, "bash", f"{key}={ours}", f"{key}={theirs}",
                           common.NEOLOOM, "train", "--config", run.config_file], text=True, env=common.environment(),
                          capture_output=True, timeout=60)
    assert done.returncode == USAGE, done.stderr
    assert_one_message(common.Ended(done.returncode, done.stdout, done.stderr), key, ours, theirs, "rank 0", "rank 1")


# Data


@RANKS
def test_a_label_outside_the_map_is_named_with_its_line(config, tmp_path, cache, ranks):
    rows = [{"text": "hello", "label": "ham"}] * 4 + [{"text": "hello", "label": "spam"}]
    config["data"] |= {"train": str(write_jsonl(tmp_path / "rows.jsonl", rows)), "label_names": ["ham", "eggs"]}
    refused(tmp_path, cache, config, DATA, ranks, ["rows.jsonl: line 5", '"spam"', "ham, eggs"])


def test_a_label_that_only_the_validation_file_has_is_named(config, tmp_path, cache):
    rows = [{"text": "hello", "label": "ham"}, {"text": "hello", "label": "unseen"}]
    config["data"]["validation"] = str(write_jsonl(tmp_path / "dev.jsonl", rows))
    refused(tmp_path, cache, config, DATA, 0, ["dev.jsonl: line 2", '"unseen"', "ham, spam"])


@pytest.mark.parametrize("content,fragments", [
    (b"", ["rows.jsonl is empty"]),
    (b"\n\n", ["rows.jsonl"]),
    (b'{"text": "a", "label": "b"}\n{"text": "caf\xe9", "label": "b"}\n', ["rows.jsonl", "line 2: not UTF-8: 0xE9"]),
    (b'{"body": "a", "label": "b"}\n', ["rows.jsonl", '"text"', "data.text_column", "body"]),
    (b'{"text": "a", "label": "b"}\n{"text": "a", "label"\n', ["rows.jsonl", "line 2: not valid JSON"]),
], ids=["empty", "blank", "not UTF-8", "missing column", "broken JSON"])
def test_a_file_that_cannot_be_used_is_named_with_its_line(config, tmp_path, cache, content, fragments):
    (tmp_path / "rows.jsonl").write_bytes(content)
    config["data"]["train"] = str(tmp_path / "rows.jsonl")
    refused(tmp_path, cache, config, DATA, 0, fragments)


@RANKS
def test_a_file_that_is_not_there_is_named(config, tmp_path, cache, ranks):
    config["data"]["train"] = str(tmp_path / "nowhere.jsonl")
    refused(tmp_path, cache, config, DATA, ranks, ["nowhere.jsonl"])


def broken_rows(good, path):
    lines = (good / "train.jsonl").read_text().splitlines()
    lines[4] = '{"text": "cut in the mid'
    lines[10] = '{"text": 7, "label": "ham"}'
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def test_unreadable_rows_within_the_tolerance_are_listed_and_left_out(config, good, tmp_path, cache):
    config["data"] |= {"train": broken_rows(good, tmp_path / "rows.jsonl"), "invalid_data_tolerance_percent": 20}
    run, ended = train(tmp_path, cache, config, ranks=2)
    warnings = [line for line in ended.err.splitlines() if re.match(r"warning: .*line \d+: ", line)]
    assert [f"line {line}:" in text for line, text in zip((5, 11), warnings, strict=True)] == [True, True]
    assert f"training on {ROWS - 2} samples" in ended.out + ended.err
    assert (run.folder / "adapter").exists()


@pytest.mark.parametrize("percent", [0, 10])
def test_unreadable_rows_above_the_tolerance_end_the_run(config, good, tmp_path, cache, percent):
    config["data"] |= {"train": broken_rows(good, tmp_path / "rows.jsonl"), "invalid_data_tolerance_percent": percent}
    ended = refused(tmp_path, cache, config, DATA, 0, ["rows.jsonl", "line 5", "invalid_data_tolerance_percent"])
    assert percent == 0 or "line 11" in ended.err


# Weights and tokenizer


def copy_of_base(config, good, tmp_path):
    folder = tmp_path / "spoiled"
    shutil.copytree(good / "base", folder)
    config["model_config"]["pretrained_model_name"] = str(folder)
    return folder


def with_header(content, change):
    """Returns a safetensors file whose header `change` has changed."""
    length = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + content[8 + length :]


def overlap(header):
    layer = "transformer.h.0.attn.attention."
    header[layer + "k_proj.weight"]["data_offsets"] = header[layer + "q_proj.weight"]["data_offsets"]


@pytest.mark.parametrize("spoil", [
    lambda content: content[:-100],
    lambda content: content[:5],
    lambda content: struct.pack("<Q", 1 << 62) + content[8:],
    lambda content: with_header(content, overlap),
    lambda content: with_header(content, lambda header: header.pop("transformer.h.1.ln_2.bias")),
], ids=["truncated", "only a start", "absurd header length", "overlapping", "missing tensor"])
def test_corrupt_weights_are_refused(config, good, tmp_path, cache, spoil):
    path = copy_of_base(config, good, tmp_path) / "model.safetensors"
    path.write_bytes(spoil(path.read_bytes()))
    refused(tmp_path, cache, config, WEIGHTS, 0, [path.parent])


@RANKS
def test_truncated_weights_are_one_message_of_all_ranks(config, good, tmp_path, cache, ranks):
    path = copy_of_base(config, good, tmp_path) / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    refused(tmp_path, cache, config, WEIGHTS, ranks, [path])


def test_a_file_of_that_name_that_torch_did_not_save_is_refused(config, good, tmp_path, cache):
    folder = copy_of_base(config, good, tmp_path)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    refused(tmp_path, cache, config, WEIGHTS, 0, [folder, "pytorch_model.bin", "torch.save did not write"])


def test_a_vocabulary_without_merges_is_refused(config, good, tmp_path, cache):
    folder = copy_of_base(config, good, tmp_path)
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    (folder / "vocab.json").write_text(json.dumps(tokenizer["model"]["vocab"]))
    (folder / "tokenizer.json").unlink()
    refused(tmp_path, cache, config, WEIGHTS, 0, [folder, "merges.txt"])


@RANKS
def test_a_hub_id_that_no_cache_holds_comes_with_the_command_that_fetches_it(config, tmp_path, cache, ranks,
                                                                             monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    config["model_config"]["pretrained_model_name"] = "EleutherAI/gpt-neo-125m"
    refused(tmp_path, cache, config, WEIGHTS, ranks, ["neoloom download EleutherAI/gpt-neo-125m",
                                                      tmp_path / "hf"])


# Checkpoints and the output folder


@pytest.fixture(scope="module")
def finished(good, tmp_path_factory, cache):
    """A run of four steps with checkpoints of steps 2 and 4."""
    folder = tmp_path_factory.mktemp("finished")
    return saving(folder / "run", good, cache), folder


def saving(folder, good, cache, steps=4, **trainer):
    run = Run(folder, QUICK, model_config={"pretrained_model_name": str(good / "base")}, peft_config={"r": 4},
              data={"train": str(good / "train.jsonl")},
              trainer_config={"max_steps": steps, "per_device_train_batch_size": 2, "save_strategy": "steps",
                              "save_steps": 2, "logging_steps": 1, **trainer},
              runtime={**QUICK["runtime"], "cache_dir": str(cache)})
    if not folder.exists():
        run.train(0).expect(0)
        assert [path.name for path in run.checkpoints()] == ["step-000000000002.h5", "step-000000000004.h5"]
    return run


@pytest.fixture
def copy(finished, good, cache, tmp_path):
    """A copy of that run, to be damaged."""
    shutil.copytree(finished[0].folder, tmp_path / "run")
    return saving(tmp_path / "run", good, cache)


def truncate(path):
    path.write_bytes(path.read_bytes()[:-64])


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 8
    path.write_bytes(content)


DAMAGE = pytest.mark.parametrize("damage", [truncate, flip_a_bit])


@DAMAGE
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_taken(copy, finished, damage):
    older, newest = copy.checkpoints()
    damage(newest)
    verified = common.neoloom(0, "checkpoint", "verify", newest).expect(CHECKPOINT)
    assert_one_message(verified, newest.name)
    ended = copy.train(2).expect(0)
    assert newest.name in ended.err and "skipped" in ended.err
    [resume] = copy.events("resume")
    assert Path(resume["path"]).name == older.name and resume["step"] == 2
    assert copy.state() == finished[0].state(), "the steps after it must be those of the run that was not damaged"


@RANKS
def test_checkpoints_that_are_all_damaged_stop_the_run_instead_of_starting_over(copy, ranks):
    for path in copy.checkpoints():
        truncate(path)
    before = {path: path.read_bytes() for path in copy.checkpoints()}
    assert_one_message(copy.train(ranks).expect(CHECKPOINT), copy.folder / "checkpoints", "step-000000000004.h5")
    assert {path: path.read_bytes() for path in copy.checkpoints()} == before


@RANKS
def test_the_output_folder_of_another_configuration_is_refused_with_the_keys_that_differ(copy, good, cache, ranks):
    before = copy.state()
    copy.config["peft_config"]["r"] = 2
    copy.config["trainer_config"]["learning_rate"] = 0.5
    copy.config_file.write_text(json.dumps(copy.config))
    assert_one_message(copy.train(ranks).expect(USAGE), copy.folder, "peft_config.r: was 4, is 2",
                       "trainer_config.learning_rate", "0.5")
    assert copy.state() == before


@pytest.fixture
def small_disk(finished, tmp_path):
    """A file system of its own under run/checkpoints, with room for one checkpoint and not for two."""
    folder = tmp_path / "run/checkpoints"
    folder.mkdir(parents=True)
    size = max(path.stat().st_size for path in finished[0].checkpoints()) * 3 // 2 + 8192
    mounted = os.geteuid() == 0 and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], capture_output=True).returncode == 0
    if not mounted:
        pytest.skip("a small file system can be mounted by root only")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_training_goes_on_when_the_disk_is_full_and_the_old_checkpoint_stays(small_disk, finished, good, cache):
    run = saving(small_disk.parent, good, cache, steps=8)
    ended = run.train(2).expect(0)
    assert [path.name for path in run.checkpoints()] == ["step-000000000002.h5"]
    common.neoloom(0, "checkpoint", "verify", run.checkpoints()[0]).expect(0)
    assert not list(small_disk.glob("*.tmp*")), "what could not be finished is taken away"
    warnings = [event["message"] for event in run.events("warning")]
    assert len(warnings) == 3 and all("No space left on device" in text for text in warnings)
    assert "step 8 was not saved" in ended.err + ended.out
    assert run.events("run_end")[-1]["status"] == "completed"
    assert [event["step"] for event in run.events("train")] == list(range(1, 9))
    assert (run.folder / "adapter/adapter_model.safetensors").exists()
