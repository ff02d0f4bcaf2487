# SPDX-License-Identifier: Apache-2.0
"""AdamW, clipping and schedules against torch and transformers, live, through tests/support/optim_tool.py."""

import os
import sys

import numpy as np
import pytest
import torch
from transformers import get_scheduler
from transformers.optimization import TYPE_TO_SCHEDULER_FUNCTION

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "support"))
from optim_tool import tool  # noqa: E402, F401


@pytest.mark.parametrize("total", [1, 7, 50])
@pytest.mark.parametrize("warmup", [0, 1, 5, 0.1, 0.3])
@pytest.mark.parametrize("name", ["linear", "cosine", "constant", "constant_with_warmup"])
def test_every_factor_of_a_schedule_equals_transformers(tool, name, warmup, total):
    answer = tool.ask(what="schedule", name=name, warmup=warmup, total=total)
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    scheduler = get_scheduler(name, optimizer, num_warmup_steps=answer["warmup"], num_training_steps=total)
    expected = []
    for _ in range(total):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert answer["factors"] == expected


SCHEDULES = [
    ("cosine", dict(num_cycles=1.25)),
    ("cosine_with_restarts", {}),
    ("cosine_with_restarts", dict(num_cycles=3)),
    ("polynomial", {}),
    ("polynomial", dict(lr_end=1e-5, power=2.5)),
    ("inverse_sqrt", {}),
    ("inverse_sqrt", dict(timescale=17)),
    ("cosine_with_min_lr", dict(min_lr=1e-4)),
    ("cosine_with_min_lr", dict(min_lr_rate=0.1, num_cycles=0.75)),
    ("cosine_warmup_with_min_lr", dict(min_lr_rate=0.1)),
    ("cosine_warmup_with_min_lr", dict(min_lr=1e-4, warmup_lr_rate=0.2)),
    ("warmup_stable_decay", dict(num_decay_steps=4)),
    ("warmup_stable_decay", dict(num_decay_steps=3, num_stable_steps=2, min_lr_ratio=0.1, decay_type="1-sqrt")),
    ("warmup_stable_decay", dict(num_decay_steps=9, warmup_type="cosine", decay_type="linear")),
    ("warmup_stable_decay", dict(num_decay_steps=9, warmup_type="1-sqrt", num_cycles=1.5)),
]


@pytest.mark.parametrize("total", [1, 7, 50])
@pytest.mark.parametrize("warmup", [0, 1, 5, 0.3])
@pytest.mark.parametrize("name,arguments", SCHEDULES, ids=str)
def test_schedules_with_arguments_equal_transformers(tool, name, arguments, warmup, total):
    rate = 3e-3
    answer = tool.ask(what="schedule", name=name, arguments=arguments, warmup=warmup, total=total, learning_rate=rate)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=rate)
    scheduler = get_scheduler(name, optimizer, num_warmup_steps=answer["warmup"], num_training_steps=total,
                              scheduler_specific_kwargs=arguments)
    factor = scheduler.lr_lambdas[0]
    assert answer["factors"] == [factor(t) for t in range(total)]


METRIC_SCHEDULES = [
    ("reduce_lr_on_plateau", {}),
    ("reduce_lr_on_plateau", dict(factor=0.5, patience=1, threshold=0.02, cooldown=2, min_lr=1e-4)),
    ("reduce_lr_on_plateau", dict(factor=0.3, patience=0, threshold=0.01, threshold_mode="abs", eps=1e-4)),
    ("greedy", {}),
    ("greedy", dict(factor=0.8, patience=1, min_lr=1e-4, max_lr=5e-3, cooldown=1, warmup=2)),
    ("greedy", dict(factor=0.5, patience=0, min_lr=1e-3, reset_start=2, threshold=0.02, threshold_mode="rel")),
    ("greedy", dict(factor=0.7, patience=0, min_lr=1e-5, smooth=True, window_size=4, reset_start=3)),
]


def evaluations(seed, count=120):
    """Values that fall, stay, repeat and jump; some are NaN."""
    generator = np.random.default_rng(seed)
    values = 2.0 * np.exp(-np.arange(count) / 30) + generator.normal(scale=0.05, size=count)
    values[20:30] = values[20]
    values[50] = np.nan
    values[80:] += 0.5
    return values.tolist()


def live_rates(name, arguments, values, rate):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=rate)
    scheduler = get_scheduler(name, optimizer, scheduler_specific_kwargs=arguments)
    rates = []
    for value in values:
        scheduler.step(value)
        rates.append(optimizer.param_groups[0]["lr"])
    return rates


def own_rates(tool, name, arguments, values, rate, greater_is_better=False, resume_at=-1):
    values = [None if np.isnan(value) else value for value in values]
    return tool.ask(what="metric_schedule", name=name, arguments=arguments, learning_rate=rate, values=values,
                    greater_is_better=greater_is_better, resume_at=resume_at)["rates"]


@pytest.mark.parametrize("greater_is_better", [False, True])
@pytest.mark.parametrize("name,arguments", METRIC_SCHEDULES, ids=str)
def test_schedules_that_follow_evaluations_equal_the_live_classes(tool, name, arguments, greater_is_better):
    rate, values = 3e-3, evaluations(seed=len(str(arguments)))
    if "smooth" in arguments:
        values = [value for value in values if not np.isnan(value)]  # a mean with NaN stays NaN
    if greater_is_better:
        values = [-value for value in values]
    expected = live_rates(name, {"mode": "max" if greater_is_better else "min", **arguments}, values, rate)
    for resume_at in (-1, 1, 33, 85):
        assert own_rates(tool, name, arguments, values, rate, greater_is_better, resume_at) == expected, resume_at
    if arguments:
        assert len(set(expected)) > 2, "the learning rate was to move"


