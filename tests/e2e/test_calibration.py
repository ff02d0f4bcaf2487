# SPDX-License-Identifier: Apache-2.0
"""trainer_config.calibrate: temperature and thresholds, fitted on the validation data, stored beside the adapter, used by
predict and evaluate."""

import json
import subprocess

import common
import numpy as np
import pytest
import tiny_model
import torch
from peft import PeftModel
from runs import adapter, assert_equal, assert_one_message, command, json_lines, train, write_jsonl
from scipy.optimize import minimize_scalar
from scipy.special import expit, log_softmax, softmax
from sklearn.metrics import f1_score, log_loss
from test_interop import EXACT, all_logits, classifier_of
from transformers import AutoModelForSequenceClassification, AutoTokenizer

torch.set_num_threads(1)
USAGE, WEIGHTS = 2, 4
TOPICS = ["food", "money", "travel"]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny_model.make_model_folder(tmp_path_factory.mktemp("base") / "gpt-neo", hidden_size=32, std=0.1)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    for name, count, seed in (("train", 60, 1), ("dev", 45, 2)):
        rows = tiny_model.write_classification_jsonl(folder / f"{name}.jsonl", count, ("ham", "spam", "other"), seed)
        rng = np.random.default_rng(seed)
        write_jsonl(folder / f"{name}_topics.jsonl",
                    [{"text": row["text"], "labels": [t for i, t in enumerate(TOPICS) if rng.random() < 0.2 + 0.3 * i]}
                     for row in rows])
    return folder


def config_of(base, files, multi=False, **trainer):
    suffix = "_topics" if multi else ""
    columns = {"labels_column": "labels"} if multi else {"label_column": "label"}
    return {"model_config": {"pretrained_model_name": str(base), "frozen_dtype": "float32"},
            "peft_config": {"task_type": "SEQ_CLS", "r": 4, "lora_alpha": 16},
            "trainer_config": {"max_steps": 12, "learning_rate": 3e-2, "per_device_train_batch_size": 8, "calibrate": True,
                               **trainer},
            "data": {"train": str(files / f"train{suffix}.jsonl"), "validation": str(files / f"dev{suffix}.jsonl"),
                     **columns}}


@pytest.fixture(scope="module")
def single(base, files, tmp_path_factory, cache):
    return train(tmp_path_factory.mktemp("single"), cache, config_of(base, files))[0]


@pytest.fixture(scope="module")
def multi(base, files, tmp_path_factory, cache):
    return train(tmp_path_factory.mktemp("multi"), cache, config_of(base, files, multi=True))[0]


def rows_of(path):
    return json_lines(path.read_text())


def logits_of(folder, base, rows):
    """The logits of PEFT, which reads the folder with the calibration in it."""
    return all_logits(classifier_of(folder, base), AutoTokenizer.from_pretrained(folder), [row["text"] for row in rows])


def truth_of(rows, names):
    if "label" in rows[0]:
        return np.array([names.index(row["label"]) for row in rows])
    return np.array([[name in row["labels"] for name in names] for row in rows]).astype(int)


def fitted(logits, truth):
    logits = logits.double().numpy()

    def loss(x):
        scaled = logits / np.exp(x)
        if truth.ndim > 1:
            return (np.logaddexp(0, scaled) - truth * scaled).mean()
        return -log_softmax(scaled, axis=1)[np.arange(len(truth)), truth].mean()

    return np.exp(minimize_scalar(loss, bounds=(np.log(0.01), np.log(100)), method="bounded", options={"xatol": 1e-9}).x)


def calibration_of(folder):
    return json.loads((folder / "calibration.json").read_text())


def predictions(cache, path, *arguments):
    return json_lines(command(cache, "predict", "--input", path, *arguments))


def scores_of(lines):
    return np.array([list(line["scores"].values()) for line in lines])


def evaluation(cache, *arguments):
    return json.loads(command(cache, "evaluate", *arguments))


def test_one_label_a_row(single, base, files, cache):
    folder, rows = single.folder / "adapter", rows_of(files / "dev.jsonl")
    made = calibration_of(folder)
    logits = logits_of(folder, base, rows)
    truth = truth_of(rows, made["labels"])
    assert made["temperature"] == pytest.approx(fitted(logits, truth), abs=1e-3) and abs(made["temperature"] - 1) > 0.05
    assert made["samples"] == len(rows) and "thresholds" not in made
    run = ("--run", single.folder)
    plain = predictions(cache, files / "dev.jsonl", *run, "--no_calibration")
    used = predictions(cache, files / "dev.jsonl", *run)
    assert scores_of(plain) == pytest.approx(softmax(logits.numpy(), axis=1), abs=1e-5)
    expected = softmax(logits.numpy() / made["temperature"], axis=1)
    assert scores_of(used) == pytest.approx(expected, abs=1e-5)
    assert [line["label"] for line in used] == [line["label"] for line in plain]
    before, after = evaluation(cache, *run, "--no_calibration"), evaluation(cache, *run)
    assert made["expected_calibration_error"] == {"before": before["eval_expected_calibration_error"],
                                                  "after": after["eval_expected_calibration_error"]}
    assert after["eval_loss"] == pytest.approx(log_loss(truth, expected, labels=range(3)), abs=1e-6)
    assert after["eval_loss"] < before["eval_loss"] and after["eval_accuracy"] == before["eval_accuracy"]
    assert single.events("run_end")[-1]["calibration"] == made
    told = common.neoloom(0, "evaluate", *run).expect(0).err
    assert "adapter/calibration.json" in told and "--no_calibration" in told


