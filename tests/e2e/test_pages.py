# SPDX-License-Identifier: Apache-2.0
"""The commands of all pages run as they stand, on small data, with a small random model under the name of a real one.

Each block of a page has a shell of its own, in one folder for the page. pages.NOT_RUN lists the commands that no test runs.
"""

import json
import math
import os
import random
import re
import shutil
import statistics
import subprocess
import sys

import common
import pages
import pytest
import tiny_model
from hub_server import Hub, make_certificates

NAME = "EleutherAI/gpt-neo-125m"
# What is changed in commands, and why.
SUBSTITUTIONS = (
    # a configuration for a real model trains for hours
    (r"(neoloom (?:plan|train) --config configs/\S+)", r"\1 --set trainer_config.max_steps=2"),
    # elsewhere on these pages, runs/mine is a classifier
    (r"generate --run runs/mine ", "generate --run runs/lm "),
    # an earlier command has trained into the same folder
    (r"(runtime\.profile_steps=3|--peft_config adapter_config.json)", r"\1 --set trainer_config.output_dir=runs/another"),
    # this machine stands for both hosts, and its loopback for their network
    (r"node1:4,node2:4", "localhost:4"),
    (r"10\.0\.0\.0/24", "127.0.0.0/8"),
    # folders of the system
    (r"/var/lib/node_exporter", "node_exporter"),
)
# In the place of Slurm's: runs the job here, the tasks of an array one after the other.
SBATCH = """#!/bin/bash
array=0
while [[ $1 == --* ]]; do
  if [[ $1 == --array=* ]]; then array=${1#--array=}; export SLURM_ARRAY_JOB_ID=90; fi
  shift
done
for task in $(seq "${array%-*}" "${array#*-}"); do
  if [ -n "$SLURM_ARRAY_JOB_ID" ]; then export SLURM_ARRAY_TASK_ID=$task; fi
  bash "$@" || exit
done
"""
RUN = f"""
model_config: {{pretrained_model_name: {NAME}}}
peft_config: {{task_type: SEQ_CLS, r: 4, lora_alpha: 8, target_modules: [q_proj, v_proj]}}
trainer_config: {{max_steps: 500, learning_rate: 1.0e-3, save_steps: 100, save_total_limit: 5, logging_steps: 100,
                 eval_strategy: steps, eval_steps: 100, report_to: prometheus, output_dir: runs/mine}}
data: {{train: train.csv, validation: dev.csv, text_column: text, label_column: label}}
"""
MARK = "the command has ended"
SHORT = ("max_steps=2", "save_steps=1", "eval_steps=2", "report_to=none")


@pytest.fixture(scope="session")
def hub(tmp_path_factory):
    """A hub that has the model, and variables of a user of it who works on a machine without a GPU."""
    folder = tmp_path_factory.mktemp("hub")
    model = tiny_model.make_model_folder(folder / "model", std=0.2, max_position_embeddings=512)
    served = Hub(NAME, {path.name: path.read_bytes() for path in model.iterdir()}, make_certificates(folder / "tls"))
    (folder / "bin").mkdir()
    (folder / "bin/sbatch").write_text(SBATCH)
    (folder / "bin/python3").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    for tool in (folder / "bin").iterdir():
        tool.chmod(0o755)
    (folder / "slots").write_text("localhost slots=2\n")
    yield common.environment(
        HOME=folder, HF_HOME=folder / "hf", HF_ENDPOINT=served.endpoint, HF_HUB_OFFLINE=0, HF_TOKEN="", no_proxy="*",
        SSL_CERT_FILE=served.authority, CUDA_VISIBLE_DEVICES="", PATH=f"{folder}/bin:build:{os.environ['PATH']}",
        OMPI_MCA_orte_default_hostfile=folder / "slots", PRTE_MCA_prte_default_hostfile=folder / "slots")
    served.close()


def shell(script, folder, variables):
    core = random.choice(sorted(os.sched_getaffinity(0)))  # one: other tests need the others
    done = subprocess.run(["bash", "-c", script], cwd=folder, env=variables, capture_output=True, text=True, timeout=240,
                          preexec_fn=lambda: os.sched_setaffinity(0, [core]))
    assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="session")
