# SPDX-License-Identifier: Apache-2.0
"""The commands of the walk-throughs run as they stand, on a small model in place of the one that they name."""

import contextlib
import json
import math
import os
import re
import shlex
import subprocess

import common
import pytest
import tiny_model
from peft import LoraConfig
from transformers import TrainingArguments

CONFIGS = common.SOURCE / "configs"


def commands(page):
    """Yields the program's commands: lines of the page that are indented by four."""
    for line in page.splitlines():
        if line.startswith("    build/neoloom "):
            yield shlex.split(line)


@pytest.fixture
def folder(tmp_path):
    """A working directory with the repository's configs and a build of its own name."""
    (tmp_path / "configs").symlink_to(CONFIGS)
    (tmp_path / "build").mkdir()
    (tmp_path / "build/neoloom").symlink_to(common.NEOLOOM)
    return tmp_path


def run_page(folder, cache, page, settings):
    """Runs all commands of a page. Commands that name a configuration get settings in addition."""
    seen = []
    for command in commands(page):
        changes = [f"runtime.cache_dir={cache}", "runtime.device=cpu", "runtime.threads_per_rank=1"]
        if command[1] == "init":  # it has no configuration yet
            changes = []
        if "--config" in command:
            changes += settings
        sets = [word for change in changes for word in ("--set", change)]
        done = subprocess.run([*command, *sets], cwd=folder, env=common.environment(), capture_output=True, text=True,
                              timeout=120)
        assert done.returncode == 0, f"{' '.join(command)}\n{done.stderr}"
        seen.append(done.stdout)
    return seen


def test_instruction_tuning(folder, cache):
    page = (CONFIGS / "INSTRUCTION_TUNING.md").read_text()
    rows = json.loads(re.search(r"```json\n(.*?)```", page, re.DOTALL)[1])
    question = re.search(r"`(\{\"instruction\".*?\})`", page)[1]
    base = tiny_model.make_model_folder(folder / "base", std=0.2, max_position_embeddings=512)
    for name in ("train", "validation"):
        (folder / f"{name}.json").write_text(json.dumps(rows))
    (folder / "questions.jsonl").write_text(question + "\n")
    seen = run_page(folder, cache, page, [f"model_config.pretrained_model_name={base}", "trainer_config.max_steps=2"])
    assert len(seen) == 6
    assert json.loads(seen[2])["eval_loss"] > 0
    answer = json.loads(seen[4])
    assert "### Input:\nrecieve\n\n### Response:\n" in answer["prompt"]
    assert os.path.exists(folder / "merged/model.safetensors")
    # The prompt that the page shows is the one that is made.
    shown = "\n".join(line.strip() for line in page[page.index("    Below is"): page.index("and the response `friend`")].splitlines())
    made = answer["prompt"].replace("recieve", "freind")
    assert shown.split() == made.split()


def test_from_a_pretraining_script_to_fine_tuning(folder, cache):
    page = (CONFIGS / "PRETRAINING.md").read_text()
    base = tiny_model.make_model_folder(folder / "base", std=0.2, max_position_embeddings=512)
    (folder / "configs").unlink()
    (folder / "configs").mkdir()
    for config in CONFIGS.glob("*.yaml"):
        (folder / "configs" / config.name).write_text(config.read_text().replace("EleutherAI/gpt-neo-125m", str(base)))
    lines = tiny_model.sample_texts(300, seed=5)
    for name in ("corpus", "held_out"):
        (folder / f"{name}.txt").write_text("\n".join(lines))
    for name in ("train", "validation"):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps({"text": line}) + "\n" for line in lines))
    seen = run_page(folder, cache, page, ["trainer_config.max_steps=2", "trainer_config.gradient_accumulation_steps=1"])
    assert len(seen) == 8
    events = [json.loads(line) for line in (folder / "runs/gpt_neo_small_pretrain/metrics.jsonl").read_text().splitlines()]
    first = next(event["loss"] for event in events if event["event"] == "train")
    assert first == pytest.approx(math.log(512), abs=0.15), "the page says that it is near ln(vocab_size)"
    assert (folder / "runs/adapted/adapter/adapter_model.safetensors").exists()


def test_from_a_trainer_script(folder, cache):
    page = (CONFIGS / "FROM_TRAINER.md").read_text()
    base = tiny_model.make_model_folder(folder / "base", std=0.2, max_position_embeddings=512)
    for name in ("train", "test", "new"):
        rows = "".join(f"{text.replace(',', ' ')},{'ab'[i % 2]}\n" for i, text in enumerate(tiny_model.sample_texts(60, seed=5)))
        (folder / f"{name}.csv").write_text("text,label\n" + rows)
    training_args = TrainingArguments(output_dir="out", max_steps=2, per_device_train_batch_size=4, use_cpu=True)
    lora_config = LoraConfig(task_type="SEQ_CLS", r=2, target_modules=["q_proj"], base_model_name_or_path=str(base))
    script = re.search(r"```python\n(.*?)```", page, re.DOTALL)[1]
    with contextlib.chdir(folder):
        exec(script, {"training_args": training_args, "lora_config": lora_config})
    seen = run_page(folder, cache, page, [])
    assert len(seen) == 6
    assert json.loads(seen[3])["eval_accuracy"] > 0
    assert len((folder / "labels.jsonl").read_text().splitlines()) == 60
    assert (folder / "merged/model.safetensors").exists()
