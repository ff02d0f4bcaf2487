# SPDX-License-Identifier: Apache-2.0
"""data.pack: the same loss and gradient as without packs, beside transformers; the same bits on any number of ranks, and
over a kill; documents lose no token."""

import json

import common
import numpy as np
import pytest
import tiny_model
import torch
from common import Run, make_config
from runs import adapter, assert_one_message, command, losses, train, write_jsonl
from transformers import AutoModelForCausalLM, AutoTokenizer

USAGE = 2
ROWS = 40
MAX_LENGTH = 32
LONG_ROW = 7  # has more tokens than a sample may have


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny_model.make_model_folder(tmp_path_factory.mktemp("lm") / "base", std=0.3, window_size=8)


@pytest.fixture(scope="module")
def texts():
    texts = tiny_model.sample_texts(ROWS, seed=5)
    texts[LONG_ROW] = " ".join(texts[:6])
    return texts


@pytest.fixture(scope="module")
def rows(texts, tmp_path_factory):
    return write_jsonl(tmp_path_factory.mktemp("rows") / "rows.jsonl", [{"text": text} for text in texts])


@pytest.fixture(scope="module")
def ids(base, texts):
    """The tokens of each document, with its end-of-text."""
    tokenizer = AutoTokenizer.from_pretrained(base)
    return [tokenizer(text).input_ids + [tokenizer.eos_token_id] for text in texts]


def config_of(base, rows, pack, batch, **trainer):
    """Returns a configuration that trains on all rows in one step."""
    return {
        "model_config": {"pretrained_model_name": str(base), "frozen_dtype": "float32"},
        "peft_config": {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 4, "init_lora_weights": False},
        "tokenizer_config": {"max_length": MAX_LENGTH},
        "data": {"train": str(rows), "pack": pack},
        "trainer_config": {"num_train_epochs": 1, "per_device_train_batch_size": batch, "optim": "sgd",
                           "learning_rate": 0.1, "lr_scheduler_type": "constant", "max_grad_norm": 0,
                           "train_sampling_strategy": "sequential", **trainer},
    }


def oracle_loss(base, sequences):
    """Returns the mean loss of a token over sequences that do not see each other."""
    model = AutoModelForCausalLM.from_pretrained(base, attn_implementation="eager", dtype=torch.float64)
    total = 0.0
    with torch.no_grad():
        for sequence in sequences:
            if len(sequence) > 1:
                row = torch.tensor([sequence])
                total += float(model(input_ids=row, labels=row).loss) * (len(sequence) - 1)
    return total / sum(len(sequence) - 1 for sequence in sequences)


def pieces(ids):
    return [document[at : at + MAX_LENGTH] for document in ids for at in range(0, len(document), MAX_LENGTH)]


def test_loss_and_gradient_are_those_without_packs(base, rows, ids, tmp_path, cache):
    plain, _ = train(tmp_path / "none", cache, config_of(base, rows, "none", ROWS))
    packed, ended = train(tmp_path / "samples", cache, config_of(base, rows, "samples", ROWS))
    assert f"packs of up to {MAX_LENGTH} tokens" in ended.err
    (before,), (after,) = plain.events("train"), packed.events("train")
    assert after["loss"] == pytest.approx(before["loss"], rel=1e-6)
    assert after["grad_norm"] == pytest.approx(before["grad_norm"], rel=1e-6)
    assert after["samples"] == before["samples"] == ROWS
    expected, found = adapter(plain.folder / "adapter"), adapter(packed.folder / "adapter")
    for name, values in expected.items():
        assert np.linalg.norm(found[name] - values) <= 1e-6 * np.linalg.norm(values), name