def test_a_filter_has_the_scores_of_a_file(single, files, cache):
    whole = command(cache, "predict", "--run", single.folder, "--input", files / "dev.jsonl")
    with (files / "dev.jsonl").open() as rows:
        done = subprocess.run(common.command(0, "predict", "--run", single.folder, "--input", "-"), stdin=rows,
                              capture_output=True, text=True, env=common.environment())
    assert scores_of(json_lines(done.stdout)) == pytest.approx(scores_of(json_lines(whole)), abs=1e-6), done.stderr


def test_several_labels_a_row(multi, base, files, cache):
    folder, rows = multi.folder / "adapter", rows_of(files / "dev_topics.jsonl")
    made = calibration_of(folder)
    logits = logits_of(folder, base, rows)
    truth = truth_of(rows, made["labels"])
    assert made["temperature"] == pytest.approx(fitted(logits, truth), abs=1e-3)
    run = ("--run", multi.folder)
    used = predictions(cache, files / "dev_topics.jsonl", *run)
    assert scores_of(used) == pytest.approx(expit(logits.numpy() / made["temperature"]), abs=1e-5)
    scores = scores_of(used).astype(np.float32)
    for k, threshold in enumerate(made["thresholds"]):
        levels = np.append(np.unique(scores[:, k])[::-1], np.float32(0))
        candidates = [np.float32((float(high) + float(low)) / 2) for high, low in zip(levels, levels[1:])]
        values = [f1_score(truth[:, k], scores[:, k] > each) for each in candidates]
        # The run's evaluation has other batches than predict: LibTorch's sigmoid differs in the last bit between the lanes of
        # a vector and its tail.
        assert threshold == pytest.approx(float(candidates[int(np.argmax(values))]), rel=2e-7)
    chosen = scores > np.array(made["thresholds"], np.float32)
    assert [line["labels"] for line in used] == [[n for n, on in zip(made["labels"], row) if on] for row in chosen]
    before, after = evaluation(cache, *run, "--no_calibration"), evaluation(cache, *run)
    assert after["eval_macro_f1"] == pytest.approx(f1_score(truth, chosen, average="macro"), abs=1e-12)
    assert after["eval_macro_f1"] > before["eval_macro_f1"] and after["eval_loss"] <= before["eval_loss"]
    bce = (np.logaddexp(0, logits.numpy() / made["temperature"]) - truth * logits.numpy() / made["temperature"]).mean()
    assert after["eval_loss"] == pytest.approx(bce, abs=1e-6)
    assert before["eval_macro_f1"] == pytest.approx(f1_score(truth, logits.numpy() > 0, average="macro"), abs=1e-12)


@pytest.mark.parametrize("kind", ("single", "multi"))
def test_any_number_of_ranks_gives_the_same_bytes(kind, base, files, cache, tmp_path):
    config = config_of(base, files, multi=kind == "multi", per_device_train_batch_size=4, max_steps=6)
    config["runtime"] = {"global_batch_size": 8}
    made = [(train(tmp_path / str(ranks), cache, config, ranks=ranks)[0].folder / "adapter/calibration.json").read_bytes()
            for ranks in (0, 2, 3)]
    assert made[0] == made[1] == made[2]


def test_the_best_model_is_calibrated_when_it_is_the_result(base, files, cache, tmp_path):
    # The largest loss is the "best", so that it is not the last one.
    config = config_of(base, files, eval_strategy="steps", eval_steps=2, load_best_model_at_end=True, greater_is_better=True)
    run, _ = train(tmp_path, cache, config)
    assert max(run.events("eval"), key=lambda event: event["eval_loss"])["step"] < 12
    rows = rows_of(files / "dev.jsonl")
    made = calibration_of(run.folder / "adapter")
    logits = logits_of(run.folder / "adapter", base, rows)
    assert made["temperature"] == pytest.approx(fitted(logits, truth_of(rows, made["labels"])), abs=1e-3)
    assert not (run.folder / "adapter-best/calibration.json").exists()
    config["runtime"] = {"global_batch_size": 8}
    two, _ = train(tmp_path / "two", cache, config, ranks=2)
    assert calibration_of(two.folder / "adapter") == made


