# SPDX-License-Identifier: Apache-2.0
"""Windows of long texts (tokenizer_config.return_overflowing_tokens): what training, evaluate and predict make of them,
beside transformers; the same bits on any number of ranks, and over a kill."""

import json
import math
import subprocess

import common
import pytest
import tiny_model
import torch
from common import STOPPED, Run, make_config
from runs import assert_one_message, assert_same_end, command, json_lines, losses, train, write_jsonl
from torch.nn import functional
from transformers import AutoModelForSequenceClassification, AutoTokenizer

USAGE = 2
MAX_LENGTH, STRIDE = 16, 5
WINDOWS = {"max_length": MAX_LENGTH, "return_overflowing_tokens": True, "stride": STRIDE}
LABELS = ["ham", "spam", "other"]
ROWS = 37
TEXTS = [" ".join(tiny_model.sample_texts(1 + i % 4, seed=i)) for i in range(ROWS)]
TARGETS = {
    "single_label_classification": ("label", [LABELS[i % 3] for i in range(ROWS)]),
    "multi_label_classification": ("labels", [[LABELS[k] for k in range(3) if (i >> k) & 1] for i in range(ROWS)]),
    "regression": ("labels", [[i / 10, -i / 7, 1.0] for i in range(ROWS)]),
}


@pytest.fixture(scope="module", params=TARGETS)
def problem(request):
    return request.param


@pytest.fixture(scope="module")
def base(problem, tmp_path_factory):
    return tiny_model.make_model_folder(tmp_path_factory.mktemp("base") / problem, head="sequence_classification",
                                        labels=LABELS, problem_type=problem, std=0.3)


@pytest.fixture(scope="module")
def rows(problem, tmp_path_factory):
    column, targets = TARGETS[problem]
    return write_jsonl(tmp_path_factory.mktemp("rows") / "rows.jsonl",
                       [{"text": text, column: target} for text, target in zip(TEXTS, targets)])


@pytest.fixture(scope="module")
def window_logits(base):
    """The logits of each row's windows."""
    tokenizer = AutoTokenizer.from_pretrained(base)
    model = AutoModelForSequenceClassification.from_pretrained(base, attn_implementation="eager", dtype=torch.float32)
    encoded = tokenizer(TEXTS, truncation=True, max_length=MAX_LENGTH, stride=STRIDE, return_overflowing_tokens=True)
    logits = [[] for _ in TEXTS]
    model.config.pad_token_id = tokenizer.eos_token_id
    with torch.no_grad():
        for row, ids in zip(encoded.overflow_to_sample_mapping, encoded.input_ids):
            logits[row].append(model(input_ids=torch.tensor([ids])).logits[0].double())
    return logits


def loss_of(problem, logits, target):
    if problem == "regression":
        return functional.mse_loss(logits, torch.tensor(target, dtype=torch.float64))
    if problem == "multi_label_classification":
        flags = torch.tensor([float(name in target) for name in LABELS], dtype=torch.float64)
        return functional.binary_cross_entropy_with_logits(logits, flags)
    return functional.cross_entropy(logits, torch.tensor(LABELS.index(target)))


def window_settings(problem):
    column = "label_column=label" if problem.startswith("single") else "labels_column=labels"
    sets = [f"tokenizer_config.{key}={json.dumps(value)}" for key, value in WINDOWS.items()]
    return [word for setting in (*sets, f"data.{column}") for word in ("--set", setting)]


def evaluated(cache, base, rows, problem, *more, ranks=0):
    result = json.loads(command(cache, "evaluate", "--model", base, "--data", rows, *window_settings(problem), *more,
                                ranks=ranks))
    return {key: value for key, value in result.items() if key not in common.CLOCK_KEYS}