def test_the_direction_is_that_of_the_metric_where_hugging_face_always_takes_min(tool):
    accuracies = [0.5 + 0.01 * i for i in range(12)]
    rising = dict(patience=2)
    assert own_rates(tool, "reduce_lr_on_plateau", rising, accuracies, 1e-3, greater_is_better=True) == [1e-3] * 12
    assert live_rates("reduce_lr_on_plateau", rising, accuracies, 1e-3)[-1] == pytest.approx(1e-6)
    given = dict(patience=2, mode="min")
    assert own_rates(tool, "reduce_lr_on_plateau", given, accuracies, 1e-3, greater_is_better=True) == live_rates(
        "reduce_lr_on_plateau", rising, accuracies, 1e-3)


def test_every_schedule_of_transformers_is_known():
    named = {"linear", "constant", "constant_with_warmup"} | {name for name, _ in SCHEDULES + METRIC_SCHEDULES}
    assert {kind.value for kind in TYPE_TO_SCHEDULER_FUNCTION} == named


@pytest.mark.parametrize("total", [3, 5, 10, 100, 333])
@pytest.mark.parametrize("warmup", [0, 2, 2.7, 0.03, 0.1, 0.3, 0.5])
def test_warmup_steps_equal_training_arguments(tool, warmup, total, tmp_path):
    from transformers import TrainingArguments

    expected = TrainingArguments(output_dir=str(tmp_path), warmup_steps=warmup, use_cpu=True).get_warmup_steps(total)
    assert tool.ask(what="schedule", name="linear", warmup=warmup, total=total)["warmup"] == expected


UPDATES = 25
SPLIT = 1003  # elements below it decay, the others do not
ELEMENTS = 2999


def problem():
    generator = np.random.default_rng(7)
    params = generator.normal(size=ELEMENTS).astype(np.float32)
    grads = generator.normal(size=(UPDATES, ELEMENTS)).astype(np.float32)
    grads *= np.float32(10.0) ** generator.uniform(-6, 0, size=ELEMENTS).astype(np.float32)
    grads[3] = 0.0
    rates = [2e-4 * min(1.0, t / 5) for t in range(UPDATES)]
    return params, grads, rates


def neoloom(tool, max_norm, **changes):
    params, grads, rates = problem()
    settings = {"beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8, "weight_decay": 0.1} | changes
    request = {
        "what": "adamw",
        "params": params.tolist(),
        "grads": grads.tolist(),
        "learning_rates": rates,
        "max_norm": max_norm,
        "ranges": [[0, SPLIT, True], [SPLIT, ELEMENTS, False]],
    }
    return tool.ask(**request, **settings)


def oracle(max_norm, dtype=torch.float32, **flags):
    params, grads, rates = problem()
    tensors = [torch.nn.Parameter(torch.tensor(part, dtype=dtype)) for part in (params[:SPLIT], params[SPLIT:])]
    groups = [{"params": [tensors[0]], "weight_decay": 0.1}, {"params": [tensors[1]], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1.0, betas=(0.9, 0.999), eps=1e-8, **flags)
    history, norms = [], []
    for grad, rate in zip(grads, rates):
        tensors[0].grad = torch.tensor(grad[:SPLIT], dtype=dtype)
        tensors[1].grad = torch.tensor(grad[SPLIT:], dtype=dtype)
        norms.append(float(torch.nn.utils.clip_grad_norm_(tensors, max_norm or float("inf"))))
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
        history.append(torch.cat([t.detach() for t in tensors]).double().numpy())
    return np.array(history), np.array(norms)


def distance(answer, reference):
    """Returns the distance in units of how far the reference moved."""
    start = problem()[0].astype(np.float64)
    found = np.array(answer["params"], dtype=np.float32).astype(np.float64)
    return np.linalg.norm(found[-1] - reference[-1]) / np.linalg.norm(reference[-1] - start)


@pytest.mark.parametrize("max_norm", [0.0, 0.5])
def test_updates_equal_torch_fused_and_plain(tool, max_norm):
    answer = neoloom(tool, max_norm)
    exact, norms = oracle(max_norm, torch.float64)
    np.testing.assert_allclose(answer["norms"], norms, rtol=1e-12)
    noise = []
    for flags in ({"fused": True}, {"foreach": False, "fused": False}):
        reference, _ = oracle(max_norm, **flags)
        noise.append(np.linalg.norm(reference[-1] - exact[-1]) / np.linalg.norm(exact[-1] - problem()[0]))
        assert distance(answer, reference) < 1e-4, flags
    own = distance(answer, exact)
    print(f"distance to fp64: neoloom {own:.2e}, torch fused {noise[0]:.2e}, torch plain {noise[1]:.2e}")
    assert own <= 1.05 * max(noise)


def test_without_clipping_the_fused_oracle_is_matched_to_the_bit(tool):
    reference, _ = oracle(0.0, fused=True)
    assert np.array_equal(np.array(neoloom(tool, 0.0)["params"], dtype=np.float32), reference.astype(np.float32))


@pytest.mark.parametrize(
    "change", [{"weight_decay": 0.0}, {"beta1": 0.8}, {"beta2": 0.99}, {"epsilon": 1e-6}], ids=lambda c: next(iter(c))
)
def test_a_wrong_setting_is_told_apart(tool, change):
    reference, _ = oracle(0.5)
    assert distance(neoloom(tool, 0.5, **change), reference) > 1e-3


def test_missing_clipping_is_told_apart(tool):
    reference, _ = oracle(0.5)
    assert distance(neoloom(tool, 0.0), reference) > 1e-3
