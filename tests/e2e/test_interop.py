# SPDX-License-Identifier: Apache-2.0
"""Folders in both directions: what neoloom trains, transformers and peft compute alike, and the other way round."""

import json
import math
import re

import common
import pytest
import tiny_model
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from runs import command, json_lines, padded, train, write_jsonl
from sklearn.metrics import f1_score, roc_auc_score
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer, TrainingArguments
from transformers.utils import logging

logging.set_verbosity_error()
torch.set_num_threads(1)
SINGLE = ["ham", "späm", "other 😀"]
MULTI = ["🍕 food", "money 💰", "travel", "👨‍👩‍👧 family"]
ROWS = 500
EXACT = dict(attn_implementation="eager", dtype=torch.float32)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny_model.make_model_folder(tmp_path_factory.mktemp("base") / "gpt-neo", num_layers=3, hidden_size=32,
                                        std=0.1)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """single.jsonl, multi.jsonl, text.jsonl: the same 500 texts with one label, with several, with none."""
    folder = tmp_path_factory.mktemp("data")
    rows = tiny_model.write_classification_jsonl(folder / "single.jsonl", ROWS, SINGLE, seed=3)
    chosen = [[name for bit, name in enumerate(MULTI) if (5 * i + i // 7) >> bit & 1] for i in range(ROWS)]
    write_jsonl(folder / "multi.jsonl", [{"text": r["text"], "labels": c} for r, c in zip(rows, chosen, strict=True)])
    write_jsonl(folder / "text.jsonl", [{"text": row["text"]} for row in rows])
    return folder


def texts(files):
    return [row["text"] for row in json_lines((files / "text.jsonl").read_text())]


def template(base, data, **model_config):
    """Returns the four groups of the public template, as a user would paste them, and a data path."""
    return {
        "model_config": {"pretrained_model_name": str(base), "frozen_dtype": "float32", **model_config},
        "quantization_config": {},
        "peft_config": {"peft_type": "LORA", "r": 4, "lora_alpha": 16, "lora_dropout": 0.1},
        "tokenizer_config": {},
        "trainer_config": {"num_train_epochs": 1, "per_device_train_batch_size": 16, "auto_find_batch_size": True,
                           "learning_rate": 2e-2},
        "data": {"train": str(data)},
    }


def classifier_of(folder, base):
    """Loads an adapter folder that says what its labels are, as a user of PEFT does."""
    head = AutoConfig.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(
        base, num_labels=head.num_labels, id2label=head.id2label, label2id=head.label2id,
        problem_type=head.problem_type, pad_token_id=head.pad_token_id, **EXACT)
    return PeftModel.from_pretrained(model, folder).eval()


def all_logits(model, tokenizer, lines, size=50):
    """Returns the logits [rows, labels] of a classifier, in batches padded on the right."""
    found = []
    with torch.no_grad():
        for first in range(0, len(lines), size):
            batch = padded([tokenizer(line).input_ids for line in lines[first : first + size]], tokenizer.eos_token_id)
            found.append(model(**batch).logits)
    return torch.cat(found)


def assert_scores(predictions, scores, names):
    assert [row["index"] for row in predictions] == list(range(len(scores)))
    for row, expected in zip(predictions, scores.tolist(), strict=True):
        assert list(row["scores"]) == names
        assert list(row["scores"].values()) == pytest.approx(expected, abs=1e-4)


def assert_single_label(predictions, logits, names):
    scores = torch.softmax(logits, -1)
    assert_scores(predictions, scores, names)
    assert [row["label"] for row in predictions] == [names[i] for i in scores.argmax(-1)]
    assert len({row["label"] for row in predictions}) > 1, "a constant prediction compares little"


@pytest.fixture(scope="module")
def single(base, files, tmp_path_factory, cache):
    config = template(base, files / "single.jsonl", problem_type="single_label_classification")
    return train(tmp_path_factory.mktemp("single"), cache, config)[0].folder


@pytest.fixture(scope="module")
def language_model(base, files, tmp_path_factory, cache):
    config = template(base, files / "text.jsonl")
    return train(tmp_path_factory.mktemp("lm"), cache, config)[0].folder


@pytest.fixture(scope="module")
def full(base, files, tmp_path_factory, cache):
    """Every parameter trained: no adapter, a whole model."""
    config = template(base, files / "text.jsonl")
    del config["peft_config"]
    config["trainer_config"]["learning_rate"] = 1e-3
    return train(tmp_path_factory.mktemp("full"), cache, config)[0].folder


def test_the_template_trains_a_classifier_that_peft_runs_alike(single, base, files, cache):
    predictions = json_lines(command(cache, "predict", "--run", single, "--input", files / "text.jsonl"))
    tokenizer = AutoTokenizer.from_pretrained(single / "adapter")
    model = classifier_of(single / "adapter", base)
    names = [model.config.id2label[i] for i in range(len(SINGLE))]
    assert sorted(names) == sorted(SINGLE)
    assert_single_label(predictions, all_logits(model, tokenizer, texts(files)), names)


def test_several_labels_with_emoji_names_are_scored_alike(base, files, tmp_path, cache):
    config = template(base, files / "multi.jsonl", problem_type="multi_label_classification")
    run, _ = train(tmp_path, cache, config)
    predictions = json_lines(command(cache, "predict", "--run", run.folder, "--input", files / "text.jsonl"))
    adapter = run.folder / "adapter"
    model = classifier_of(adapter, base)
    names = [model.config.id2label[i] for i in range(len(MULTI))]
    assert sorted(names) == sorted(MULTI)
    assert model.config.problem_type == "multi_label_classification"
    scores = torch.sigmoid(all_logits(model, AutoTokenizer.from_pretrained(adapter), texts(files)))
    assert_scores(predictions, scores, names)
    chosen = [[name for name, score in zip(names, row, strict=True) if score > 0.5] for row in scores.tolist()]
    assert [row["labels"] for row in predictions] == chosen
    assert len({tuple(row) for row in chosen}) > 1
    found = assert_same_on_ranks(cache, "--run", run.folder, "--data", files / "multi.jsonl")
    truth = [[name in row["labels"] for name in names] for row in json_lines((files / "multi.jsonl").read_text())]
    assert found["eval_roc_auc"] == pytest.approx(roc_auc_score(truth, scores), abs=1e-4)
    assert found["eval_micro_f1"] == pytest.approx(f1_score(truth, scores > 0.5, average="micro"), abs=1e-9)


def assert_same_on_ranks(cache, *arguments):
    """Returns what evaluate prints, which has the same bits on one rank and on three."""
    alone, three = (json.loads(command(cache, "evaluate", *arguments, ranks=ranks)) for ranks in (0, 3))
    for found in (alone, three):
        for key in common.CLOCK_KEYS:
            del found[key]
    assert alone == three
    return alone


def peft_classifier(base, folder, files):
    """An adapter that PEFT made and trained for a few steps."""
    names = dict(enumerate(SINGLE))
    eos = AutoTokenizer.from_pretrained(base).eos_token_id
    torch.manual_seed(1)
    model = AutoModelForSequenceClassification.from_pretrained(
        base, num_labels=len(SINGLE), id2label=names, label2id={v: k for k, v in names.items()}, pad_token_id=eos,
        **EXACT)
    model = get_peft_model(model, LoraConfig(task_type="SEQ_CLS", r=4, lora_alpha=8, target_modules="all-linear"))
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=2e-2)
    tokenizer = AutoTokenizer.from_pretrained(base)
    rows = json_lines((files / "single.jsonl").read_text())[:64]
    for first in range(0, 64, 16):
        some = rows[first : first + 16]
        batch = padded([tokenizer(row["text"]).input_ids for row in some], eos)
        labels = torch.tensor([SINGLE.index(row["label"]) for row in some])
        model(**batch, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval().save_pretrained(folder)
    model.config.save_pretrained(folder)  # the labels: PEFT does not write them
    return model, tokenizer


def test_an_adapter_that_peft_trained_predicts_and_evaluates_alike(base, files, tmp_path, cache):
    model, tokenizer = peft_classifier(base, tmp_path / "peft", files)
    logits = all_logits(model, tokenizer, texts(files))
    source = ("--model", base, "--adapter", tmp_path / "peft")
    assert_single_label(json_lines(command(cache, "predict", *source, "--input", files / "text.jsonl")), logits, SINGLE)
    found = json.loads(command(cache, "evaluate", *source, "--data", files / "single.jsonl", ranks=2))
    labels = torch.tensor([SINGLE.index(row["label"]) for row in json_lines((files / "single.jsonl").read_text())])
    assert found["eval_loss"] == pytest.approx(torch.nn.functional.cross_entropy(logits, labels).item(), abs=1e-5)
    assert found["eval_accuracy"] == (logits.argmax(-1) == labels).double().mean().item()
    assert found["eval_macro_f1"] == pytest.approx(f1_score(labels, logits.argmax(-1), average="macro"), abs=1e-9)
    scores = torch.softmax(logits, -1)
    assert found["eval_roc_auc"] == pytest.approx(roc_auc_score(labels, scores, multi_class="ovr"), abs=1e-4)
    assert found["eval_majority_baseline"] == labels.bincount().max().item() / len(labels)
    assert_same_on_ranks(cache, *source, "--data", files / "single.jsonl")


def test_what_transformers_and_peft_write_of_their_defaults_pastes_in_whole(base, files, tmp_path):
    arguments = json.loads(TrainingArguments(output_dir=str(tmp_path / "out"), hub_token="hf_Abcdefgh12345").to_json_string())
    assert arguments["hub_token"] == "<HUB_TOKEN>"
    LoraConfig(task_type="SEQ_CLS").save_pretrained(tmp_path)
    lora = json.loads((tmp_path / "adapter_config.json").read_text())
    config = {"model_config": {"pretrained_model_name": str(base)}, "data": {"train": str(files / "single.jsonl")},
              "trainer_config": arguments, "peft_config": lora}
    (tmp_path / "run.json").write_text(json.dumps(config))
    printed = common.neoloom(0, "train", "--config", tmp_path / "run.json", "--print-config").expect(0)
    # PEFT writes its version, which is no setting.
    [warning] = [line for line in printed.err.splitlines() if "warning" in line]
    assert "peft_config.peft_version" in warning and "has no effect" in warning


def test_a_merged_classifier_is_a_transformers_folder(single, files, tmp_path, cache):
    command(cache, "export", "--run", single, "--format", "merged", "--dtype", "float32", "--output", tmp_path / "out")
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out", **EXACT).eval()
    logits = all_logits(model, AutoTokenizer.from_pretrained(tmp_path / "out"), texts(files))
    names = [model.config.id2label[i] for i in range(len(SINGLE))]
    for source in (("--run", single), ("--model", tmp_path / "out")):
        predictions = json_lines(command(cache, "predict", *source, "--input", files / "text.jsonl"))
        assert_single_label(predictions, logits, names)


def test_a_classifier_that_transformers_wrote_predicts_alike(base, files, tmp_path, cache):
    folder = tiny_model.make_model_folder(tmp_path / "hf", head="sequence_classification", labels=SINGLE, seed=9,
                                          num_layers=3, hidden_size=32, std=0.3)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder, **EXACT).eval()
    model.config.pad_token_id = tokenizer.eos_token_id
    predictions = json_lines(command(cache, "predict", "--model", folder, "--input", files / "text.jsonl"))
    assert_single_label(predictions, all_logits(model, tokenizer, texts(files)), SINGLE)


def mean_loss_and_accuracy(model, tokenizer, lines, limit=64):
    """Returns the mean loss and the accuracy per supervised token, one row at a time: neither padding nor a batch can
    matter."""
    total, right, count = 0.0, 0, 0
    with torch.no_grad():
        for line in lines:
            ids = torch.tensor([(tokenizer(line).input_ids + [tokenizer.eos_token_id])[:limit]])
            output = model(input_ids=ids, labels=ids)
            total += output.loss.item() * (ids.shape[1] - 1)
            right += (output.logits[:, :-1].argmax(-1) == ids[:, 1:]).sum().item()
            count += ids.shape[1] - 1
    return total / count, right / count


def assert_language_model(model, tokenizer, source, files, cache):
    found = json.loads(command(cache, "evaluate", *source, "--data", files / "text.jsonl"))
    expected, right = mean_loss_and_accuracy(model, tokenizer, texts(files))
    assert found["eval_loss"] == pytest.approx(expected, abs=1e-5)
    assert found["eval_perplexity"] == pytest.approx(math.exp(expected), rel=1e-5)
    assert found["eval_token_accuracy"] == pytest.approx(right, abs=1e-4)
    assert 0 < right < 1


def assert_same_greedy_text(model, tokenizer, source, cache):
    for prompt in ["free win", "hello"]:
        ids = torch.tensor([tokenizer(prompt).input_ids])
        with torch.no_grad():
            expected = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=24, do_sample=False,
                                      pad_token_id=tokenizer.eos_token_id)[0, ids.shape[1] :]
        [line] = json_lines(command(cache, "generate", *source, "--prompt", prompt, "--max_tokens", 24,
                                    "--temperature", 0, "--json"))
        wanted = [i for i in expected.tolist() if i != tokenizer.eos_token_id]
        assert [i for i in line["ids"] if i != tokenizer.eos_token_id] == wanted
        assert line["text"] == tokenizer.decode(wanted)


def test_a_language_model_adapter_measures_and_speaks_alike(language_model, base, files, cache):
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, **EXACT), language_model / "adapter")
    tokenizer = AutoTokenizer.from_pretrained(language_model / "adapter")
    assert_language_model(model.eval(), tokenizer, ("--run", language_model), files, cache)
    assert_same_greedy_text(model, tokenizer, ("--run", language_model), cache)