def place(tmp_path_factory, hub):
    """A folder with the files and runs that the pages speak of."""
    folder = tmp_path_factory.mktemp("place")
    (folder / "build").symlink_to(common.BUILD)
    texts = [text.replace(",", " ") for text in tiny_model.sample_texts(150, seed=5)]
    for name in ("train", "dev", "test", "new"):
        rows = "".join(f"{i},{name} {text},{'ab'[i % 2]}\n" for i, text in enumerate(texts))
        (folder / f"{name}.csv").write_text("id,text,label\n" + rows)
    for name in ("train", "validation", "new"):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps({"text": f"{name} {text}"}) + "\n" for text in texts))
    (folder / "prompts.jsonl").write_text('{"prompt": "Once"}\n')
    (folder / "run.yaml").write_text(RUN)
    shell("neoloom download " + NAME, folder, hub)
    train = "neoloom train --config run.yaml"
    short = "".join(f" --set trainer_config.{setting}" for setting in SHORT)
    shell(train, folder, hub)
    shell(f"{train}{short} --set trainer_config.output_dir=runs/1", folder, hub)
    shell(f"{train}{short} --set trainer_config.output_dir=runs/lm --set peft_config.task_type=CAUSAL_LM "
          "--set data.label_column=", folder, hub)
    for name in ("runs/2", "runs/3", "runs/lr1", "runs/lr2", "one", "two"):
        shutil.copytree(folder / "runs/1", folder / name)
    return folder


@pytest.fixture
def folder(tmp_path, place):
    """A copy of that folder, in a checkout whose build is this one."""
    shutil.copytree(place, tmp_path, symlinks=True, dirs_exist_ok=True)
    for path in common.SOURCE.iterdir():
        if not path.name.startswith((".", "build", "runs")):
            (tmp_path / path.name).symlink_to(path)
    return tmp_path


# What some pages need before: functions of the folder and the page that may return a beginning for its Python.


def without_a_configuration(folder, _):
    (folder / "run.yaml").unlink()


def a_short_run(folder, _):
    shutil.rmtree(folder / "runs/mine")
    (folder / "run.yaml").write_text(RUN.replace("max_steps: 500", "max_steps: 2").replace("eval_steps: 100", "eval_steps: 2"))


def nothing_trained(folder, _):
    without_a_configuration(folder, _)
    shutil.rmtree(folder / "runs/mine")


def parts_of_a_configuration(folder, _):
    without_a_configuration(folder, _)
    for name, groups in (
        ("model.yaml", {"model_config": {"pretrained_model_name": NAME}}),
        ("data.yaml", {"data": {"train": "train.csv", "text_column": "text", "label_column": "label"}}),
        ("adapter_config.json", {"task_type": "SEQ_CLS", "r": 2, "target_modules": ["q_proj"]}),
    ):
        (folder / name).write_text(json.dumps(groups))


def a_stopped_run(folder, _):
    """Takes the last checkpoint and the result away."""
    for path in (folder / "runs/mine/checkpoints").glob("step-*500.*"):
        path.unlink()
    shutil.rmtree(folder / "runs/mine/adapter")


def a_checkpoint(folder, _):
    (folder / "step-000000000100.h5").symlink_to("runs/mine/checkpoints/step-000000000100.h5")


def a_folder_of_node_exporter(folder, _):
    (folder / "node_exporter/textfile").mkdir(parents=True)


def data_of_instruction_tuning(folder, page):
    rows = json.loads(re.search(r"```json\n(.*?)```", page, re.DOTALL)[1])
    for name in ("train", "validation"):
        (folder / f"{name}.json").write_text(json.dumps(rows))
    (folder / "questions.jsonl").write_text(re.search(r"`(\{\"instruction\".*?\})`", page)[1] + "\n")


def data_of_pretraining(folder, _):
    for name in ("corpus", "held_out"):
        (folder / f"{name}.txt").write_text("\n".join(tiny_model.sample_texts(300, seed=5)))


def objects_of_a_trainer_script(folder, _):
    without_a_configuration(folder, _)
    return f"""
from peft import LoraConfig
from transformers import TrainingArguments
training_args = TrainingArguments(output_dir="out", max_steps=2, per_device_train_batch_size=4, use_cpu=True)
lora_config = LoraConfig(task_type="SEQ_CLS", r=2, target_modules=["q_proj"], base_model_name_or_path="{NAME}")
"""


# What the commands of some pages must have done: functions of the folder, the page and {command: its output}.


def readme_was_right(folder, page, seen):
    assert len((folder / "labels.jsonl").read_text().splitlines()) == 150
    assert (folder / "merged/model.safetensors").exists()


def cluster_was_right(folder, page, seen):
    report = (folder / "sweep.html").read_text()
    for rate in ("1e-4", "5e-4"):
        losses = []
        for seed in (1, 2, 3):
            events = (folder / f"runs/rate-{rate}-seed-{seed}/metrics.jsonl").read_text().splitlines()
            losses.append([event["eval_loss"] for event in map(json.loads, events) if event["event"] == "eval"][-1])
        assert len(set(losses)) == 3
        assert f"{statistics.mean(losses):.6g}" in report and f"{statistics.stdev(losses):.6g}" in report


