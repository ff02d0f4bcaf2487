# SPDX-License-Identifier: Apache-2.0
"""The keys of configs/KEYS.md against the live classes of transformers and peft, and what these write, pasted whole."""

import importlib.util
import json
import os
import pathlib
import re
import subprocess

import peft
import pytest
import transformers
import yaml

ROOT = pathlib.Path(os.environ["NEOLOOM_SOURCE_DIR"])
NEOLOOM = pathlib.Path(os.environ["NEOLOOM_BUILD_DIR"]) / "neoloom"


def load_oracle():
    spec = importlib.util.spec_from_file_location("make_hf_defaults", ROOT / "tests/unit/config/make_hf_defaults.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


LIVE = load_oracle().document()
GROUPS = [group for group in LIVE if group != "versions"]


def table():
    """Returns group -> key -> (default, what happens) of configs/KEYS.md."""
    keys, group = {}, None
    for line in (ROOT / "configs/KEYS.md").read_text().splitlines():
        if heading := re.match(r"## `([\w.]+)`", line):
            group = keys.setdefault(heading[1], {})
        elif group is not None and line.startswith("| `"):
            cells = [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
            assert cells[0] not in group, cells[0]
            group[cells[0].strip("`")] = (cells[1].strip("`"), cells[2], cells[3])
    return keys


@pytest.mark.parametrize("group", GROUPS)
def test_every_key_of_the_live_class_is_in_the_table(group):
    missing = sorted(set(LIVE[group]) - set(table()[group]))
    assert not missing, f"add them to launch/config/foreign_*_keys.cpp or the schema: {missing}"


@pytest.mark.parametrize("group", GROUPS)
def test_the_table_names_the_defaults_of_the_live_class(group):
    ours = table()[group]
    wrong = {key: (value, ours[key][0]) for key, value in LIVE[group].items()
             if value is not None and key in ours and yaml.safe_load(ours[key][0]) != value and ours[key][0] != str(value)}
    # YAML 1.1 reads 5e-05 as text.
    wrong = {key: pair for key, pair in wrong.items() if not same_number(*pair)}
    assert not wrong, wrong


def same_number(value, text):
    try:
        return not isinstance(value, bool) and float(value) == float(text)
    except (TypeError, ValueError):
        return False


def test_no_key_is_silent():
    for group, keys in table().items():
        for key, (_, here, reason) in keys.items():
            assert here.startswith("honoured") or reason, f"{group}.{key}"


def print_config(*arguments):
    done = subprocess.run([NEOLOOM, "train", *arguments, "--print-config"], capture_output=True, text=True)
    lines = [line for line in done.stderr.splitlines() if "has no effect" in line]
    return done, lines


def test_training_arguments_of_today_paste_in_whole(tmp_path):
    arguments = transformers.TrainingArguments(output_dir="runs/mine", learning_rate=0.125, ddp_timeout=7200, use_cpu=True)
    (tmp_path / "args.json").write_text(arguments.to_json_string())
    done, lines = print_config("--trainer_config", tmp_path / "args.json")
    assert done.returncode == 0, done.stderr
    printed = yaml.safe_load(done.stdout)
    assert printed["trainer_config"]["learning_rate"] == 0.125
    assert printed["runtime"]["peer_timeout_seconds"] == 7200 and printed["runtime"]["device"] == "cpu"
    # use_cpu turns the pinning of memory off, which is no default.
    assert [re.search(r"trainer_config\.(\S+):", line)[1] for line in lines] == ["dataloader_pin_memory"]


def test_training_arguments_of_transformers_4_30_paste_in_whole():
    # Written by TrainingArguments(output_dir="runs/mine", no_cuda=True).to_json_string() of 4.30.2.
    done, lines = print_config("--trainer_config", ROOT / "tests/parity/training_arguments_4_30.json")
    assert done.returncode == 0, done.stderr
    assert yaml.safe_load(done.stdout)["runtime"]["device"] == "cpu"
    assert [re.search(r"trainer_config\.(\S+):", line)[1] for line in lines] == ["run_name", "logging_dir"]


def test_a_lora_config_pastes_in_whole(tmp_path):
    config = peft.LoraConfig(task_type="SEQ_CLS", r=4, lora_alpha=32, target_modules=["q_proj", "v_proj"], use_rslora=True)
    config.base_model_name_or_path = "EleutherAI/gpt-neo-125m"
    config.save_pretrained(tmp_path)
    done, lines = print_config("--peft_config", tmp_path / "adapter_config.json")
    assert done.returncode == 0, done.stderr
    printed = yaml.safe_load(done.stdout)["peft_config"]
    assert (printed["r"], printed["lora_alpha"], printed["use_rslora"]) == (4, 32, True)
    assert [re.search(r"peft_config\.(\S+):", line)[1] for line in lines] == ["base_model_name_or_path", "peft_version"]


@pytest.mark.parametrize("group", ["tokenizer_config", "model_config"])
def test_every_default_of_from_pretrained_is_taken_without_a_word(group, tmp_path):
    # Two spellings of one key, as defaults are: a file has one of them.
    keys = {key: value for key, value in LIVE[group].items() if key != "torch_dtype" and key != "add_eos_token"}
    (tmp_path / "keys.json").write_text(json.dumps(keys))
    done, _ = print_config(f"--{group}", tmp_path / "keys.json")
    assert done.returncode == 0 and done.stderr == "", done.stderr


def test_a_group_in_two_files_names_both(tmp_path):
    one, two = tmp_path / "one.yaml", tmp_path / "two.yaml"
    one.write_text("trainer_config: {max_steps: 3}\n")
    two.write_text("max_steps: 4\n")
    done, _ = print_config("--config", one, "--trainer_config", two)
    assert done.returncode == 2
    assert f"{two}:1" in done.stderr and f"{one}:1" in done.stderr and "given twice" in done.stderr
