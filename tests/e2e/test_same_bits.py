# SPDX-License-Identifier: Apache-2.0
"""The same run on 1, 2, 3 and 4 ranks: every bit of the state, every loss, every evaluation, every sample."""

import math
import shutil
from collections import Counter
from itertools import groupby

import pytest
import torch
from common import ROWS, TOTAL_STEPS, Run, make_config, read_trace
from safetensors.torch import load_file

CASES = [
    ("classification", "float32"),
    ("classification", "float16"),
    ("classification", "bfloat16"),
    ("causal_lm", "float16"),
    ("classification", "float16", {"init_lora_weights": "pissa"}),
    ("causal_lm", "bfloat16", {"use_dora": True, "init_lora_weights": "orthogonal"}),
    ("classification", "float16", {"bias": "all", "lora_bias": True}),
    ("causal_lm", "float16", {"modules_to_save": ["wte", "ln_f", "lm_head"]}),
    ("causal_lm", "float16", {"trainable_token_indices": [97, 101, 32, 116]}),
]
RANKS = (1, 2, 3, 4)


def name_of(case):
    kind, dtype, *peft = case
    return "-".join([kind, dtype, *(key for keys in peft for key in keys)])


@pytest.fixture(scope="module", params=CASES, ids=name_of)
def runs(request, tmp_path_factory, data, cache):
    """{ranks: (run, trace)}"""
    kind, dtype, *peft = request.param
    folder = tmp_path_factory.mktemp("same_bits")
    finished = {}
    for ranks in RANKS:
        run = Run(folder / f"np{ranks}", make_config(kind, data, cache, dtype), peft_config=peft[0] if peft else {})
        trace = folder / f"trace{ranks}"
        run.train(ranks, NEOLOOM_TRACE_SAMPLES=trace).expect(0)
        finished[ranks] = run, read_trace(trace, ranks)
    return finished


def test_the_run_learns_and_reports_its_world_size(runs):
    for ranks, (run, _) in runs.items():
        (start,) = run.events("run_start")
        assert (start["world_size"], start["global_batch_size"], start["total_steps"]) == (ranks, 12, TOTAL_STEPS)
        losses = [loss for _, _, loss, _, _ in run.losses() if loss is not None]
        assert len(losses) >= TOTAL_STEPS - 3  # a float16 run may lower its loss scale first
        assert min(losses[-5:]) < losses[0]


def test_parameters_and_moments_are_equal_to_the_bit(runs):
    states = {ranks: run.state() for ranks, (run, _) in runs.items()}
    assert states[1]["step"] == TOTAL_STEPS
    for ranks in RANKS[1:]:
        assert states[ranks] == states[1], f"{ranks} ranks"


def test_every_logged_loss_is_equal(runs):
    expected = runs[1][0].losses()
    assert [step for step, *_ in expected] == list(range(1, TOTAL_STEPS + 1))
    for ranks in RANKS[1:]:
        assert runs[ranks][0].losses() == expected, f"{ranks} ranks"


def test_every_evaluation_line_is_equal(runs):
    expected = runs[1][0].evaluations()
    assert [line["step"] for line in expected] == [4, 8, 12, TOTAL_STEPS]
    assert all("eval_token_accuracy" in line or {"eval_roc_auc", "eval_per_class"} <= line.keys() for line in expected)
    for ranks in RANKS[1:]:
        assert runs[ranks][0].evaluations() == expected, f"{ranks} ranks"


def test_ranks_share_the_samples_of_each_epoch_without_overlap(runs):
    steps_per_epoch = TOTAL_STEPS // 3
    for _, trace in runs.values():
        by_epoch = {}
        for lines in trace:
            for step, ids in lines:
                by_epoch.setdefault((step - 1) // steps_per_epoch, Counter()).update(ids)
        assert by_epoch == {epoch: Counter(range(ROWS)) for epoch in range(3)}


def test_every_number_of_ranks_walks_the_same_list(runs):
    def in_order(trace):
        # A step's micro-batches are dealt to the ranks in turn: the k-th of rank r stands at place r + k * ranks.
        lines = []
        for rank, rank_lines in enumerate(trace):
            for step, group in groupby(rank_lines, key=lambda line: line[0]):
                lines += [(step, rank + k * len(trace), ids) for k, (_, ids) in enumerate(group)]
        return [(step, ids) for step, _, ids in sorted(lines)]

    expected = in_order(runs[1][1])
    assert {len(ids) for _, ids in expected} == {1, 2}, "the tail was to be ragged"
    for ranks in RANKS[1:]:
        assert in_order(runs[ranks][1]) == expected, f"{ranks} ranks"


def test_no_rank_computes_more_than_its_even_share(runs):
    micro_batches = Counter(step for step, _ in runs[1][1][0])
    assert set(micro_batches.values()) == {6, 3}
    for ranks, (_, trace) in runs.items():
        for rank, lines in enumerate(trace):
            for step, group in groupby(lines, key=lambda line: line[0]):
                share = len(list(group))
                assert share <= math.ceil(micro_batches[step] / ranks), f"rank {rank} of {ranks}, step {step}"


def test_other_micro_batches_do_change_the_bits(tmp_path, data, cache):
    """The comparison above can fail: another cut of the same 12 rows rounds differently."""
    config = make_config("classification", data, cache)
    pairs = Run(tmp_path / "pairs", config)
    fours = Run(tmp_path / "fours", config, trainer_config={"per_device_train_batch_size": 4})
    for run in (pairs, fours):
        run.train(2).expect(0)
    assert pairs.state()["params"] != fours.state()["params"]
    assert pairs.losses()[0][2] == pytest.approx(fours.losses()[0][2], rel=1e-5)


def test_a_pickle_of_the_same_weights_trains_to_the_same_bits(tmp_path, data, cache):
    base = tmp_path / "base"
    shutil.copytree(data / "base", base)
    torch.save(load_file(base / "model.safetensors"), base / "pytorch_model.bin")
    (base / "model.safetensors").unlink()
    from_safetensors = Run(tmp_path / "safetensors", make_config("classification", data, cache, "float16"))
    from_pickle = Run(tmp_path / "pickle", from_safetensors.config, model_config={"pretrained_model_name": str(base)})
    from_safetensors.train(1).expect(0)
    killed = from_pickle.train(2, NEOLOOM_FAULT="kill:rank=1:step=9")
    assert killed.code != 0
    from_pickle.train(3).expect(0)
    assert from_pickle.state() == from_safetensors.state()