def test_the_loss_is_that_of_samples_apart_and_not_of_joined_ones(base, rows, ids, tmp_path, cache):
    """Packs of transformers' run_clm and TRL's "wrapped" are one sequence: tokens see the documents before theirs."""
    config = config_of(base, rows, "samples", 4, learning_rate=0)
    config["peft_config"]["init_lora_weights"] = True
    run, _ = train(tmp_path, cache, config)
    found = json.loads(command(cache, "evaluate", "--run", run.folder, "--data", rows))
    cut = [document[:MAX_LENGTH] for document in ids]
    assert found["eval_loss"] == pytest.approx(oracle_loss(base, cut), rel=1e-6)
    stream = [token for document in cut for token in document]
    joined = oracle_loss(base, [stream[at : at + MAX_LENGTH] for at in range(0, len(stream), MAX_LENGTH)])
    assert abs(joined - found["eval_loss"]) > 1e-2


def test_documents_of_rows_lose_no_token(base, rows, ids, tmp_path, cache):
    config = config_of(base, rows, "documents", 4, learning_rate=0)
    config["peft_config"]["init_lora_weights"] = True
    run, ended = train(tmp_path / "documents", cache, config)
    assert "0 % of" in ended.err
    assert sum(event["tokens"] for event in run.events("train")) == sum(map(len, ids))
    found = json.loads(command(cache, "evaluate", "--run", run.folder, "--data", rows))
    assert found["eval_loss"] == pytest.approx(oracle_loss(base, pieces(ids)), rel=1e-6)
    rows_only, ended = train(tmp_path / "none", cache, config_of(base, rows, "auto", 4))
    assert "2.5 % of 40 rows were cut" in ended.err
    assert sum(event["tokens"] for event in rows_only.events("train")) < sum(map(len, ids))


def test_a_step_takes_packs(base, rows, ids, tmp_path, cache):
    run, _ = train(tmp_path, cache, config_of(base, rows, "samples", 2))
    steps = run.events("train")
    tokens = sum(min(len(document), MAX_LENGTH) for document in ids)
    assert len(steps) == run.events("run_start")[0]["steps_per_epoch"] < ROWS / 2
    assert all(step["tokens"] <= 2 * MAX_LENGTH for step in steps)
    assert tokens / (len(steps) * 2 * MAX_LENGTH) > 0.9
    plan = common.neoloom(0, "plan", "--config", run.config_file, "--ranks", 1).expect(0).out
    assert "data.pack" in plan and f"{len(steps)} per epoch" in plan and "2 packs: 1 micro-batches of 2" in plan


def packed_config(data, cache):
    config = make_config("causal_lm", data, cache, "float16")
    config["data"]["pack"] = "samples"
    config["data"]["validation_split"] = 0.2
    del config["data"]["validation"]
    return common.merged(config, {"trainer_config": {"train_sampling_strategy": "random"},
                                  "runtime": {"global_batch_size": 4}})


def test_same_bits_on_any_number_of_ranks_and_over_a_kill(data, cache, tmp_path):
    config = packed_config(data, cache)
    runs = {ranks: Run(tmp_path / f"np{ranks}", config) for ranks in (1, 2, 3, 4)}
    for ranks, run in runs.items():
        if ranks == 3:
            assert run.train(2, NEOLOOM_FAULT="kill:rank=1:step=6").code != 0
        run.train(ranks).expect(0)
        assert run.state() == runs[1].state(), f"{ranks} ranks"
        assert run.losses() == runs[1].losses(), f"{ranks} ranks"
        assert run.evaluations() == runs[1].evaluations(), f"{ranks} ranks"
    assert len(runs[1].losses()) > 8
    other = Run(tmp_path / "np1", config, data={"pack": "none"})
    ended = other.train(1).expect(USAGE)
    assert_one_message(ended, "training data and its settings")


def test_a_classification_has_no_packs(data, cache, tmp_path):
    config = make_config("classification", data, cache)
    del config["peft_config"]["task_type"], config["model_config"]["problem_type"], config["data"]["label_column"]
    ended = Run(tmp_path / "run", config, data={"pack": "samples"}).train(0).expect(USAGE)
    assert_one_message(ended, "data.pack: samples", 'column "label"')
