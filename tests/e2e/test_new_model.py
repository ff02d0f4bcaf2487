# SPDX-License-Identifier: Apache-2.0
"""Training from scratch: model_config gives a shape instead of a name, and all random weights are trained."""

import json
import math
import shutil

import common
import numpy as np
import pytest
import tiny_model
import torch
from runs import assert_equal, assert_one_message, command, json_lines
from safetensors.numpy import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, GPTNeoConfig, GPTNeoForCausalLM

SHAPE = {"hidden_size": 48, "num_layers": 3, "num_heads": 4, "max_position_embeddings": 64, "window_size": 8,
         "attention_types": [[["global", "local"], 1], [["local"], 1]]}
STEPS = 6


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    tiny_model.make_tokenizer(folder / "tokenizer", vocab_size=512)
    (folder / "corpus.txt").write_text("\n".join(tiny_model.sample_texts(400, seed=5)))
    return folder


@pytest.fixture(scope="module")
def settings(files, cache):
    return {
        "model_config": dict(SHAPE),
        "tokenizer_config": {"pretrained_tokenizer_name": str(files / "tokenizer"), "max_length": 32},
        "trainer_config": {"per_device_train_batch_size": 4, "max_steps": STEPS, "learning_rate": 1e-2, "save_steps": 2,
                           "logging_steps": 1},
        "data": {"train": str(files / "corpus.txt"), "validation": str(files / "corpus.txt")},
        "runtime": {"device": "cpu", "threads_per_rank": 1, "cache_dir": str(cache), "global_batch_size": 8},
    }


def weights(run):
    return load_file(run.folder / "model/model.safetensors")


def initial_weights(cache):
    """Returns the weights that the newest new model in the cache started from."""
    [*_, newest] = sorted(cache.glob("new-model-*"), key=lambda folder: folder.stat().st_mtime)
    return load_file(newest / "model.safetensors"), json.loads((newest / "config.json").read_text())


@pytest.fixture(scope="module")
def unbroken(settings, tmp_path_factory):
    run = common.Run(tmp_path_factory.mktemp("unbroken") / "run", settings)
    run.train(1).expect(0)
    return run


def test_weights_start_as_transformers_starts_them(unbroken, files, cache):
    ours, config = initial_weights(cache)
    theirs = GPTNeoForCausalLM(GPTNeoConfig(vocab_size=config["vocab_size"], intermediate_size=4 * 48, **SHAPE))
    expected = {name: value for name, value in theirs.state_dict().items() if name != "lm_head.weight"}
    assert {name: value.shape for name, value in ours.items()} == {name: value.shape for name, value in expected.items()}
    for name, value in expected.items():
        if name.endswith(".bias") or value.dim() == 1:
            assert np.array_equal(ours[name], value.numpy()), name
        else:  # N(0, 0.02^2): within five standard errors of mean and deviation
            assert abs(ours[name].mean()) < 5 * 0.02 / math.sqrt(value.numel()), name
            assert ours[name].std() == pytest.approx(0.02, abs=5 * 0.02 / math.sqrt(2 * value.numel())), name
    assert not np.array_equal(*(ours[f"transformer.h.0.attn.attention.{name}_proj.weight"] for name in "qk"))
    first = unbroken.events("train")[0]["loss"]
    assert first == pytest.approx(math.log(config["vocab_size"]), abs=0.15)


