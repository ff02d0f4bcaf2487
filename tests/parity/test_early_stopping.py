# SPDX-License-Identifier: Apache-2.0
"""Early stopping against transformers' EarlyStoppingCallback inside a live Trainer, through build/metrics_tool."""

import math
import os
import sys

import pytest
from transformers import EarlyStoppingCallback

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "support"))
from optim_tool import metrics_tool  # noqa: E402, F401
from trainer_replay import Replay  # noqa: E402

NAN = math.nan
SEQUENCES = {
    "falls, then stays": [1.0, 0.8, 0.7, 0.7, 0.7, 0.7, 0.6],
    "small steps add up to nothing": [1.0, 0.98, 0.96, 0.94, 0.92, 0.9, 0.88],
    "jumps": [1.0, 1.5, 0.9, 1.2, 0.9, 0.5, 0.7, 0.8, 0.4],
    "not finite": [0.9, NAN, 0.8, NAN, NAN, 0.1],
    "not finite at first": [NAN, NAN, 0.9, 0.8, 1.0, 1.0],
    "rises": [0.1, 0.2, 0.3, 0.3, 0.35, 0.9],
}


class Watched(EarlyStoppingCallback):
    """Keeps the count of failures after each evaluation."""

    def __init__(self, patience, threshold):
        super().__init__(patience, threshold)
        self.failed = []

    def on_evaluate(self, *arguments, **keywords):
        super().on_evaluate(*arguments, **keywords)
        self.failed.append(self.early_stopping_patience_counter)


@pytest.mark.parametrize("greater_is_better", [False, True])
@pytest.mark.parametrize("patience,threshold", [(1, 0.0), (2, 0.0), (2, 0.05), (3, 0.05)])
@pytest.mark.parametrize("name", SEQUENCES)
def test_counts_and_the_end_equal_the_callback(tmp_path, metrics_tool, name, patience, threshold, greater_is_better):
    values = SEQUENCES[name]
    callback = Watched(patience, threshold)
    oracle = Replay(tmp_path, 2, {step: {"eval_loss": value} for step, value in enumerate(values, start=1)}, [callback],
                    max_steps=len(values), eval_strategy="steps", eval_steps=1, save_strategy="no",
                    per_device_train_batch_size=2, metric_for_best_model="loss", greater_is_better=greater_is_better)
    oracle.train()
    answer = metrics_tool.ask(values=[None if math.isnan(value) else value for value in values], patience=patience,
                              threshold=threshold, greater_is_better=greater_is_better)
    ends = oracle.state.global_step
    assert answer["failed"][:ends] == callback.failed
    assert (answer["stops"] + [True]).index(True) + 1 == (ends if callback.failed[-1] >= patience else len(values) + 1)
