# SPDX-License-Identifier: Apache-2.0
"""Which task is trained, and whose rows a classification head has: names decide, never places, and the log says so."""

import json
import os
import re
import shutil

import common
import pytest
import tiny_model
import torch
from peft import LoraConfig, get_peft_model
from runs import assert_one_message, command, json_lines, padded, train, write_jsonl
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from transformers.utils import logging

logging.set_verbosity_error()
torch.set_num_threads(1)
EXACT = dict(attn_implementation="eager", dtype=torch.float32)
USAGE, DATA, WEIGHTS = 2, 3, 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A language model `lm`, a classifier `cls` of [spam, ham], and rows of ham and spam."""
    folder = tmp_path_factory.mktemp("heads")
    tiny_model.make_model_folder(folder / "lm", std=0.1)
    tiny_model.make_model_folder(folder / "cls", head="sequence_classification", labels=["spam", "ham"], seed=3, std=0.3,
                                 problem_type="single_label_classification")
    tiny_model.write_classification_jsonl(folder / "train.jsonl", 24, ["ham", "spam"], seed=1)
    return folder


def configuration(folder, base, **groups):
    config = {
        "model_config": {"pretrained_model_name": str(folder / base), "frozen_dtype": "float32"},
        "peft_config": {"peft_type": "LORA", "r": 2},
        "trainer_config": {"max_steps": 1, "per_device_train_batch_size": 4},
        "data": {"train": str(folder / "train.jsonl")},
    }
    return common.merged(config, groups)


def evaluated(cache, *source):
    found = json.loads(command(cache, "evaluate", *source))
    return {key: found[key] for key in ("eval_loss", "eval_accuracy", "eval_labels")}


def refused(code, cache, *arguments):
    ended = common.neoloom(0, *arguments, "--set", f"runtime.cache_dir={cache}", "--set", "runtime.device=cpu")
    return ended.expect(code)


def test_a_base_keeps_the_meaning_of_its_rows_whatever_order_the_data_has(folder, tmp_path, cache):
    data = ("--data", folder / "train.jsonl")
    before = evaluated(cache, "--model", folder / "cls", *data)
    for name, names in {"found": None, "asked": ["ham", "spam"]}.items():
        config = configuration(folder, "cls", trainer_config={"learning_rate": 0})
        if names:
            config["data"]["label_names"] = names
        run, ended = train(tmp_path / name, cache, config)
        after = evaluated(cache, "--run", run.folder, *data)
        assert after["eval_loss"] == pytest.approx(before["eval_loss"], abs=1e-6)
        assert after["eval_accuracy"] == before["eval_accuracy"]
        assert after["eval_labels"] == (names or ["spam", "ham"])
        assert "with its rows matched by label: [spam, ham]" in ended.err
    # A run that starts from that adapter follows the names, too.
    config = configuration(folder, "cls", trainer_config={"learning_rate": 0},
                           peft_config={"init_from": str(run.folder / "adapter")}, data={"label_names": ["spam", "ham"]})
    config["peft_config"]["init_from"] = str(run.folder / "adapter")
    again, _ = train(tmp_path / "again", cache, config)
    assert evaluated(cache, "--run", again.folder, *data)["eval_loss"] == pytest.approx(before["eval_loss"], abs=1e-6)


def test_other_labels_than_the_bases_want_a_word(folder, tmp_path, cache):
    tiny_model.write_classification_jsonl(tmp_path / "three.jsonl", 12, ["a", "b", "c"], seed=1)
    config = configuration(folder, "cls", data={"train": str(tmp_path / "three.jsonl")})
    _, ended = train(tmp_path / "refused", cache, config, code=USAGE)
    assert_one_message(ended, "2 labels [spam, ham]", "3 labels [a, b, c]", "model_config.ignore_mismatched_sizes: true")
    config["model_config"]["ignore_mismatched_sizes"] = True
    run, ended = train(tmp_path / "fresh", cache, config)
    assert "head: a fresh one for 3 labels" in ended.err
    assert evaluated(cache, "--run", run.folder, "--data", tmp_path / "three.jsonl")["eval_labels"] == ["a", "b", "c"]


def test_the_template_classifies_and_says_why_and_numbers_are_not_taken_for_its_names(folder, tmp_path, cache):
    run, ended = train(tmp_path, cache, configuration(folder, "lm"))
    why = 'column "label"; peft_config.task_type not given'
    lines = ended.err.splitlines()
    assert re.match(rf"task: sequence classification, 2 labels \({re.escape(why)}\): ham \d+, spam \d+$", lines[0])
    assert [line for line in lines[4:] if line.startswith("task: ") and "peft_config.task_type: CAUSAL_LM" in line]
    [start] = run.events("run_start")
    assert (start["task"], start["task_reason"]) == ("sequence classification", why)
    assert start["labels"] == ["ham", "spam"]
    rows = [{"text": "free cash", "label": 1}, {"text": "hello", "label": 0}]
    numbers = write_jsonl(tmp_path / "numbers.jsonl", rows)
    ended = refused(DATA, cache, "evaluate", "--run", run.folder, "--data", numbers)
    assert_one_message(ended, "numbers.jsonl: line 1", '"1"', "ham, spam", "data.label_names")
    again = command(cache, "evaluate", "--run", run.folder, "--data", numbers, "--set", "data.label_names=[ham, spam]")
    assert json.loads(again)["eval_confusion_matrix"] is not None


def test_a_run_is_used_from_elsewhere_with_the_base_of_a_relative_path(folder, tmp_path, cache, monkeypatch):
    monkeypatch.chdir(folder)
    config = configuration(folder, "lm")
    config["model_config"]["pretrained_model_name"] = "lm"
    run, _ = train(tmp_path / "made", cache, config)
    before = evaluated(cache, "--run", run.folder, "--data", folder / "train.jsonl")
    shutil.move(run.folder, tmp_path / "moved")
    monkeypatch.chdir(tmp_path)
    assert evaluated(cache, "--run", "moved", "--data", folder / "train.jsonl") == before
    text = (tmp_path / "moved/config.yaml").read_text().replace("pretrained_model_name: \"lm\"",
                                                                "pretrained_model_name: ../gone/lm")
    (tmp_path / "moved/config.yaml").write_text(text)
    ended = refused(WEIGHTS, cache, "evaluate", "--run", "moved", "--data", folder / "train.jsonl")
    assert_one_message(ended, "moved/config.yaml", os.path.normpath(tmp_path / "../gone/lm"),
                       os.path.normpath(folder / "../gone/lm"), "--set model_config.pretrained_model_name=")


def peft_adapter(base, target):
    """A classifier's adapter as PEFT saves it: nothing beside it says what its labels are."""
    torch.manual_seed(2)
    tokenizer = AutoTokenizer.from_pretrained(base)
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=3, pad_token_id=tokenizer.eos_token_id,
                                                               **EXACT)
    model = get_peft_model(model, LoraConfig(task_type="SEQ_CLS", r=2, target_modules=["q_proj", "v_proj"]))
    with torch.no_grad():
        for name, value in model.named_parameters():
            if "lora_B" in name or "score" in name:
                value.copy_(torch.randn(value.shape) * 0.3)
    model.eval().save_pretrained(target)
    (target / "config.json").unlink(missing_ok=True)
    return model, tokenizer


