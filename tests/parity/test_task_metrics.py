# SPDX-License-Identifier: Apache-2.0
"""Every metric of a classifier's evaluation against scikit-learn, live, through build/metrics_tool."""

import os
import sys
import warnings

import numpy as np
import pytest
from scipy.special import expit, softmax
from sklearn import metrics as sk
from sklearn.calibration import calibration_curve

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "support"))
from optim_tool import metrics_tool  # noqa: E402, F401

COUNTS, RANKED = 1e-12, 1e-9
BINS = 15


@pytest.fixture(autouse=True)
def undefined_scores_count_as_zero():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def draw(seed, rows, labels, used=None, multi=False, ties=False):
    """Returns random logits and the truth, which uses the first `used` labels. With ties, few logits differ."""
    generator = np.random.default_rng(seed)
    shape = (rows, labels)
    logits = generator.integers(-1, 2, shape) if ties else generator.normal(size=shape) * 3
    if multi:
        truth = (generator.random(shape) < expit(logits)).astype(int)
        truth[:, used:] = 0
    else:
        truth = np.where(generator.random(rows) < 0.4, logits[:, :used].argmax(1), generator.integers(0, used, rows))
    return logits.astype(np.float32), truth


def ask(tool, logits, truth, multi=False):
    answer = tool.ask(multi_label=multi, logits=logits.tolist(), truth=truth.tolist())
    scores = np.array(answer["scores"], np.float32).reshape(logits.shape)
    expected = expit(logits.astype(float)) if multi else softmax(logits.astype(float), axis=1)
    assert scores == pytest.approx(expected, abs=1e-6)
    return answer, scores


def close(found, expected, tolerance):
    wrong = {name: (found[f"eval_{name}"], value) for name, value in expected.items()
             if found[f"eval_{name}"] != pytest.approx(value, abs=tolerance, nan_ok=True)}
    assert not wrong, f"found, expected: {wrong}"


def averages(truth, predicted, **more):
    return {f"{average}_{name}": score(truth, predicted, average=average, **more)
            for average in ("macro", "micro", "weighted")
            for name, score in (("f1", sk.f1_score), ("precision", sk.precision_score), ("recall", sk.recall_score))}


def calibration_error(right, confidence):
    """The mean of scikit-learn's calibration curve, weighted by the predictions of each bin."""
    confidence = confidence.astype(float)
    share, mean = calibration_curve(right, confidence, n_bins=BINS, pos_label=1)
    bins = np.searchsorted(np.linspace(0, 1, BINS + 1)[1:-1], confidence)
    rows = np.bincount(bins)
    return (np.abs(share - mean) * rows[rows > 0]).sum() / rows.sum()


SINGLE = [dict(rows=50, labels=2, used=2), dict(rows=400, labels=5, used=5), dict(rows=500, labels=77, used=77),
          dict(rows=60, labels=4, used=3), dict(rows=40, labels=30, used=30, ties=True), dict(rows=1, labels=3, used=3),
          dict(rows=200, labels=2, used=2, ties=True), dict(rows=30, labels=3, used=1), dict(rows=1, labels=2, used=1)]


@pytest.mark.parametrize("case", SINGLE, ids=str)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_counts_of_single_label_equal_scikit_learn(metrics_tool, case, seed):
    logits, truth = draw(seed, **case)
    answer, scores = ask(metrics_tool, logits, truth)
    predicted, labels = logits.argmax(1), range(case["labels"])
    close(answer["values"], {"accuracy": sk.accuracy_score(truth, predicted),
                             "mcc": sk.matthews_corrcoef(truth, predicted),
                             "majority_baseline": np.bincount(truth).max() / len(truth),
                             **averages(truth, predicted)}, COUNTS)
    tables = answer["tables"]
    assert tables["eval_confusion_matrix"] == sk.confusion_matrix(truth, predicted, labels=labels).tolist()
    each = np.array(sk.precision_recall_fscore_support(truth, predicted, labels=labels)).T
    found = [[row[key] for key in ("precision", "recall", "f1", "rows")] for row in tables["eval_per_class"]]
    assert found == pytest.approx(each, abs=COUNTS)
    error = calibration_error(predicted == truth, scores[np.arange(len(truth)), predicted])
    close(answer["values"], {"expected_calibration_error": error}, RANKED)
    for k in (2, 3, 5):
        assert (f"eval_top_{k}_accuracy" in answer["values"]) == (k < case["labels"])
        if k < case["labels"]:
            close(answer["values"], {f"top_{k}_accuracy": sk.top_k_accuracy_score(truth, logits, k=k, labels=labels)},
                  COUNTS)


@pytest.mark.parametrize("case", [case for case in SINGLE if case["labels"] > 2], ids=str)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_rankings_of_several_labels_equal_scikit_learn(metrics_tool, case, seed):
    logits, truth = draw(seed, **case)
    answer, scores = ask(metrics_tool, logits, truth)
    marks = np.eye(case["labels"])[truth]
    roc_auc = sk.roc_auc_score(marks, scores, average=None)
    precision = sk.average_precision_score(marks, scores, average=None)
    rows = answer["tables"]["eval_per_class"]
    assert [row["average_precision"] for row in rows] == pytest.approx(precision, abs=RANKED)
    assert [np.nan if row["roc_auc"] is None else row["roc_auc"] for row in rows] == pytest.approx(
        roc_auc, abs=RANKED, nan_ok=True)
    close(answer["values"], {f"{prefix}average_precision": sk.average_precision_score(marks, scores, average=average)
                             for prefix, average in (("", "macro"), ("weighted_", "weighted"))}, RANKED)
    defined = ~np.isnan(roc_auc)
    if defined.all():
        shares = scores / scores.sum(1, keepdims=True)
        close(answer["values"], {f"{prefix}roc_auc": sk.roc_auc_score(truth, shares, multi_class="ovr", average=average)
                                 for prefix, average in (("", "macro"), ("weighted_", "weighted"))}, 1e-7)
    if defined.any():
        weights = marks.sum(0)[defined]
        close(answer["values"], {"roc_auc": roc_auc[defined].mean(),
                                 "weighted_roc_auc": np.average(roc_auc[defined], weights=weights)}, RANKED)
    else:
        assert answer["values"]["eval_roc_auc"] is None