def launch_was_right(folder, page, seen):
    assert (folder / "runs/another/profile/step-20-rank-0.json").exists()
    assert (folder / "compared.html").exists() and (folder / "adapter-so-far/adapter_model.safetensors").exists()
    assert len((folder / "labels.jsonl").read_text().splitlines()) == 150
    [python] = [command for command in seen if command.startswith("import")]
    assert len(python.splitlines()) <= 12
    assert re.fullmatch(r"free cash -> \w+ 0\.\d+\nsee you at lunch -> \w+ 0\.\d+\n", seen[python])
    [from_csv, from_prompt] = [json.loads(output) for command, output in seen.items() if command.startswith("printf")]
    assert from_csv["label"] in "ab" and from_prompt["prompt"] == "Once"


def stopping_was_right(folder, page, seen):
    events = [json.loads(line) for line in (folder / "runs/mine/metrics.jsonl").read_text().splitlines()]
    assert [event["step"] for event in events if event["event"] == "resume"] == [400]


def metrics_were_right(folder, page, seen):
    assert "neoloom_step" in (folder / "node_exporter/textfile/mine.prom").read_text()


def instruction_tuning_was_right(folder, page, seen):
    outputs = list(seen.values())
    assert json.loads(outputs[2])["eval_loss"] > 0
    answer = json.loads(outputs[4])
    assert "### Input:\nrecieve\n\n### Response:\n" in answer["prompt"]
    assert (folder / "merged/model.safetensors").exists()
    # The prompt that the page shows is the one that is made.
    shown = page[page.index("    Below is"): page.index("and the response `friend`")]
    assert shown.split() == answer["prompt"].replace("recieve", "freind").split()


def pretraining_was_right(folder, page, seen):
    events = [json.loads(line) for line in (folder / "runs/gpt_neo_small_pretrain/metrics.jsonl").read_text().splitlines()]
    first = next(event["loss"] for event in events if event["event"] == "train")
    assert first == pytest.approx(math.log(512), abs=0.15), "the page says that it is near ln(vocab_size)"
    assert (folder / "runs/adapted/adapter/adapter_model.safetensors").exists()


def trainer_script_was_right(folder, page, seen):
    assert json.loads(seen["build/neoloom evaluate --run out --data test.csv"])["eval_accuracy"] > 0
    assert len((folder / "labels.jsonl").read_text().splitlines()) == 150
    assert (folder / "merged/model.safetensors").exists()


BEFORE = {
    "README.md": nothing_trained,
    "cluster/README.md": a_short_run,
    "launch/README.md": without_a_configuration,
    "configs/README.md": parts_of_a_configuration,
    "configs/INSTRUCTION_TUNING.md": data_of_instruction_tuning,
    "configs/PRETRAINING.md": data_of_pretraining,
    "configs/FROM_TRAINER.md": objects_of_a_trainer_script,
    "runtime/README.md": a_stopped_run,
    "runtime/checkpoint/FORMAT.md": a_checkpoint,
    "runtime/metrics/README.md": a_folder_of_node_exporter,
}
AFTER = {
    "README.md": readme_was_right,
    "cluster/README.md": cluster_was_right,
    "launch/README.md": launch_was_right,
    "configs/INSTRUCTION_TUNING.md": instruction_tuning_was_right,
    "configs/PRETRAINING.md": pretraining_was_right,
    "configs/FROM_TRAINER.md": trainer_script_was_right,
    "runtime/README.md": stopping_was_right,
    "runtime/metrics/README.md": metrics_were_right,
}
PAGES = {page: pages.blocks(page) for page in pages.tracked()}


def script_of(commands, python, beginning):
    """Returns a script that prints MARK after each command and ends with the first that fails, the last one in the trace."""
    if python:
        commands = [f"export HF_HUB_OFFLINE=1; python3 - <<'PYTHON'\n{beginning}{code}PYTHON\n" for code in commands]
    for pattern, replacement in SUBSTITUTIONS:
        commands = [re.sub(pattern, replacement, command) for command in commands]
    return "set -ex\n" + "".join(f"{command}echo {MARK}\n" for command in commands)


@pytest.mark.parametrize("page", [page for page, blocks in PAGES.items() if blocks])
def test_the_commands_of_a_page_run(page, folder, hub):
    text = (pages.ROOT / page).read_text()
    beginning = BEFORE.get(page, lambda *_: None)(folder, text) or ""
    seen = {}
    for block in PAGES[page]:
        commands = [command for command in block.commands if not pages.pattern_that_leaves_out(command)]
        output = shell(script_of(commands, block.python, beginning), folder, hub)
        seen |= zip((command.strip() for command in commands), output.split(f"{MARK}\n"))
    AFTER.get(page, lambda *_: None)(folder, text, seen)


def test_what_is_left_out_or_changed_is_on_the_pages():
    commands = [command for blocks in PAGES.values() for block in blocks for command in block.commands]
    assert set(pages.NOT_RUN) == {pages.pattern_that_leaves_out(command) for command in commands} - {None}
    unused = [pattern for pattern, _ in SUBSTITUTIONS if not any(re.search(pattern, command) for command in commands)]
    assert not unused
