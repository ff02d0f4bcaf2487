# SPDX-License-Identifier: Apache-2.0
"""trainer_config.max_tokens_per_micro_batch: a step keeps its samples, and its micro-batches are bounded by tokens."""

import itertools
import json
import re
from collections import Counter

import pytest
from common import ROWS, TOTAL_STEPS, Run, make_config, merged, neoloom, read_trace
from transformers import AutoTokenizer

MOST = 90
BUDGET = {"trainer_config": {"max_tokens_per_micro_batch": MOST}}


@pytest.fixture(scope="module", params=["classification", "causal_lm"])
def plain(request, data, cache):
    return make_config(request.param, data, cache)


@pytest.fixture(scope="module")
def config(plain):
    return merged(plain, BUDGET)


@pytest.fixture(scope="module")
def runs(tmp_path_factory, config):
    folder = tmp_path_factory.mktemp("budget")
    finished = {}
    for ranks in (1, 2, 3):
        run = Run(folder / f"np{ranks}", config)
        trace = folder / f"trace{ranks}"
        run.train(ranks, NEOLOOM_TRACE_SAMPLES=trace).expect(0)
        finished[ranks] = run, read_trace(trace, ranks)
    return finished


@pytest.fixture(scope="module")
def lengths(config, data):
    tokenizer = AutoTokenizer.from_pretrained(data / "base")
    rows = [json.loads(line) for line in (data / "train.jsonl").read_text().splitlines()]
    eos = 0 if "label_column" in config["data"] else 1
    return [min(48, len(tokenizer(row["text"]).input_ids) + eos) for row in rows]


def test_any_number_of_ranks_gives_the_same_bits(runs):
    expected = runs[1][0]
    assert expected.state()["step"] == TOTAL_STEPS
    for ranks in (2, 3):
        assert runs[ranks][0].state() == expected.state()
        assert runs[ranks][0].losses() == expected.losses()
        assert runs[ranks][0].evaluations() == expected.evaluations()


def test_micro_batches_hold_each_sample_once_an_epoch_within_the_budget(runs, lengths):
    for run, trace in runs.values():
        seen = [Counter() for _ in range(3)]
        tokens = []
        for step, ids in itertools.chain(*trace):
            seen[(step - 1) // (TOTAL_STEPS // 3)].update(ids)
            tokens.append(sum(lengths[sample] for sample in ids))
        assert seen == [Counter(range(ROWS))] * 3
        assert max(tokens) <= MOST
        (start,), (end,) = run.events("run_start"), run.events("run_end")
        assert start["max_tokens_per_micro_batch"] == MOST
        assert end["micro_batch_fill"] == pytest.approx(sum(tokens) / (MOST * len(tokens)))
        for line in run.events("train"):
            of_step = [sum(lengths[sample] for sample in ids) for step, ids in itertools.chain(*trace) if step == line["step"]]
            assert line["micro_batch_fill"] == pytest.approx(sum(of_step) / (MOST * len(of_step)))


def test_losses_are_those_of_micro_batches_by_samples(tmp_path, plain, runs):
    run = Run(tmp_path / "run", plain)
    run.train(1).expect(0)
    ours, theirs = runs[1][0].losses(), run.losses()
    for found, expected in zip(ours, theirs, strict=True):
        assert found == pytest.approx(expected, rel=1e-4)
    assert "micro_batch_fill" not in run.events("run_end")[0]


def test_a_killed_run_ends_with_the_same_bits_on_other_ranks(tmp_path, config, runs):
    run = Run(tmp_path / "run", config)
    assert run.train(2, NEOLOOM_FAULT="kill:rank=1:step=8").code != 0
    run.train(3).expect(0)
    assert run.events("resume")
    assert run.state() == runs[1][0].state()
    assert run.losses() == runs[1][0].losses()


def test_a_resume_with_another_budget_is_refused_by_name(runs, config):
    run = runs[1][0]
    other = Run(run.folder, config, trainer_config={"max_tokens_per_micro_batch": MOST + 1})
    refused = other.train(1).expect(2)
    assert f"trainer_config.max_tokens_per_micro_batch: was {MOST}, is {MOST + 1}" in refused.err


def test_a_lack_of_memory_halves_the_budget_on_all_ranks(tmp_path, config):
    automatic = merged(config, {"trainer_config": {"auto_find_batch_size": True, "max_tokens_per_micro_batch": 400}})
    two, three = Run(tmp_path / "two", automatic), Run(tmp_path / "three", automatic)
    ended = two.train(2, NEOLOOM_FAULT="oom:rank=-1:step=3:rows=7").expect(0)
    assert "continuing from step 2 with micro-batches of at most 200 tokens" in ended.out + ended.err
    three.train(3, NEOLOOM_FAULT="oom:rank=-1:step=3:rows=7").expect(0)
    assert two.state() == three.state()
    assert two.events("warning")[-1]["max_tokens_per_micro_batch"] <= 200


def test_the_plan_tells_how_full_micro_batches_are(tmp_path, config):
    run = Run(tmp_path / "run", config)
    planned = neoloom(0, "plan", "--config", run.config_file, "--ranks", 2).expect(0).out
    found = re.search(r"about ([\d.]+) micro-batches a step of at most 90 tokens, (\d+) % full", planned)
    assert found and float(found[1]) > 1 and 50 < int(found[2]) <= 100, planned
    many = neoloom(0, "plan", "--config", run.config_file, "--ranks", 12).expect(0).out
    assert "some of the 12 ranks have nothing to do" in many
    short = Run(tmp_path / "short", config, trainer_config={"max_tokens_per_micro_batch": 5})
    warned = neoloom(0, "plan", "--config", short.config_file, "--ranks", 1).expect(0).out
    assert "a sample above the limit is a micro-batch of its own" in warned