def test_a_finished_run_can_be_calibrated_and_its_tensors_stay(base, files, cache, tmp_path, single):
    run, _ = train(tmp_path, cache, config_of(base, files, calibrate=False))
    before = adapter(run.folder / "adapter")
    assert not (run.folder / "adapter/calibration.json").exists()
    run, _ = train(tmp_path, cache, config_of(base, files))
    assert_equal(adapter(run.folder / "adapter"), before)
    assert calibration_of(run.folder / "adapter") == calibration_of(single.folder / "adapter")


def test_exports_keep_the_calibration(multi, base, files, cache, tmp_path):
    expected = predictions(cache, files / "dev_topics.jsonl", "--run", multi.folder)
    original = (multi.folder / "adapter/calibration.json").read_bytes()
    for form, use in (("peft", ("--model", base, "--adapter")), ("merged", ("--model",))):
        command(cache, "export", "--run", multi.folder, "--format", form, "--output", tmp_path / form)
        assert (tmp_path / form / "calibration.json").read_bytes() == original
        found = predictions(cache, files / "dev_topics.jsonl", *use, tmp_path / form)
        assert [line["labels"] for line in found] == [line["labels"] for line in expected]
        assert scores_of(found) == pytest.approx(scores_of(expected), abs=1e-5)
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "merged", **EXACT)
    assert model.config.num_labels == 3
    assert isinstance(PeftModel.from_pretrained(model, tmp_path / "peft"), PeftModel)


def test_full_training_has_it_beside_the_weights(base, files, cache, tmp_path):
    config = config_of(base, files, learning_rate=1e-3)
    del config["peft_config"]
    run, _ = train(tmp_path, cache, config)
    made = calibration_of(run.folder / "model")
    plain = predictions(cache, files / "dev.jsonl", "--run", run.folder, "--no_calibration")
    used = predictions(cache, files / "dev.jsonl", "--run", run.folder)
    expected = softmax(np.log(scores_of(plain)) / made["temperature"], axis=1)
    assert scores_of(used) == pytest.approx(expected, abs=1e-4)


def test_a_checkpoint_says_that_it_is_not_calibrated(base, files, cache, tmp_path):
    run, _ = train(tmp_path, cache, config_of(base, files, max_steps=2, save_strategy="steps", save_steps=1))
    words = ("evaluate", "--run", run.folder, "--checkpoint", "last", "--set", f"runtime.cache_dir={cache}")
    note = "a checkpoint has none, so scores are those of the plain logits"
    assert note in common.neoloom(0, *words).expect(0).err
    assert note not in common.neoloom(0, *words, "--no_calibration").expect(0).err


def test_a_calibration_on_few_rows_or_one_label_is_doubted(base, files, cache, tmp_path, single):
    rows = rows_of(files / "dev.jsonl")
    few, spam = "less than 20 samples", 'all samples have the label "spam"'
    for name, chosen, told in (("few", rows[:19], {few}), ("one", [{**row, "label": "spam"} for row in rows[:20]], {spam}),
                               ("enough", rows[:20], set())):
        config = config_of(base, files, max_steps=1)
        config["data"]["validation"] = str(write_jsonl(tmp_path / f"{name}.jsonl", chosen))
        run, ended = train(tmp_path / name, cache, config)
        assert {text for text in (few, spam) if text in ended.err} == told
        warned = [event["message"] for event in run.events("warning") if "calibration" in event["message"]]
        assert all(any(text in each for each in warned) for text in told)


def test_what_cannot_be_calibrated_is_refused(base, files, cache, tmp_path):
    config = config_of(base, files)
    for data, words in (({"validation": None}, ("none",)),
                        ({"validation": {"a": config["data"]["validation"], "b": config["data"]["validation"]}}, ("2",))):
        changed = {**config, "data": {key: value for key, value in {**config["data"], **data}.items() if value}}
        _, ended = train(tmp_path, cache, changed, code=USAGE)
        assert_one_message(ended, "trainer_config.calibrate", "one validation set", *words)
    del config["data"]["label_column"]
    changed = {**config, "peft_config": {"task_type": "CAUSAL_LM"}}
    _, ended = train(tmp_path, cache, changed, code=USAGE)
    assert_one_message(ended, "trainer_config.calibrate", "causal language model")


def test_a_file_that_does_not_fit_is_named(single, base, files, cache, tmp_path):
    command(cache, "export", "--run", single.folder, "--output", tmp_path / "adapter")
    file = tmp_path / "adapter/calibration.json"
    model = ("--model", base, "--adapter", tmp_path / "adapter", "--data", files / "dev.jsonl")
    made = json.loads(file.read_text())
    for text, words in (("{", ("calibration.json",)), ("{}", ("temperature", "--no_calibration")),
                        (json.dumps({**made, "labels": ["a", "b"]}), ("2 labels", "3")),
                        (json.dumps({**made, "temperature": -1}), ("above 0", "-1"))):
        file.write_text(text)
        assert_one_message(common.neoloom(0, "evaluate", *model).expect(WEIGHTS), file, *words)
        common.neoloom(0, "evaluate", *model, "--no_calibration").expect(0)