def test_evaluate_counts_each_row_once_by_the_mean_of_its_windows(base, rows, problem, window_logits, cache):
    found = evaluated(cache, base, rows, problem)
    means = [torch.stack(windows).mean(0) for windows in window_logits]
    _, targets = TARGETS[problem]
    loss = sum(float(loss_of(problem, mean, target)) for mean, target in zip(means, targets)) / ROWS
    assert found["eval_samples"] == ROWS < sum(map(len, window_logits))
    assert found["eval_loss"] == pytest.approx(loss, rel=1e-5)
    if problem.startswith("single"):
        right = sum(LABELS[int(mean.argmax())] == target for mean, target in zip(means, targets))
        assert found["eval_accuracy"] == right / ROWS
        assert sum(map(sum, found["eval_confusion_matrix"])) == ROWS
        assert found["eval_majority_baseline"] == 13 / 37
    if problem == "regression":
        errors = [torch.tensor(target, dtype=torch.float64) - mean for mean, target in zip(means, targets)]
        assert found["eval_mae"] == pytest.approx(float(torch.stack(errors).abs().mean()), rel=1e-5)


def test_results_are_the_same_on_any_number_of_ranks(base, rows, problem, cache):
    expected = evaluated(cache, base, rows, problem)
    for ranks in (2, 3):
        assert evaluated(cache, base, rows, problem, ranks=ranks) == expected
    for batch in (1, 64):  # a batch of another size rounds differently
        found = evaluated(cache, base, rows, problem, "--set", f"trainer_config.per_device_eval_batch_size={batch}")
        assert found["eval_loss"] == pytest.approx(expected["eval_loss"], rel=1e-6)
    answers = command(cache, "predict", "--model", base, "--input", rows, *window_settings(problem))
    assert command(cache, "predict", "--model", base, "--input", rows, *window_settings(problem), ranks=3) == answers


def test_predict_gives_a_row_the_mean_of_its_windows(base, rows, problem, window_logits, tmp_path, cache):
    content = rows.read_text().splitlines(keepends=True)
    content.insert(5, '{"text": 7}\n')
    broken = tmp_path / "broken.jsonl"
    broken.write_text("".join(content))
    lines = json_lines(command(cache, "predict", "--model", base, "--input", broken, *window_settings(problem)))
    assert [line["index"] for line in lines] == list(range(ROWS + 1))
    assert "expected a text" in lines.pop(5)["error"]
    for line, windows in zip(lines, window_logits):
        mean = torch.stack(windows).mean(0)
        if problem == "regression":
            assert line["values"] == pytest.approx(mean.tolist(), abs=1e-5)
        else:
            scores = torch.sigmoid(mean) if problem.startswith("multi") else torch.softmax(mean, 0)
            assert list(line["scores"].values()) == pytest.approx(scores.tolist(), abs=1e-5)


def test_predict_answers_a_line_with_the_mean_of_its_windows(base, rows, problem, cache):
    arguments = ("predict", "--model", base, *window_settings(problem))
    expected = json_lines(command(cache, *arguments, "--input", rows))
    sets = ("--set", "runtime.device=cpu", "--set", "runtime.threads_per_rank=1", "--set", f"runtime.cache_dir={cache}",
            "--set", "model_config.frozen_dtype=float32")
    done = subprocess.run(common.command(0, *arguments, "--input", "-", *sets), env=common.environment(),
                          input=rows.read_text(), capture_output=True, text=True, timeout=120, check=True)
    for found, line in zip(json_lines(done.stdout), expected, strict=True):
        values = [each.get("values") or list(each["scores"].values()) for each in (found, line)]
        assert values[0] == pytest.approx(values[1], abs=1e-5)


def test_each_window_trains_as_a_sample_with_its_row_s_label(base, rows, problem, window_logits, tmp_path, cache):
    count = sum(map(len, window_logits))
    column, targets = TARGETS[problem]
    config = {
        "model_config": {"pretrained_model_name": str(base), "problem_type": problem, "frozen_dtype": "float32"},
        "peft_config": {"task_type": "SEQ_CLS", "r": 2},
        "tokenizer_config": WINDOWS,
        "data": {"train": str(rows), "label_column" if column == "label" else "labels_column": column,
                 "label_names": LABELS},
        "trainer_config": {"num_train_epochs": 1, "per_device_train_batch_size": count, "learning_rate": 0},
    }
    run, ended = train(tmp_path, cache, config)
    expected = [float(loss_of(problem, logits, target)) for windows, target in zip(window_logits, targets) for logits in windows]
    assert losses(run) == [pytest.approx(sum(expected) / count, rel=1e-5)]
    split = sum(len(windows) > 1 for windows in window_logits)
    windows = count - (ROWS - split)
    told = f"{split} of {ROWS} rows ({100 * split / ROWS:.3g} %) are longer than max_length and have {windows} windows"
    assert f"training data: tokens a window: median {MAX_LENGTH}" in ended.err and told in ended.err
    plan = common.neoloom(0, "plan", "--config", run.config_file).expect(0).out
    assert told in plan and f"\nsamples                 {count} (0 rows left out, 0 cut)" in plan
    again = common.neoloom(0, "evaluate", "--run", run.folder, "--data", rows, "--set", f"runtime.cache_dir={cache}").expect(0)
    assert json.loads(again.out)["eval_samples"] == ROWS, "the run's own windows"
    assert f"windows: {told}" in again.err


