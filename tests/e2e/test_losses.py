# SPDX-License-Identifier: Apache-2.0
"""Class weights, label smoothing, regression and text pairs: loss and gradient of each step against live torch and
transformers, the same bits on other ranks and after a kill, and the result in PEFT and scikit-learn."""

import json
import random

import common
import numpy as np
import pytest
import tiny_model
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from runs import adapter, assert_equal, assert_one_message, command, json_lines, losses, padded, train, write_jsonl
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import mean_absolute_error, mean_squared_error
from sklearn.utils.class_weight import compute_class_weight
from torch.nn import functional
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer
from transformers.trainer_pt_utils import LabelSmoother

torch.set_num_threads(1)

STEPS, BATCH, ACCUMULATION = 3, 4, 2  # the last step is ragged: its second micro-batch has two rows
ROWS = STEPS * BATCH * ACCUMULATION - 2
LABELS = ["ham", "spam", "toxic"]
LORA = dict(r=4, lora_alpha=16, target_modules=["q_proj", "v_proj", "c_fc"])
EXACT = dict(attn_implementation="eager", dtype=torch.float32)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("losses") / "base"
    return tiny_model.make_model_folder(folder, num_layers=2, hidden_size=32, std=0.1)


@pytest.fixture(scope="module")
def texts():
    return tiny_model.sample_texts(ROWS, seed=5)


class Situation:
    """A task with its rows, the adapter that it starts from, and the loss that transformers' users take."""

    def __init__(self, name, labels, column, loss, num_labels=3, **trainer):
        self.name, self.labels, self.column, self.loss, self.num_labels = name, labels, column, loss, num_labels
        self.trainer = trainer

    def rows(self, texts):
        if self.column is None:
            return [{"text": text} for text in texts]
        return [{"text": text, self.column: label} for text, label in zip(texts, self.labels)]

    def model(self, base):
        if self.column is None:
            return AutoModelForCausalLM.from_pretrained(base, **EXACT)
        torch.manual_seed(3)
        pad = AutoTokenizer.from_pretrained(base).eos_token_id
        return AutoModelForSequenceClassification.from_pretrained(base, num_labels=self.num_labels, pad_token_id=pad,
                                                                  problem_type=self.problem_type, **EXACT)

    @property
    def problem_type(self):
        if self.column is None:
            return None
        if self.name.startswith("regression"):
            return "regression"
        kind = "multi" if self.column == "labels" else "single"
        return f"{kind}_label_classification"

    def start(self, base, folder):
        """Writes an adapter whose B matrices are not zero, so that every tensor has a gradient."""
        task = "SEQ_CLS" if self.column else "CAUSAL_LM"
        model = get_peft_model(self.model(base), LoraConfig(task_type=task, **LORA))
        generator = torch.Generator().manual_seed(11)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "lora_B" in name:
                    parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.05)
        model.save_pretrained(folder)
        return PeftModel.from_pretrained(self.model(base), folder, is_trainable=True)

    def config(self, base, start, data):
        config = {
            "model_config": {"pretrained_model_name": str(base), "frozen_dtype": "float32"},
            "peft_config": {**LORA, "init_from": str(start), "task_type": "SEQ_CLS" if self.column else "CAUSAL_LM"},
            "trainer_config": {"num_train_epochs": 1, "learning_rate": 0, "per_device_train_batch_size": BATCH,
                               "gradient_accumulation_steps": ACCUMULATION, "train_sampling_strategy": "sequential",
                               **self.trainer},
            "data": {"train": str(data)},
        }
        if self.column:
            config["data"]["label_column" if self.column == "label" else "labels_column"] = self.column
            config["model_config"] |= {"problem_type": self.problem_type, "num_labels": self.num_labels}
        if self.problem_type in ("single_label_classification", "multi_label_classification"):
            config["data"]["label_names"] = LABELS
        return config


rng = random.Random(6)
SINGLE = rng.sample(LABELS, k=ROWS, counts=[13, 6, 3])
MULTI = [[name for name, share in zip(LABELS, (0.7, 0.2, 0.3)) if rng.random() < share] for _ in range(ROWS)]
NUMBERS = [round(rng.uniform(-2, 3), 3) for _ in range(ROWS)]
LISTS = [[round(rng.uniform(-2, 3), 3), rng.randint(0, 4), -rng.random()] for _ in range(ROWS)]
BALANCED = torch.tensor(compute_class_weight("balanced", classes=np.array(LABELS), y=SINGLE), dtype=torch.float32)
COUNTS = [sum(name in row for row in MULTI) for name in LABELS]
POSITIVE = torch.tensor([(ROWS - count) / count for count in COUNTS])


