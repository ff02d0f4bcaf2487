# SPDX-License-Identifier: Apache-2.0
"""The shipped configurations: the program reads each strictly, prints it whole, and reads what it printed."""

import os
import pathlib
import re
import subprocess

import pytest
import yaml

ROOT = pathlib.Path(os.environ["NEOLOOM_SOURCE_DIR"])
NEOLOOM = pathlib.Path(os.environ["NEOLOOM_BUILD_DIR"]) / "neoloom"
CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))


def print_config(path, *arguments):
    command = [NEOLOOM, "train", "--config", path, "--print-config", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)


def test_the_models_and_tasks_of_the_readme_are_there():
    names = {path.name for path in CONFIGS}
    tasks = ("classification", "causal_lm", "instruction")
    sizes = {f"gpt_neo_{size}_{task}.yaml" for size in ("125m", "1_3b", "2_7b") for task in tasks}
    others = {f"gpt_neo_125m_{task}.yaml" for task in ("regression", "multi_label", "chat", "continue")}
    assert names >= sizes | others | {"quickstart_pretrain.yaml", "quickstart_classify.yaml"}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_a_configuration_opens_with_its_command_and_the_expected_memory_and_time(path):
    head = path.read_text().partition("\nmodel_config:")[0]
    assert all(line.startswith("#") for line in head.splitlines())
    assert f"neoloom train --config configs/{path.name}" in head and "# Expected memory" in head


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_a_configuration_reads_and_its_printed_form_reads_back(path, tmp_path):
    printed = print_config(path)
    assert printed.returncode == 0, printed.stderr
    again = tmp_path / "config.yaml"
    again.write_text(printed.stdout)
    reread = print_config(again)
    assert reread.returncode == 0, reread.stderr
    assert reread.stdout == printed.stdout


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_printed_values_are_those_of_the_file_for_other_readers_of_yaml(path):
    printed = yaml.safe_load(print_config(path).stdout)
    for group, keys in yaml.safe_load(path.read_text()).items():
        for key, value in keys.items():
            assert printed[group][key] == value, f"{group}.{key}"


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_a_configuration_opens_with_its_purpose_and_command(path):
    comment = re.match(r"(?:#.*\n)+", path.read_text())
    assert comment and f"--config configs/{path.name}" in comment.group()


def test_overrides_reach_the_printed_form():
    printed = print_config(CONFIGS[0], "--set", "trainer_config.learning_rate=0.125", "--set", "runtime.device=cpu")
    values = yaml.safe_load(printed.stdout)
    assert values["trainer_config"]["learning_rate"] == 0.125
    assert values["runtime"]["device"] == "cpu"


def test_a_wrong_key_ends_with_code_2_and_one_message(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("trainer_config:\n  learning_rat: 1\n")
    done = print_config(path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("learning_rat:") <= 1
    assert f"{path}:2" in done.stderr and "did you mean learning_rate?" in done.stderr