def test_the_result_is_a_transformers_folder_of_that_shape(unbroken, files, cache):
    model = AutoModelForCausalLM.from_pretrained(unbroken.folder / "model", dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(unbroken.folder / "model")
    for key, value in SHAPE.items():
        assert getattr(model.config, key) == value, key
    assert model.config.attention_layers == ["global", "local", "local"]
    assert model.config.vocab_size == 512 and model.config.eos_token_id == tokenizer.eos_token_id
    assert not (unbroken.folder / "adapter").exists()
    ids = torch.tensor([tokenizer("alpha beta gamma").input_ids])
    with torch.no_grad():
        text = tokenizer.decode(model.generate(ids, max_new_tokens=8, do_sample=False)[0][ids.shape[1] :])
    [line] = json_lines(command(cache, "generate", "--run", unbroken.folder, "--prompt", "alpha beta gamma",
                                "--max_tokens", 8, "--temperature", 0, "--json"))
    assert line["text"] == text


@pytest.mark.parametrize("ranks", [2, 3])
def test_same_bits_over_ranks_kill_and_an_empty_cache(settings, unbroken, tmp_path, cache, ranks):
    run = common.Run(tmp_path / "run", settings, runtime={**settings["runtime"], "cache_dir": str(tmp_path / "cache")})
    ended = run.train(ranks, NEOLOOM_FAULT="kill:rank=1:step=4")
    assert ended.code != 0 and run.checkpoints()
    shutil.rmtree(tmp_path / "cache")
    run.train(1).expect(0)
    assert_equal(weights(run), weights(unbroken))
    assert any(event["event"] == "resume" for event in run.events())


def test_another_seed_gives_other_weights(settings, unbroken, tmp_path, cache):
    run = common.Run(tmp_path / "run", settings, trainer_config={"seed": 7, "max_steps": 1})
    run.train(0).expect(0)
    ours, _ = initial_weights(cache)
    again = common.Run(tmp_path / "again", settings, trainer_config={"max_steps": 1, "seed": 8})
    again.train(0).expect(0)
    theirs, _ = initial_weights(cache)
    assert not np.array_equal(ours["transformer.wte.weight"], theirs["transformer.wte.weight"])


def test_a_classifier_from_scratch(settings, files, tmp_path):
    tiny_model.write_classification_jsonl(tmp_path / "rows.jsonl", 40, seed=1)
    run = common.Run(tmp_path / "run", settings, data={"train": str(tmp_path / "rows.jsonl"), "validation": "",
                                                       "label_column": "label"})
    run.train(0).expect(0)
    assert json.loads((run.folder / "model/config.json").read_text())["architectures"] == ["GPTNeoForSequenceClassification"]


def test_dropouts_that_are_asked_for_are_those_of_its_config(settings, tmp_path):
    asked = {"embed_dropout": 0.1, "resid_dropout": 0.2, "attention_dropout": 0.3}
    run = common.Run(tmp_path / "run", settings, model_config={**SHAPE, **asked}, trainer_config={"max_steps": 1},
                     runtime={**settings["runtime"], "cache_dir": str(tmp_path / "cache")})
    run.train(0).expect(0)
    config = GPTNeoConfig.from_pretrained(run.folder / "model")
    assert {key: getattr(config, key) for key in asked} == asked


def test_an_adapter_on_the_result_changes_the_configuration_only(settings, unbroken, tmp_path):
    config = {**settings, "model_config": {"pretrained_model_name": str(unbroken.folder / "model"),
                                           "frozen_dtype": "float32"}, "peft_config": {"r": 4}, "tokenizer_config": {}}
    run = common.Run(tmp_path / "run", config)
    run.train(0).expect(0)
    assert (run.folder / "adapter/adapter_model.safetensors").exists()


def test_the_plan_knows_the_shape(settings, tmp_path, cache):
    run = common.Run(tmp_path / "run", settings)
    told = run.train(0, "--dry-run").expect(0).out
    parameters = sum(value.size for value in initial_weights(cache)[0].values())
    assert f"new ({parameters} parameters)" in told
    assert not run.folder.exists()


@pytest.mark.parametrize("changes, words", [
    ({"model_config": {"pretrained_model_name": "gpt2"}}, ["pretrained_model_name", "gpt2", "leave out the name"]),
    ({"peft_config": {"r": 4}}, ["peft_config", "random weights", "/model"]),
    ({"tokenizer_config": {"pretrained_tokenizer_name": ""}}, ["tokenizer_config.pretrained_tokenizer_name", "new model"]),
    ({"model_config": {"num_heads": 5}}, ["model_config", "num_heads", "divisor of hidden_size 48", "found 5"]),
    ({"model_config": {"attention_types": [[["global"], 2]]}}, ["attention_types", "3 layers", "found 2"]),
    ({"model_config": {"attention_types": [["global"]]}}, ["attention_types", "[[[global, local], 12]]"]),
    ({"model_config": {"attention_types": [[["globl"], 3]]}}, ["attention_types", "globl"]),
    ({"model_config": {"vocab_size": 100}}, ["ids up to 511", "100 rows"]),
])
def test_a_wrong_shape_is_told(settings, tmp_path, changes, words):
    run = common.Run(tmp_path / "run", settings, **changes)
    ended = run.train(0)
    assert ended.code in (2, 4), ended.err
    assert_one_message(ended, *words)