@pytest.mark.parametrize("case", [case for case in SINGLE if case["labels"] == 2], ids=str)
def test_rankings_of_two_labels_are_those_of_the_second(metrics_tool, case):
    logits, truth = draw(0, **case)
    answer, scores = ask(metrics_tool, logits, truth)
    values = answer["values"]
    close(values, {"average_precision": sk.average_precision_score(truth, scores[:, 1])}, RANKED)
    if len(set(truth)) == 2:
        close(values, {"roc_auc": sk.roc_auc_score(truth, scores[:, 1])}, RANKED)
    else:
        assert values["eval_roc_auc"] is None and np.isnan(sk.roc_auc_score(truth, scores[:, 1]))


def test_a_label_without_rows_is_left_out_of_roc_auc_where_scikit_learn_gives_nothing(metrics_tool):
    logits, truth = draw(0, rows=60, labels=4, used=3)
    answer, scores = ask(metrics_tool, logits, truth)
    assert np.isnan(sk.roc_auc_score(np.eye(4)[truth], scores, average="macro"))
    with pytest.raises(ValueError, match="Number of classes"):
        sk.roc_auc_score(truth, scores, multi_class="ovr")
    seen = [sk.roc_auc_score(truth == label, scores[:, label]) for label in range(3)]
    close(answer["values"], {"roc_auc": np.mean(seen)}, RANKED)


MULTI = [dict(rows=100, labels=4, used=4), dict(rows=7, labels=12, used=12), dict(rows=300, labels=6, used=6, ties=True),
         dict(rows=80, labels=5, used=3), dict(rows=1, labels=3, used=3), dict(rows=20, labels=3, used=0)]


@pytest.mark.parametrize("case", MULTI, ids=str)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_multi_label_metrics_equal_scikit_learn(metrics_tool, case, seed):
    logits, truth = draw(seed, multi=True, **case)
    answer, scores = ask(metrics_tool, logits, truth, multi=True)
    predicted, values = (logits > 0).astype(int), answer["values"]
    _, rows = np.unique(truth, axis=0, return_counts=True)
    close(values, {"accuracy": sk.accuracy_score(truth, predicted), "hamming_loss": sk.hamming_loss(truth, predicted),
                   "majority_baseline": rows.max() / len(truth),
                   **averages(truth, predicted, zero_division=0)}, COUNTS)
    each = np.array(sk.precision_recall_fscore_support(truth, predicted, zero_division=0)).T
    found = [[row[key] for key in ("precision", "recall", "f1", "rows")] for row in answer["tables"]["eval_per_class"]]
    assert found == pytest.approx(each, abs=COUNTS)
    close(values, {"expected_calibration_error": calibration_error(truth.ravel(), scores.ravel()),
                   "average_precision": sk.average_precision_score(truth, scores, average="macro")}, RANKED)
    roc_auc = sk.roc_auc_score(truth, scores, average=None)
    defined = ~np.isnan(roc_auc)
    if not defined.any():
        assert values["eval_roc_auc"] is None
        return
    weights = truth.sum(0)
    close(values, {"weighted_average_precision": sk.average_precision_score(truth, scores, average="weighted"),
                   "roc_auc": roc_auc[defined].mean(),
                   "weighted_roc_auc": np.average(roc_auc[defined], weights=weights[defined])}, RANKED)
    if defined.all():
        close(values, {f"{prefix}roc_auc": sk.roc_auc_score(truth, scores, average=average)
                       for prefix, average in (("", "macro"), ("weighted_", "weighted"))}, RANKED)


@pytest.mark.parametrize("multi", [False, True])
@pytest.mark.parametrize("labels", [2, 3, 4, 8])
def test_every_name_for_the_best_model_is_a_value_of_the_evaluation(metrics_tool, multi, labels):
    logits, truth = draw(0, rows=20, labels=labels, used=labels, multi=multi)
    answer, _ = ask(metrics_tool, logits, truth, multi)
    named = {f"eval_{name}" for name in answer["names"]}
    assert named | {"eval_samples", "eval_majority_baseline"} == set(answer["values"])


def test_predictions_of_one_class_are_told(metrics_tool):
    logits, truth = draw(0, rows=40, labels=3, used=3)
    assert ask(metrics_tool, logits, truth)[0]["warning"] == ""
    logits[:, 1] = 99
    assert 'all 40 rows are predicted as "1"' in ask(metrics_tool, logits, truth)[0]["warning"]
    assert ask(metrics_tool, logits, np.ones_like(truth))[0]["warning"] == "", "the truth has one class, too"
    logits, truth = draw(0, rows=40, labels=3, used=3, multi=True)
    assert ask(metrics_tool, logits, truth, True)[0]["warning"] == ""
    assert "predicted as having no label" in ask(metrics_tool, logits - 99, truth, True)[0]["warning"]


def test_scores_that_are_not_numbers_leave_rankings_undefined(metrics_tool):
    logits, truth = draw(0, rows=20, labels=3, used=3)
    answer = metrics_tool.ask(multi_label=False, truth=truth.tolist(), logits=[[None] * 3, *logits[1:].tolist()])
    for name in ("roc_auc", "average_precision", "expected_calibration_error"):
        assert answer["values"][f"eval_{name}"] is None, name
