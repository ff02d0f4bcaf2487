# SPDX-License-Identifier: Apache-2.0
"""Accuracy and F1 scores against scikit-learn, live, through tests/support/optim_tool.py."""

import os
import sys
import warnings

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "support"))
from optim_tool import tool  # noqa: E402, F401


@pytest.mark.parametrize("labels, rows, used", [(2, 50, 2), (30, 40, 30), (77, 500, 20), (3, 1, 3), (5, 400, 5)])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_single_label_scores_equal_scikit_learn(tool, labels, rows, used, seed):
    generator = np.random.default_rng(seed)
    truth = generator.integers(0, max(1, used - 1), rows)
    predicted = np.where(generator.random(rows) < 0.6, truth, generator.integers(0, used, rows))
    answer = tool.ask(what="single_label", num_labels=labels, truth=truth.tolist(), predicted=predicted.tolist())
    assert answer["accuracy"] == pytest.approx(accuracy_score(truth, predicted), abs=1e-15)
    assert answer["macro_f1"] == pytest.approx(f1_score(truth, predicted, average="macro"), abs=1e-12)
    cells = confusion_matrix(truth, predicted, labels=range(labels))
    assert answer["cells"] == cells.ravel().tolist()


@pytest.mark.parametrize("labels, rows", [(1, 20), (4, 100), (12, 7)])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_multi_label_scores_equal_scikit_learn(tool, labels, rows, seed):
    generator = np.random.default_rng(seed)
    truth = (generator.random((rows, labels)) < 0.3).astype(int)
    predicted = np.where(generator.random((rows, labels)) < 0.8, truth, 1 - truth)
    truth[:, -1] = predicted[:, -1] = seed % 2  # a label that is never, or always, there
    answer = tool.ask(what="multi_label", num_labels=labels, truth=truth.tolist(), predicted=predicted.tolist())
    if labels == 1:  # scikit-learn takes one column for a binary task: score it with a second, empty column
        pad = np.zeros_like(truth)
        truth, predicted = np.hstack([truth, pad]), np.hstack([predicted, pad])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # undefined scores count as 0
        micro = f1_score(truth, predicted, average="micro", zero_division=0)
        each = f1_score(truth, predicted, average=None, zero_division=0)[:labels]
    assert answer["subset_accuracy"] == pytest.approx(accuracy_score(truth, predicted), abs=1e-15)
    assert answer["micro_f1"] == pytest.approx(micro, abs=1e-12)
    assert answer["macro_f1"] == pytest.approx(each.mean(), abs=1e-12)
