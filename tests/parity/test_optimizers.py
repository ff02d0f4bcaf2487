# SPDX-License-Identifier: Apache-2.0
"""SGD, Adafactor, Lion, 8-bit AdamW and LoRA+ against torch, transformers and published formulas, live."""

import os
import sys

import numpy as np
import pytest
import torch
from transformers import Adafactor, TrainingArguments
from transformers.trainer_optimizer import OptimizerContext, _parse_optim_args, _OPTIMIZER_HANDLERS

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "support"))
from optim_tool import tool  # noqa: E402, F401

UPDATES = 25
NEAR = 2e-4  # torch's own AdamW in fp32 is 5e-5 from fp64
# name, shape, weight decay, factor of the learning rate; begins at a multiple of 16
TENSORS = [("lora_A", (4, 33), True, 1.0), ("lora_B", (50, 4), True, 4.0), ("bias", (37,), False, 1.0)]
DECAY = 0.1


def offsets():
    begin = 0
    for _, shape, *_ in TENSORS:
        yield begin, begin + int(np.prod(shape))
        begin += -(-int(np.prod(shape)) // 16) * 16
    yield begin, begin


def problem():
    generator = np.random.default_rng(7)
    params = [generator.normal(size=shape) for _, shape, *_ in TENSORS]
    grads = [[generator.normal(size=shape) * 10.0 ** generator.uniform(-4, 0) for _, shape, *_ in TENSORS]
             for _ in range(UPDATES)]
    rates = [2e-3 * min(1.0, (t + 1) / 5) for t in range(UPDATES)]
    return params, grads, rates


def flat(tensors):
    *places, (total, _) = offsets()
    buffer = np.zeros(total, dtype=np.float32)
    for (begin, end), tensor in zip(places, tensors):
        buffer[begin:end] = np.asarray(tensor).reshape(-1)
    return buffer


def neoloom(tool, name, arguments="", rates_differ=False, grads=None, **changes):
    params, own_grads, rates = problem()
    by_tensor = name == "adafactor"
    ranges = [[begin, end, decay, rate if rates_differ else 1.0, shape[1] if by_tensor and len(shape) == 2 else 0]
              for (begin, end), (_, shape, decay, rate) in zip(offsets(), TENSORS)]
    settings = {"beta1": 0.9, "beta2": 0.99, "epsilon": 1e-8, "weight_decay": DECAY} | changes
    answer = tool.ask(what="optimizer", name=name, arguments=arguments, params=flat(params).tolist(), ranges=ranges,
                      grads=[flat(g).tolist() for g in grads or own_grads], learning_rates=rates, **settings)
    return np.array(answer["params"], dtype=np.float32).astype(np.float64)


def torch_oracle(make, dtype=torch.float32, rates_differ=False):
    """make(groups) returns a torch optimizer. Returns the flat values after each update."""
    params, grads, rates = problem()
    tensors = [torch.nn.Parameter(torch.tensor(p.astype(np.float32), dtype=dtype)) for p in params]
    groups = [{"params": [t], "weight_decay": DECAY if decay else 0.0}
              for t, (_, _, decay, _) in zip(tensors, TENSORS)]
    optimizer = make(groups)
    history = []
    for update, rate in zip(grads, rates):
        for tensor, grad in zip(tensors, update):
            tensor.grad = torch.tensor(grad.astype(np.float32), dtype=dtype)
        for group, (*_, factor) in zip(optimizer.param_groups, TENSORS):
            group["lr"] = rate * (factor if rates_differ else 1.0)
        optimizer.step()
        history.append(flat([t.detach().numpy() for t in tensors]).astype(np.float64))
    return np.array(history)


def distance(found, reference):
    """Returns the distance in units of how far the reference moved."""
    start = flat(problem()[0]).astype(np.float64)
    return np.linalg.norm(found[-1] - reference[-1]) / np.linalg.norm(reference[-1] - start)


def trainer_optimizer(name, arguments=""):
    """Returns what transformers' Trainer would make for `optim` and `optim_args`: the class and its arguments."""
    args = TrainingArguments(output_dir="unused", optim=name, optim_args=arguments or None, use_cpu=True)
    context = OptimizerContext(args=args, model=None, optimizer_kwargs={"lr": args.learning_rate},
                               adam_kwargs={"betas": (0.9, 0.99), "eps": 1e-8},
                               optim_args=_parse_optim_args(args.optim_args))
    kind, keywords = _OPTIMIZER_HANDLERS[args.optim](context)
    return lambda groups: kind(groups, **keywords)


ORACLES = [
    ("sgd", ""),
    ("sgd", "momentum=0.9"),
    ("sgd", "momentum=0.9,dampening=0.25"),
    ("sgd", "momentum=0.8, nesterov=true"),
    ("adafactor", ""),
]


@pytest.mark.parametrize("rates_differ", [False, True], ids=["one rate", "lora+"])
@pytest.mark.parametrize("name,arguments", ORACLES, ids=str)
def test_updates_equal_those_of_trainers_optimizer(tool, name, arguments, rates_differ):
    found = neoloom(tool, name, arguments, rates_differ)
    assert distance(found, torch_oracle(trainer_optimizer(name, arguments), rates_differ=rates_differ)) < NEAR


def test_rates_of_two_groups_equal_torch_adamw(tool):
    reference = torch_oracle(lambda groups: torch.optim.AdamW(groups, betas=(0.9, 0.99)), rates_differ=True)
    assert distance(neoloom(tool, "adamw_torch", rates_differ=True), reference) < NEAR
    assert distance(neoloom(tool, "adamw_torch"), reference) > 1e-2


class Lion(torch.optim.Optimizer):
    """Chen et al. 2023, algorithm 2."""

    def __init__(self, groups, betas):
        super().__init__(groups, dict(lr=1.0, weight_decay=0.0, betas=betas))

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            first, second = group["betas"]
            for p in group["params"]:
                m = self.state[p].setdefault("m", torch.zeros_like(p))
                direction = torch.sign(first * m + (1 - first) * p.grad)
                p -= group["lr"] * (direction + group["weight_decay"] * p)
                m.copy_(second * m + (1 - second) * p.grad)


def test_lion_equals_its_published_formula(tool):
    reference = torch_oracle(lambda groups: Lion(groups, (0.9, 0.99)), rates_differ=True)
    assert distance(neoloom(tool, "lion", rates_differ=True), reference) < NEAR


@pytest.mark.parametrize("name,arguments,change", [
    ("sgd", "momentum=0.9", {"weight_decay": 0.0}),
    ("sgd", "", {}),
    ("adafactor", "", {"weight_decay": 0.0}),
    ("lion", "", {"beta1": 0.8}),
    ("lion", "", {"beta2": 0.9}),
], ids=str)
def test_a_wrong_setting_is_told_apart(tool, name, arguments, change):
    oracle = (lambda groups: Lion(groups, (0.9, 0.99))) if name == "lion" else trainer_optimizer(
        name, "momentum=0.9" if name == "sgd" else "")
    assert distance(neoloom(tool, name, arguments, **change), torch_oracle(oracle)) > 10 * NEAR


def test_adafactor_is_what_trainer_makes_of_it_and_not_the_class_default():
    made = trainer_optimizer("adafactor")([torch.nn.Parameter(torch.zeros(2, 2))])
    assert isinstance(made, Adafactor)
    assert (made.defaults["scale_parameter"], made.defaults["relative_step"]) == (False, False)


def dynamic_map(signed):
    """The published dynamic map of 8-bit optimizers: 7 decades of linearly spaced means, 0 and 1."""
    values = [0.0, 1.0]
    for decade in range(7):
        edges = torch.linspace(0.1, 1, 2 ** (decade if signed else decade + 1) + 1, dtype=torch.float64)
        means = (edges[:-1] + edges[1:]) / 2 * 10.0 ** (decade - 6)
        values += means.tolist() + ([(-m).item() for m in means] if signed else [])
    assert len(values) == 256
    return np.sort(np.array(values))


def encoded(values, signed):
    """Returns `values` after a way to 8 bits and back, in blocks of 256 of the flat buffer."""
    code_map = dynamic_map(signed)
    result = np.zeros_like(values)
    for begin in range(0, len(values), 256):
        block = values[begin : begin + 256]
        scale = np.abs(block).max()
        if scale == 0:
            continue
        code = np.abs(block[:, None] / scale - code_map[None, :]).argmin(axis=1)
        result[begin : begin + 256] = code_map[np.maximum(code, 0 if signed else (block > 0))] * scale
    return result


def adamw_by_hand(coded):
    """AdamW in fp64; with `coded`, its moments are stored in 8 bits between two updates."""
    params, grads, rates = problem()
    p = flat(params).astype(np.float64)
    decay = np.zeros_like(p)
    for (begin, end), (_, _, decays, _) in zip(offsets(), TENSORS):
        decay[begin:end] = DECAY if decays else 0.0
    m, v = np.zeros_like(p), np.zeros_like(p)
    history = []
    for k, (update, rate) in enumerate(zip(grads, rates), start=1):
        g = flat(update).astype(np.float64)
        m, v = 0.9 * m + 0.1 * g, 0.99 * v + 0.01 * g * g
        p = p * (1 - rate * decay) - rate * (m / (1 - 0.9**k)) / (np.sqrt(v / (1 - 0.99**k)) + 1e-8)
        if coded:
            m, v = encoded(m, True), encoded(v, False)
        history.append(p)
    return np.array(history)


def test_8_bit_adamw_equals_its_published_formula(tool):
    """A value between two codes may take either by rounding, so the distance is not that of fp32 alone."""
    found = neoloom(tool, "adamw_8bit")
    assert distance(found[:1], adamw_by_hand(True)[:1]) < NEAR, "the first update has no coded moments yet"
    assert distance(found, adamw_by_hand(True)) < 1e-3


def test_8_bit_moments_stay_within_the_documented_distance_of_fp32(tool):
    exact = adamw_by_hand(False)
    assert distance(neoloom(tool, "adamw_torch"), exact) < NEAR
    own = distance(neoloom(tool, "adamw_8bit"), exact)
    print(f"distance of 8-bit AdamW to fp32 after {UPDATES} updates: {own:.4f} of the way")
    assert 1e-4 < own < 0.05