@pytest.fixture(scope="module")
def config(data, cache):
    config = make_config("classification", data, cache)
    return common.merged(config, {"tokenizer_config": WINDOWS, "trainer_config": {"save_steps": 5, "eval_steps": 6}})


@pytest.fixture(scope="module")
def undisturbed(config, tmp_path_factory):
    run = Run(tmp_path_factory.mktemp("undisturbed") / "run", config)
    run.train(2).expect(0)
    return run


def test_the_same_bits_on_one_rank_and_over_a_kill(config, undisturbed, data, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(data / "base")
    texts = [json.loads(line)["text"] for line in (data / "train.jsonl").read_text().splitlines()]
    windows = len(tokenizer(texts, truncation=True, max_length=MAX_LENGTH, stride=STRIDE,
                            return_overflowing_tokens=True).input_ids)
    steps = 3 * math.ceil(windows / 12)
    assert [event["step"] for event in undisturbed.events("train")] == list(range(1, steps + 1)) and windows > len(texts)
    assert {event["eval_samples"] for event in undisturbed.events("eval")} == {21}
    one = Run(tmp_path / "one", config)
    one.train(1).expect(0)
    assert_same_end(one, undisturbed)
    killed = Run(tmp_path / "killed", config)
    assert killed.train(3, NEOLOOM_FAULT="kill:rank=1:step=9").code not in (0, STOPPED)
    killed.train(1).expect(0)
    assert_same_end(killed, undisturbed)


def test_another_stride_does_not_resume(config, undisturbed, tmp_path):
    other = Run(undisturbed.folder, config, tokenizer_config={"stride": STRIDE - 1})
    assert_one_message(other.train(0).expect(USAGE), "training data and its settings (SHA-256)")


def test_a_validation_split_keeps_the_windows_of_a_row_together(config, tmp_path):
    changes = {"data": {**config["data"], "validation": "", "validation_split": 0.25}}
    run = Run(tmp_path / "split", {**config, **changes}, trainer_config={"max_steps": 6})
    run.train(2).expect(0)
    assert {event["eval_samples"] for event in run.events("eval")} == {14}
    again = common.neoloom(0, "evaluate", "--run", run.folder).expect(0)
    assert json.loads(again.out)["eval_loss"] == run.evaluations()[-1]["eval_loss"]


@pytest.mark.parametrize("changes, fragments", [
    ({"tokenizer_config": {"stride": 4, "return_overflowing_tokens": False}}, ("tokenizer_config.stride", "return_overflowing_tokens: true")),
    ({"tokenizer_config": {"stride": MAX_LENGTH}}, ("tokenizer_config.stride", f"less than the {MAX_LENGTH} tokens", f"found {MAX_LENGTH}")),
    ({"data": {"text_pair_column": "label"}}, ("return_overflowing_tokens", "text pairs have no windows")),
    ({"model_config": {"problem_type": ""}, "peft_config": {"task_type": "CAUSAL_LM"}, "data": {"label_column": ""}},
     ("return_overflowing_tokens", "data.pack: documents")),
], ids=["no windows", "long stride", "pairs", "language model"])
def test_what_has_no_windows_is_refused(config, tmp_path, changes, fragments):
    assert_one_message(Run(tmp_path / "run", config, **changes).train(0).expect(USAGE), *fragments)
