# SPDX-License-Identifier: Apache-2.0
"""What decides the numbers of a run may not change under it: not between a start and a resume, and not between two ranks.
launch/job/run_identity.h lists the items; unit.launch changes each of them in memory, these tests where a user would."""

import json
import shutil
import subprocess

import common
import pytest
from common import Run, make_config, make_data
from runs import adapter, assert_equal, assert_one_message
from safetensors.numpy import load_file, save_file

USAGE = 2


@pytest.fixture(scope="module")
def whole(tmp_path_factory, cache):
    """A folder with a base, rows, an adapter, and a run that starts from it and was killed after its checkpoint of step
    2. The same folder holds what the run would have ended with."""
    folder = tmp_path_factory.mktemp("whole")
    make_data(folder)
    steps = {"trainer_config": {"max_steps": 4}}
    Run(folder / "first", make_config("classification", folder, cache), **steps).train(0).expect(0)
    shutil.copytree(folder / "first/adapter", folder / "start")
    run_in(folder, cache, "unbroken").train(0).expect(0)
    run_in(folder, cache).train(0, NEOLOOM_FAULT="kill:rank=0:step=4").expect(-9)
    return folder


def run_in(folder, cache, name="run"):
    return Run(folder / name, make_config("classification", folder, cache), trainer_config={"max_steps": 4},
               peft_config={"init_from": str(folder / "start")})


@pytest.fixture
def folder(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "copy")


def change_json(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def change_tensor(path, name):
    tensors = load_file(path)
    tensors[name].flat[0] += 0.25
    save_file(tensors, path, {"format": "pt"})


def base_value(**values):
    return lambda folder: change_json(folder / "base/config.json", lambda config: config.update(values))


def swap_merges(content):
    merges = content["model"]["merges"]
    merges[3], merges[4] = merges[4], merges[3]


ITEMS = {
    "config.json of the base: window_size": base_value(window_size=4),
    "config.json of the base: layer_norm_epsilon": base_value(layer_norm_epsilon=2e-5),
    "config.json of the base: attention_layers": base_value(attention_types=[[["local", "global"], 1]],
                                                            attention_layers=["local", "global"]),
    "model weights": lambda folder: change_tensor(folder / "base/model.safetensors", "transformer.ln_f.bias"),
    "tokenizer": lambda folder: change_json(folder / "base/tokenizer.json", swap_merges),
    "training data": lambda folder: (folder / "train.jsonl").write_text(
        (folder / "train.jsonl").read_text().replace("free", "fee", 1)),
    "peft_config.init_from": lambda folder: change_tensor(folder / "start/adapter_model.safetensors",
                                                          "base_model.model.score.weight"),
}


@pytest.mark.parametrize("item", ITEMS)
def test_a_resume_after_an_edit_is_refused_by_name(folder, cache, item):
    ITEMS[item](folder)
    run = run_in(folder, cache)
    before = {path: path.read_bytes() for path in run.checkpoints()}
    assert_one_message(run.train(0).expect(USAGE), "step-000000000002.h5", f"  {item}")
    assert {path: path.read_bytes() for path in run.checkpoints()} == before


def test_a_resume_after_edits_that_decide_nothing_goes_on(folder, cache):
    """Another layout, keys that nobody reads, an adapter to start from whose description was touched."""
    path = folder / "base/config.json"
    config = json.loads(path.read_text())
    config |= {"transformers_version": "9.9", "use_cache": False, "a_key_of_somebody": [1, 2]}
    path.write_text(json.dumps(dict(reversed(config.items())), indent=7))
    change_json(folder / "start/adapter_config.json", lambda adapter: adapter.update(inference_mode=False))
    run = run_in(folder, cache)
    run.train(2).expect(0)
    assert_equal(adapter(run.folder / "adapter"), adapter(folder / "unbroken/adapter"))


def test_a_run_goes_on_when_the_adapter_that_it_started_from_is_gone(folder, cache):
    """Its rows are [spam, other, ham], not in the sorted order that a run without it would give them."""
    swapped = {"id2label": {"0": "spam", "1": "other", "2": "ham"}, "label2id": {"spam": 0, "other": 1, "ham": 2}}
    change_json(folder / "start/config.json", lambda config: config.update(swapped))
    run_in(folder, cache, "whole").train(0).expect(0)
    run = run_in(folder, cache, "broken")
    run.train(0, NEOLOOM_FAULT="kill:rank=0:step=4").expect(-9)
    shutil.rmtree(folder / "start")
    run.train(2).expect(0)
    assert json.loads((run.folder / "adapter/config.json").read_text())["id2label"] == swapped["id2label"]
    assert_equal(adapter(run.folder / "adapter"), adapter(folder / "whole/adapter"))


def test_a_finished_run_is_not_used_on_a_base_that_was_edited(folder, cache):
    (folder / "rows.txt").write_text("win a prize\n")
    command = ["predict", "--run", folder / "unbroken", "--input", folder / "rows.txt", "--set",
               f"model_config.pretrained_model_name={folder / 'base'}"]
    common.neoloom(0, *command).expect(0)
    base_value(window_size=4)(folder)
    assert_one_message(common.neoloom(0, *command).expect(4), folder / "base/config.json", "window_size: was 8, is 4")


@pytest.mark.parametrize("item", ["config.json of the base: window_size", "peft_config.init_from"])
def test_two_ranks_with_unlike_files_are_told_apart(folder, cache, item):
    """As on two hosts with folders of their own: each rank finds its files in its own working directory."""
    (folder / "rank0").mkdir()
    for name in ("base", "start"):
        shutil.copytree(folder / name, folder / "rank1" / name)
        (folder / name).rename(folder / "rank0" / name)
    ITEMS[item](folder / "rank1")
    run = Run(folder / "new", make_config("classification", folder, cache),
              model_config={"pretrained_model_name": "base"}, peft_config={"init_from": "start"})
    wrapper = 'cd "$0/rank$OMPI_COMM_WORLD_RANK" && exec "$@"'
    done = subprocess.run([common.MPIRUN, "-np", "2", "bash", "-c", wrapper, folder, common.NEOLOOM, "train", "--config",
                           run.config_file], text=True, env=common.environment(), capture_output=True, timeout=60)
    ended = common.Ended(done.returncode, done.stdout, done.stderr).expect(USAGE)
    assert_one_message(ended, item, "rank 0", "rank 1")
    assert not run.folder.exists()
