# SPDX-License-Identifier: Apache-2.0
"""Instruction tuning with a template: what is trained on, what evaluate computes, and what generate makes of a prompt,
beside transformers on texts that this file renders itself."""

import json
import math

import common
import pytest
import tiny_model
import torch
from runs import assert_one_message, command, json_lines, shared_data, train, write_jsonl
from transformers import AutoModelForCausalLM, AutoTokenizer

USAGE, DATA = 2, 3
ROWS = [
    {"instruction": "call now", "input": "", "output": " free cash"},
    {"instruction": "claim", "input": "your prize", "output": " stop"},
    {"instruction": "text win", "output": " hello friend to you", "other": 7},
]


def alpaca(row):
    """Renders a prompt as the data's authors do: two whole forms, one for rows without input."""
    if row.get("input"):
        return ("Below is an instruction that describes a task, paired with an input that provides further context. Write a "
                "response that appropriately completes the request.\n\n### Instruction:\n{instruction}\n\n### Input:\n"
                "{input}\n\n### Response:\n").format_map(row)
    return ("Below is an instruction that describes a task. Write a response that appropriately completes the request."
            "\n\n### Instruction:\n{instruction}\n\n### Response:\n").format_map(row)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny_model.make_model_folder(tmp_path_factory.mktemp("lm") / "base", std=0.2, max_position_embeddings=512)


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    path = tmp_path_factory.mktemp("rows") / "rows.json"
    path.write_text(json.dumps(ROWS))
    return path


@pytest.fixture(scope="module")
def run(base, rows, tmp_path_factory, cache):
    config = {
        "model_config": {"pretrained_model_name": str(base), "frozen_dtype": "float32"},
        "peft_config": {"peft_type": "LORA", "r": 2},
        "trainer_config": {"max_steps": 1, "per_device_train_batch_size": 2, "learning_rate": 0},
        "data": {"train": str(rows), "template": "alpaca"},
    }
    run, ended = train(tmp_path_factory.mktemp("run"), cache, config)
    assert "data.template given" in ended.err
    return run


PAIRS = [{"question": "call now", "answer": "free cash"}, {"question": "claim your prize", "answer": "stop"}]