def classes(rows):
    return torch.tensor([LABELS.index(row["label"]) for row in rows])


def flags(rows):
    return torch.tensor([[float(name in row["labels"]) for name in LABELS] for row in rows])


def weighted(weight):
    return lambda out, batch, rows: functional.cross_entropy(out.logits, classes(rows), weight=weight)


def smoothed(out, batch, rows):
    return LabelSmoother(0.1)(out, classes(rows))


def smoothed_lm(out, batch, rows):
    labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
    return LabelSmoother(0.1)(out, labels, shift_labels=True)


def positive(out, batch, rows):
    return functional.binary_cross_entropy_with_logits(out.logits, flags(rows), pos_weight=POSITIVE)


def numbers(out, batch, rows):
    """transformers' own loss; see GPTNeoForSequenceClassification."""
    values = torch.tensor([row.get("label", row.get("labels")) for row in rows])
    return functional.mse_loss(out.logits.squeeze(), values.squeeze())


SITUATIONS = [
    Situation("balanced", SINGLE, "label", weighted(BALANCED), class_weights="auto"),
    Situation("given", SINGLE, "label", weighted(torch.tensor([1.0, 0.25, 6.5])),
              class_weights={"toxic": 6.5, "spam": 0.25}),
    Situation("positive", MULTI, "labels", positive, class_weights="auto"),
    Situation("smoothed", SINGLE, "label", smoothed, label_smoothing_factor=0.1),
    Situation("smoothed language model", None, None, smoothed_lm, label_smoothing_factor=0.1),
    Situation("regression", NUMBERS, "label", numbers, num_labels=1),
    Situation("regression of three", LISTS, "labels", numbers),
]


def reference_steps(model, base, rows, loss):
    """Returns loss and gradient norm of each step, each computed as one batch."""
    tokenizer = AutoTokenizer.from_pretrained(base)
    parameters = [value for value in model.parameters() if value.requires_grad]
    steps = []
    for first in range(0, len(rows), BATCH * ACCUMULATION):
        part = rows[first : first + BATCH * ACCUMULATION]
        end = [] if "label" in part[0] or "labels" in part[0] else [tokenizer.eos_token_id]
        batch = padded([tokenizer(row["text"]).input_ids + end for row in part], tokenizer.eos_token_id)
        value = loss(model(**batch), batch, part)
        model.zero_grad()
        value.backward()
        steps.append((value.item(), torch.nn.utils.clip_grad_norm_(parameters, float("inf")).item()))
    return steps


@pytest.mark.parametrize("situation", SITUATIONS, ids=lambda situation: situation.name)
def test_each_step_has_the_loss_and_gradient_of_torch_on_the_whole_batch(situation, base, texts, tmp_path, cache):
    rows = situation.rows(texts)
    model = situation.start(base, tmp_path / "start").train()
    config = situation.config(base, tmp_path / "start", write_jsonl(tmp_path / "train.jsonl", rows))
    expected = reference_steps(model, base, rows, situation.loss)
    run, ended = train(tmp_path / "one", cache, config)
    assert losses(run) == pytest.approx([loss for loss, _ in expected], rel=1e-5)
    found = [event["grad_norm"] for event in run.events("train")]
    assert found == pytest.approx([norm for _, norm in expected], rel=1e-4)
    if situation.trainer:  # the gradient of the plain loss is another
        plain = common.merged(config, {})
        for key in situation.trainer:
            del plain["trainer_config"][key]
        other, _ = train(tmp_path / "plain", cache, plain)
        assert abs(other.events("train")[0]["grad_norm"] / expected[0][1] - 1) > 1e-2
    # Two ranks share the same micro-batches: the same bits.
    config["trainer_config"]["gradient_accumulation_steps"] = 1
    config["runtime"] = {"global_batch_size": BATCH * ACCUMULATION}
    config["trainer_config"]["learning_rate"] = 1e-3
    two, _ = train(tmp_path / "two", cache, config, ranks=2)
    alone, _ = train(tmp_path / "alone", cache, config)
    assert losses(two) == losses(alone)
    assert_equal(adapter(two.folder / "adapter"), adapter(alone.folder / "adapter"))