def test_a_merged_language_model_has_the_adapters_logits(language_model, base, files, tmp_path, cache):
    command(cache, "export", "--run", language_model, "--format", "merged", "--dtype", "float32", "--output",
            tmp_path / "out")
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "out", **EXACT).eval()
    adapted = AutoModelForCausalLM.from_pretrained(base, **EXACT)
    adapted = PeftModel.from_pretrained(adapted, language_model / "adapter").eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    batch = padded([tokenizer(line).input_ids for line in texts(files)[:20]], tokenizer.eos_token_id)
    with torch.no_grad():
        expected = adapted(**batch).logits
        assert (merged(**batch).logits - expected).abs().max() <= 1e-5 * expected.abs().max()
        assert (AutoModelForCausalLM.from_pretrained(base, **EXACT)(**batch).logits - expected).abs().max() > 1e-2


def test_a_merged_export_tells_how_far_its_logits_are(language_model, single, tmp_path, cache):
    """Over the run's own rows. 16-bit weights are farther than fp32 ones, and a missing data file stops nothing."""
    differences = {}
    for run, dtype in ((language_model, "float32"), (language_model, "float16"), (single, "float32")):
        output = tmp_path / f"{run.parent.name}-{dtype}"
        ended = common.neoloom(0, "export", "--run", run, "--format", "merged", "--dtype", dtype, "--output", output,
                               "--set", f"runtime.cache_dir={cache}").expect(0)
        told = re.search(r"largest difference of a logit over 16 rows: (\S+), where the largest logit is (\S+)", ended.err)
        differences[output.name] = float(told[1]) / float(told[2])
        assert not output.with_name(output.name + ".check").exists()
    exact, rounded, classifier = differences.values()
    assert exact < 1e-5 and classifier < 1e-5 and 1e-5 < rounded < 5e-2
    ended = common.neoloom(0, "export", "--run", language_model, "--format", "merged", "--output", tmp_path / "out", "--set",
                           f"runtime.cache_dir={cache}", "--set", "data.train=gone.jsonl").expect(0)
    assert "the logits were not compared" in ended.err