def test_a_plain_classification_adapter_has_the_labels_that_somebody_names(folder, tmp_path, cache):
    model, tokenizer = peft_adapter(folder / "lm", tmp_path / "adapter")
    texts = tiny_model.sample_texts(8, seed=5)
    rows = write_jsonl(tmp_path / "rows.jsonl", [{"text": text} for text in texts])
    with torch.no_grad():
        scores = torch.softmax(model(**padded([tokenizer(t).input_ids for t in texts], tokenizer.eos_token_id)).logits, -1)
    # Adapter of a compiled model: the same tensors under a wrapper's names; target_modules may say more than there is.
    wrapped = tmp_path / "wrapped"
    shutil.copytree(tmp_path / "adapter", wrapped)
    tensors = load_file(wrapped / "adapter_model.safetensors")
    save_file({name.replace("base_model.model.", "base_model.model._orig_mod."): value for name, value in tensors.items()},
              wrapped / "adapter_model.safetensors", metadata={"format": "pt"})
    settings = json.loads((wrapped / "adapter_config.json").read_text())
    settings |= {"target_modules": ["q_proj", "v_proj", "o_proj"], "base_model_name_or_path": "some/base", "revision": "v1"}
    (wrapped / "adapter_config.json").write_text(json.dumps(settings))

    source = ("--model", folder / "lm", "--adapter")
    for adapter, names, word in [("adapter", ["LABEL_0", "LABEL_1", "LABEL_2"], "3 rows of score.weight"),
                                 ("wrapped", ["ham", "spam", "eggs"], "o_proj")]:
        sets = [] if adapter == "adapter" else ["--set", "data.label_names=[ham, spam, eggs]"]
        ended = common.neoloom(0, "predict", *source, tmp_path / adapter, "--input", rows, *sets, "--set",
                               f"runtime.cache_dir={cache}", "--set", "model_config.frozen_dtype=float32").expect(0)
        assert word in ended.err
        for line, expected in zip(json_lines(ended.out), scores.tolist(), strict=True):
            assert list(line["scores"]) == names
            assert list(line["scores"].values()) == pytest.approx(expected, abs=1e-4)
    ended = refused(USAGE, cache, "predict", *source, tmp_path / "adapter", "--input", rows, "--set",
                    "data.label_names=[ham, spam]")
    assert_one_message(ended, "data.label_names has 2 names", "3 rows")

    # What is exported, or trained further, keeps the base's name and revision, and lists what it adapts.
    command(cache, "export", *source, wrapped, "--format", "peft", "--output", tmp_path / "out", "--set",
            "data.label_names=[ham, spam, eggs]")
    exported = json.loads((tmp_path / "out/adapter_config.json").read_text())
    assert (exported["base_model_name_or_path"], exported["revision"]) == ("some/base", "v1")
    assert exported["target_modules"] == ["q_proj", "v_proj"]