def test_transformers_computes_the_mean_squared_error_that_this_file_takes(base, texts):
    for situation in SITUATIONS[-2:]:
        rows = situation.rows(texts)[:4]
        model = situation.model(base)
        tokenizer = AutoTokenizer.from_pretrained(base)
        batch = padded([tokenizer(row["text"]).input_ids for row in rows], tokenizer.eos_token_id)
        values = torch.tensor([row[situation.column] for row in rows])
        out = model(**batch, labels=values)
        assert out.loss.item() == numbers(out, batch, rows).item()


def test_the_log_tells_the_weights_and_the_run_start_holds_them(base, texts, tmp_path, cache):
    situation = SITUATIONS[0]
    situation.start(base, tmp_path / "start")
    data = write_jsonl(tmp_path / "train.jsonl", situation.rows(texts))
    run, ended = train(tmp_path, cache, situation.config(base, tmp_path / "start", data))
    assert f"class weights: ham {BALANCED[0]:.4g}, spam {BALANCED[1]:.4g}, toxic {BALANCED[2]:.4g}" in ended.err
    assert run.events("run_start")[0]["class_weights"] == pytest.approx(BALANCED.tolist())


@pytest.mark.parametrize("number,trainer,words", [
    (0, dict(class_weights={"eggs": 2}), ["class_weights", '"eggs"', "ham, spam, toxic"]),
    (0, dict(class_weights="auto", label_smoothing_factor=0.1), ["class_weights", "label_smoothing_factor"]),
    (2, dict(label_smoothing_factor=0.1, class_weights=None), ["label_smoothing_factor", "multi-label"]),
    (4, dict(class_weights="auto", label_smoothing_factor=0), ["class_weights", "language model"]),
    (5, dict(class_weights="auto"), ["class_weights", "regression"]),
    (0, dict(class_weights={"ham": 0}), ["class_weights.ham", "above 0"]),
    (0, dict(class_weights="balance"), ["class_weights", "auto, or a map"]),
], ids=str)
def test_what_a_loss_does_not_have_is_refused(number, trainer, words, base, texts, tmp_path, cache):
    situation = SITUATIONS[number]
    situation.start(base, tmp_path / "start")
    config = situation.config(base, tmp_path / "start", write_jsonl(tmp_path / "train.jsonl", situation.rows(texts)))
    config["trainer_config"] |= trainer
    _, ended = train(tmp_path, cache, config, code=2)
    assert_one_message(ended, *words)


@pytest.mark.parametrize("number", [5, 6], ids=["one value", "three values"])
def test_a_regression_is_evaluated_predicted_and_loaded_by_peft(number, base, texts, tmp_path, cache):
    situation = SITUATIONS[number]
    rows = situation.rows(texts)
    situation.start(base, tmp_path / "start")
    data = write_jsonl(tmp_path / "train.jsonl", rows)
    config = situation.config(base, tmp_path / "start", data)
    config["trainer_config"] |= {"learning_rate": 1e-2, "eval_strategy": "steps", "eval_steps": 1,
                                 "load_best_model_at_end": True, "metric_for_best_model": "spearmanr",
                                 "save_strategy": "steps", "save_steps": 1, "per_device_eval_batch_size": 3}
    config["data"]["validation"] = str(data)
    run, ended = train(tmp_path, cache, config, ranks=2)
    assert "task: regression" in ended.err
    found = json.loads(command(cache, "evaluate", "--run", run.folder, "--data", data))
    best = max(run.events("eval"), key=lambda event: event["eval_spearmanr"])
    lines = json_lines(command(cache, "predict", "--run", run.folder, "--input", data, ranks=2))
    assert [line["index"] for line in lines] == list(range(ROWS))
    predicted = torch.tensor([line.get("value", line.get("values")) for line in lines]).reshape(ROWS, -1)
    truth = torch.tensor([row[situation.column] for row in rows]).reshape(ROWS, -1)

    tokenizer = AutoTokenizer.from_pretrained(run.folder / "adapter")
    model = PeftModel.from_pretrained(situation.model(base), run.folder / "adapter").eval()
    with torch.no_grad():
        batch = padded([tokenizer(row["text"]).input_ids for row in rows], tokenizer.eos_token_id)
        assert torch.allclose(model(**batch).logits, predicted, atol=1e-5)
    assert json.loads((run.folder / "adapter/config.json").read_text())["problem_type"] == "regression"

    x, y = predicted.double().numpy(), truth.float().double().numpy()
    columns = range(y.shape[1])
    expected = {
        "eval_mse": mean_squared_error(y, x), "eval_mae": mean_absolute_error(y, x),
        "eval_pearson": sum(pearsonr(x[:, k], y[:, k]).statistic for k in columns) / len(columns),
        "eval_spearmanr": sum(spearmanr(x[:, k], y[:, k]).statistic for k in columns) / len(columns),
    }
    for key, value in expected.items():
        assert found[key] == pytest.approx(value, rel=1e-9, abs=1e-12)
    assert found["eval_loss"] == pytest.approx(expected["eval_mse"], rel=1e-6)
    assert found["eval_spearmanr"] == best["eval_spearmanr"]
    again = json.loads(command(cache, "evaluate", "--run", run.folder, "--data", data, ranks=3))
    assert {k: again[k] for k in expected} == {k: found[k] for k in expected}