def test_a_merged_export_tells_the_dtypes_of_both_computations(full, tmp_path, cache):
    ended = common.neoloom(0, "export", "--run", full, "--format", "merged", "--output", tmp_path / "out", "--set",
                           f"runtime.cache_dir={cache}", "--set", "runtime.compute_dtype=bfloat16").expect(0)
    after, before = re.search(r"weights in float32, computed in (\w+); before: weights in float32, computed in (\w+)",
                              ended.err).groups()
    assert after == "float32" and before in ("bfloat16", "float32")  # float32: a CPU without GEMMs in bfloat16


def test_an_adapter_has_no_other_dtype(single, tmp_path):
    ended = common.neoloom(0, "export", "--run", single, "--dtype", "float16", "--output", tmp_path / "out").expect(2)
    assert "--dtype float16: an adapter is always written in float32" in ended.err and not (tmp_path / "out").exists()


def test_a_fully_trained_model_is_a_transformers_folder(full, base, files, cache):
    folder = full / "model"
    assert (folder / "generation_config.json").read_text() == (base / "generation_config.json").read_text()
    model = AutoModelForCausalLM.from_pretrained(folder, **EXACT).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    before = AutoModelForCausalLM.from_pretrained(base, **EXACT).eval()
    loss, loss_before = (mean_loss_and_accuracy(m, tokenizer, texts(files)[:50])[0] for m in (model, before))
    assert loss < loss_before - 0.1
    assert_language_model(model, tokenizer, ("--run", full), files, cache)
    assert_same_greedy_text(model, tokenizer, ("--model", folder), cache)