def test_an_adapter_with_an_embedding_of_its_own_is_refused_in_one_sentence(folder, tmp_path, cache):
    peft_adapter(folder / "lm", tmp_path / "adapter")
    path = tmp_path / "adapter/adapter_model.safetensors"
    tensors = load_file(path) | {"base_model.model.transformer.wte.weight": torch.zeros(514, 16)}
    save_file(tensors, path, metadata={"format": "pt"})
    ended = refused(WEIGHTS, cache, "predict", "--model", folder / "lm", "--adapter", tmp_path / "adapter", "--input",
                    folder / "train.jsonl")
    assert_one_message(ended, "has its own embedding for 514 tokens", "the base has 512 tokens", "merge_and_unload")


def test_a_padding_token_without_a_row_does_not_stop_a_run_but_a_text_that_holds_it_does(folder, tmp_path, cache):
    shutil.copytree(folder / "lm", tmp_path / "lm")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "lm")
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    tokenizer.save_pretrained(tmp_path / "lm")
    config = configuration(folder, "lm", model_config={"pretrained_model_name": str(tmp_path / "lm")})
    run, ended = train(tmp_path / "good", cache, config)
    assert '"[PAD]" (id 512) has no row' in ended.err
    command(cache, "predict", "--run", run.folder, "--input", folder / "train.jsonl")
    rows = [{"text": "free", "label": "ham"}, {"text": "win [PAD] prize", "label": "spam"}]
    config["data"]["train"] = str(write_jsonl(tmp_path / "padded.jsonl", rows))
    _, ended = train(tmp_path / "bad", cache, config, code=DATA)
    assert_one_message(ended, "padded.jsonl", "line 2", "[PAD] (id 512)", "512 rows")


def test_a_classifier_with_a_number_of_labels_only_has_transformers_names(folder, tmp_path, cache):
    tiny_model.make_model_folder(tmp_path / "cls", head="sequence_classification", labels=["a", "b", "c"])
    settings = json.loads((tmp_path / "cls/config.json").read_text())
    for key in ("id2label", "label2id"):
        settings.pop(key)
    (tmp_path / "cls/config.json").write_text(json.dumps(settings | {"num_labels": 3}))
    texts = write_jsonl(tmp_path / "texts.jsonl", [{"text": "free cash"}])
    [line] = json_lines(command(cache, "predict", "--model", tmp_path / "cls", "--input", texts))
    assert list(line["scores"]) == ["LABEL_0", "LABEL_1", "LABEL_2"]


def test_a_target_that_is_no_module_of_the_model_is_named_before_anything_is_made(folder, tmp_path, cache):
    config = configuration(folder, "lm", peft_config={"target_modules": ["q_proj", "o_proj"]})
    run, ended = train(tmp_path, cache, config, code=USAGE)
    assert_one_message(ended, '"o_proj" matches no module', "did you mean out_proj?")
    assert not run.folder.exists()