def test_a_csv_holds_numbers_and_bad_ones_are_named(base, tmp_path, cache):
    rows = [f'"text {i}",{i / 4}\n' for i in range(12)]
    (tmp_path / "train.csv").write_text("text,label\n" + "".join(rows))
    config = {"model_config": {"pretrained_model_name": str(base), "num_labels": 1},
              "peft_config": {"r": 2}, "trainer_config": {"max_steps": 1},
              "data": {"train": str(tmp_path / "train.csv")}}
    _, ended = train(tmp_path / "good", cache, config)
    assert "task: regression, 1 value a row" in ended.err and "from 0 to 2.75" in ended.err
    wrong = {"much": ["line 14", "a number"], "nan": ["line 14", "a number"], "1|2": ["expected 1 value"]}
    for text, words in wrong.items():
        (tmp_path / "train.csv").write_text("text,label\n" + "".join(rows) + f"more,{text}\n")
        _, ended = train(tmp_path / f"bad {text[0]}", cache, config, code=3)
        assert_one_message(ended, *words)


PAIRS = {
    "both short": ("free cash", "call now"),
    "first longer": ("free cash call now and win a prize with your bank card today", "call"),
    "second longer": ("no", "free cash call now and win a prize with your bank card today"),
    "both long": ("hello friend are you coming home tonight or tomorrow morning",
                  "lunch at the office meeting moved tomorrow morning please"),
    "empty second": ("hello friend", ""),
}


@pytest.mark.parametrize("max_length", [8, 9, 48])
def test_text_pairs_are_joined_and_cut_as_the_tokenizer_does(max_length, base, tmp_path, cache):
    rows = [{"premise": a, "hypothesis": b, "label": LABELS[i % 2]} for i, (a, b) in enumerate(PAIRS.values())]
    data = write_jsonl(tmp_path / "train.jsonl", rows)
    config = {"model_config": {"pretrained_model_name": str(base), "frozen_dtype": "float32"}, "peft_config": {"r": 2},
              "tokenizer_config": {"max_length": max_length}, "trainer_config": {"max_steps": 2, "learning_rate": 1e-2},
              "data": {"train": str(data), "text_column": "premise", "text_pair_column": "hypothesis"}}
    run, _ = train(tmp_path, cache, config, ranks=2)
    lines = json_lines(command(cache, "predict", "--run", run.folder, "--input", data))
    tokenizer = AutoTokenizer.from_pretrained(run.folder / "adapter")
    base_model = AutoModelForSequenceClassification.from_pretrained(
        base, num_labels=2, pad_token_id=tokenizer.eos_token_id, **EXACT)
    model = PeftModel.from_pretrained(base_model, run.folder / "adapter").eval()
    for row, line in zip(rows, lines, strict=True):
        ids = tokenizer(row["premise"], row["hypothesis"], truncation=True, max_length=max_length, return_tensors="pt")
        with torch.no_grad():
            expected = model(**ids).logits.softmax(-1)[0]
        assert list(line["scores"].values()) == pytest.approx(expected.tolist(), abs=1e-6)
    del config["data"]["text_pair_column"]
    _, ended = train(tmp_path, cache, config, code=2)
    assert_one_message(ended, "training data and its settings")


def test_a_killed_run_with_class_weights_ends_with_the_same_bits(data, cache, tmp_path):
    config = common.make_config("classification", data, cache)
    config["trainer_config"]["class_weights"] = "auto"
    whole = common.Run(tmp_path / "whole", config)
    whole.train(1).expect(0)
    killed = common.Run(tmp_path / "killed", config)
    ended = killed.train(2, NEOLOOM_FAULT="kill:rank=1:step=6")
    assert ended.code != 0
    killed.train(3).expect(0)
    assert killed.state() == whole.state() and killed.losses() == whole.losses()
    other = common.merged(config, {"trainer_config": {"class_weights": {"ham": 2}}})
    ended = common.Run(tmp_path / "killed", other).train(1).expect(2)
    assert "trainer_config.class_weights" in ended.err
