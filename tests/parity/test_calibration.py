# SPDX-License-Identifier: Apache-2.0
"""Temperature and thresholds (trainer_config.calibrate) against scipy and against every threshold there is, through
build/metrics_tool."""

import os
import sys

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import expit, log_softmax
from sklearn.metrics import f1_score

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "support"))
from optim_tool import metrics_tool  # noqa: E402, F401


def loss_at(logits, truth, temperature, multi):
    scaled = logits.astype(float) / temperature
    if multi:
        return (np.logaddexp(0, scaled) - truth * scaled).mean()
    return -log_softmax(scaled, axis=1)[np.arange(len(truth)), truth].mean()


def fitted(logits, truth, multi):
    """scipy's minimum over the logarithm of the temperature, in the range that neoloom searches."""
    found = minimize_scalar(lambda x: loss_at(logits, truth, np.exp(x), multi), bounds=(np.log(0.01), np.log(100)),
                            method="bounded", options={"xatol": 1e-9})
    return np.exp(found.x)


def brute_force(scores, truth):
    """Tries a threshold between every two scores, from the largest on. Returns the first of the largest F1 score."""
    if not truth.any():
        return np.float32(0.5)
    scores = scores.astype(np.float32)
    levels = np.append(np.unique(scores)[::-1], np.float32(0))
    candidates = [np.float32((float(high) + float(low)) / 2) for high, low in zip(levels, levels[1:])]
    values = [f1_score(truth, scores > each, zero_division=0) for each in candidates]
    return candidates[int(np.argmax(values))]


def draw(seed, rows, labels, sharpness, multi=False):
    """Logits that are `sharpness` times those that the truth is drawn from."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(size=(rows, labels)) * 2
    if multi:
        truth = (generator.random((rows, labels)) < expit(logits)).astype(int)
    else:
        truth = (log_softmax(logits, axis=1) + generator.gumbel(size=logits.shape)).argmax(1)
    return (logits * sharpness).astype(np.float32), truth


@pytest.mark.parametrize("rows, labels", ((1000, 2), (300, 5), (500, 40)))
@pytest.mark.parametrize("sharpness", (0.2, 1, 6))
def test_the_temperature_of_single_labels_is_scipys(metrics_tool, rows, labels, sharpness):
    logits, truth = draw(rows + labels, rows, labels, sharpness)
    found = metrics_tool.ask(calibrate=True, multi_label=False, logits=logits.tolist(), truth=truth.tolist())
    assert found["temperature"] == pytest.approx(fitted(logits, truth, False), rel=1e-4)
    assert found["temperature"] == pytest.approx(sharpness, rel=0.5), "it undoes what made the logits too sharp"


@pytest.mark.parametrize("rows, labels", ((500, 1), (300, 6)))
@pytest.mark.parametrize("sharpness", (0.2, 1, 6))
def test_temperature_and_thresholds_of_several_labels(metrics_tool, rows, labels, sharpness):
    logits, truth = draw(rows + labels, rows, labels, sharpness, multi=True)
    scores = expit(logits).astype(np.float32)
    scores[: rows // 2] = scores[: rows // 2].round(1)  # ties, with each other and with 0 and 1
    found = metrics_tool.ask(calibrate=True, multi_label=True, logits=logits.tolist(), truth=truth.tolist(),
                             scores=scores.tolist())
    assert found["temperature"] == pytest.approx(fitted(logits, truth, True), rel=1e-4)
    assert [np.float32(each) for each in found["thresholds"]] == [brute_force(*each) for each in zip(scores.T, truth.T)]


def test_thresholds_of_labels_that_all_rows_or_none_have(metrics_tool):
    logits = np.array([[2.0, -1.0, 0.5], [1.0, 3.0, 0.5], [-1.0, 0.5, 0.5]], np.float32)
    truth = np.array([[1, 0, 1], [1, 0, 0], [1, 0, 1]])
    scores = expit(logits).astype(np.float32)
    found = metrics_tool.ask(calibrate=True, multi_label=True, logits=logits.tolist(), truth=truth.tolist(),
                             scores=scores.tolist())["thresholds"]
    assert found[0] == pytest.approx(scores[2, 0] / 2), "below all scores"
    assert found[1] == 0.5
    assert found[2] == pytest.approx(scores[0, 2] / 2), "equal scores have one threshold"


@pytest.mark.parametrize("logits, truth, expected", (
    ([[3.0, 1.0], [0.0, 2.0]], [0, 1], 0.01),  # all right: the sharper, the better
    ([[3.0, 1.0], [0.0, 2.0]], [1, 0], 100.0),  # all wrong
    ([[1.0, 1.0], [2.0, 2.0]], [0, 1], 1.0),  # nothing to choose from
))
def test_the_range_of_temperatures(metrics_tool, logits, truth, expected):
    found = metrics_tool.ask(calibrate=True, multi_label=False, logits=logits, truth=truth)
    assert found["temperature"] == pytest.approx(expected)