def pair_loss(base, between):
    """Returns the loss of PAIRS with this text between question and answer, which are tokenised apart."""
    model = AutoModelForCausalLM.from_pretrained(base, attn_implementation="eager", dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(base)
    total = targets = 0
    for row in PAIRS:
        prompt = tokenizer(row["question"] + between).input_ids
        ids = torch.tensor([prompt + tokenizer(row["answer"]).input_ids + [tokenizer.eos_token_id]])
        labels = ids.clone()
        labels[0, : len(prompt)] = -100
        with torch.no_grad():
            total += float(model(input_ids=ids, labels=labels).loss) * (ids.shape[1] - len(prompt))
        targets += ids.shape[1] - len(prompt)
    return total / targets


@pytest.fixture
def pairs(base, tmp_path):
    return {
        "model_config": {"pretrained_model_name": str(base), "frozen_dtype": "float32"},
        "peft_config": {"peft_type": "LORA", "r": 2},
        "trainer_config": {"max_steps": 1, "per_device_train_batch_size": 2, "learning_rate": 0, "save_strategy": "steps",
                           "save_steps": 1},
        "data": {"train": str(write_jsonl(tmp_path / "pairs.jsonl", PAIRS)), "prompt_column": "question",
                 "response_column": "answer"},
    }


def oracle_loss(base, completion_only):
    model = AutoModelForCausalLM.from_pretrained(base, attn_implementation="eager", dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(base)
    total = targets = 0
    for row in ROWS:
        prompt = tokenizer(alpaca(row)).input_ids
        ids = torch.tensor([prompt + tokenizer(row["output"]).input_ids + [tokenizer.eos_token_id]])
        labels = ids.clone()
        if completion_only:
            labels[0, : len(prompt)] = -100
        count = int((labels[0, 1:] != -100).sum())
        with torch.no_grad():
            total += float(model(input_ids=ids, labels=labels).loss) * count
        targets += count
    return total / targets


def test_the_loss_is_that_of_the_responses(base, rows, run, tmp_path, cache):
    found = json.loads(command(cache, "evaluate", "--run", run.folder, "--data", rows))
    assert found["eval_loss"] == pytest.approx(oracle_loss(base, True), abs=1e-5)
    config = common.merged(run.config, {"trainer_config": {"completion_only_loss": False}})
    whole, _ = train(tmp_path, cache, config)
    found = json.loads(command(cache, "evaluate", "--run", whole.folder, "--data", rows))
    assert found["eval_loss"] == pytest.approx(oracle_loss(base, False), abs=1e-5)
    assert not math.isclose(oracle_loss(base, True), oracle_loss(base, False), abs_tol=1e-2)


def test_generate_applies_the_template_of_the_run(run, tmp_path, cache):
    options = ("--max_tokens", 8, "--temperature", 0)
    prompts = write_jsonl(tmp_path / "prompts.jsonl", ROWS)
    lines = json_lines(command(cache, "generate", "--run", run.folder, "--prompt_file", prompts, "--json", *options))
    assert [line["prompt"] for line in lines] == [alpaca(row) for row in ROWS]
    plain = command(cache, "generate", "--run", run.folder, "--prompt", "call now", *options)
    assert plain == lines[0]["text"] + "\n", "the template is not printed"
    [whole] = json_lines(command(cache, "generate", "--run", run.folder, "--prompt", alpaca(ROWS[0]), "--no_template",
                                 "--json", *options))
    assert whole == lines[0]


@pytest.mark.parametrize(("template", "between"), [(None, "\n"), ("newline", "\n"), ("joined", ""), ("", "")])
def test_a_line_break_stands_between_two_columns_unless_joined(base, pairs, tmp_path, cache, template, between):
    if template is not None:
        pairs["data"]["template"] = template
    run, ended = train(tmp_path, cache, pairs)
    assert ("data.template: newline" if between else "data.template: joined") in ended.err
    assert ", the default" in ended.err if template is None else ", the default" not in ended.err
    found = json.loads(command(cache, "evaluate", "--run", run.folder, "--data", pairs["data"]["train"]))
    assert found["eval_loss"] == pytest.approx(pair_loss(base, between), abs=1e-5)
    assert not math.isclose(pair_loss(base, "\n"), pair_loss(base, ""), abs_tol=1e-3)
    options = ("--max_tokens", 2, "--temperature", 0, "--json")
    [line] = json_lines(command(cache, "generate", "--run", run.folder, "--prompt", "call now", *options))
    assert line["prompt"] == "call now" + between
    rows = write_jsonl(tmp_path / "prompts.jsonl", [{"question" if between else "prompt": "call now"}])
    assert json_lines(command(cache, "generate", "--run", run.folder, "--prompt_file", rows, *options)) == [line]


def test_a_run_of_before_the_default_keeps_its_own(base, pairs, tmp_path, cache):
    """Its config.yaml has an empty template, as such runs have."""
    old = common.merged(pairs, {"data": {"template": ""}})
    run, _ = train(tmp_path, cache, old)
    assert "\n  template: \"\"\n" in (run.folder / "config.yaml").read_text()
    longer = common.merged(pairs, {"trainer_config": {"max_steps": 2}, "checkpoint": {"extend": True}})
    explicit = common.merged(longer, {"data": {"template": "newline"}})
    _, ended = train(tmp_path, cache, explicit, code=USAGE)
    assert_one_message(ended, "training data and its settings")
    run, ended = train(tmp_path, cache, longer)
    assert "nothing stands between prompt and response, as" in ended.err
    assert [event["event"] for event in run.events("resume", "run_end")] == ["run_end", "resume", "run_end"]
    found = json.loads(command(cache, "evaluate", "--run", run.folder, "--data", pairs["data"]["train"]))
    assert found["eval_loss"] == pytest.approx(pair_loss(base, ""), abs=1e-5)


def test_white_space_beside_the_line_break_is_told(pairs, tmp_path, cache):
    rows = [*PAIRS, {"question": "a ", "answer": "b"}, {"question": "a\n", "answer": " b"}, {"question": "c", "answer": "\tb"}]
    write_jsonl(tmp_path / "pairs.jsonl", rows)
    _, ended = train(tmp_path, cache, pairs)
    assert "2 of 5 prompts end in white space and 2 responses begin with it" in ended.err
    for template in ("newline", "joined"):
        _, ended = train(tmp_path / template, cache, common.merged(pairs, {"data": {"template": template}}))
        assert "white space" not in ended.err


def test_a_template_for_two_columns_needs_them(base, pairs, tmp_path, cache):
    del pairs["data"]["prompt_column"], pairs["data"]["response_column"]
    for template in ("newline", "joined"):
        _, ended = train(tmp_path, cache, common.merged(pairs, {"data": {"template": template}}), code=USAGE)
        assert_one_message(ended, f"data.template: {template} is for data.prompt_column and data.response_column")


def test_a_prompt_without_the_columns_of_the_template_is_refused(run, tmp_path, cache):
    prompts = write_jsonl(tmp_path / "prompts.jsonl", [ROWS[0], {"input": "x", "text": "y"}])
    ended = common.neoloom(0, "generate", "--run", run.folder, "--prompt_file", prompts, "--set",
                           f"runtime.cache_dir={cache}").expect(DATA)
    assert_one_message(ended, "prompts.jsonl: line 2: expected the text \"instruction\"", '"input", "text"')
    sets = [word for text in ('data.template="{a}{b}: {c}"', f"runtime.cache_dir={cache}") for word in ("--set", text)]
    ended = common.neoloom(0, "generate", "--run", run.folder, "--prompt", "x", *sets).expect(USAGE)
    assert_one_message(ended, '"a", "b"', "--no_template")


def test_instructions_of_the_shared_data_train(base, tmp_path, cache):
    data = shared_data("instruction", "rasbt", "instruction-data.json")
    config = {
        "model_config": {"pretrained_model_name": str(base)},
        "peft_config": {"peft_type": "LORA", "r": 4},
        "trainer_config": {"max_steps": 20, "per_device_train_batch_size": 8, "learning_rate": 1e-2},
        "data": {"train": str(data), "template": "alpaca"},
    }
    run, _ = train(tmp_path, cache, config)
    losses = [event["loss"] for event in run.events("train")]
    assert sum(losses[-5:]) < 0.97 * sum(losses[:5]), losses
