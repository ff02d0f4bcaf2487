# SPDX-License-Identifier: Apache-2.0
"""Chats (data.messages_column): what is trained on, what evaluate computes, and what generate makes of a prompt, beside
transformers on texts that this file renders itself."""

import json
import subprocess
import sys
from pathlib import Path

import common
import pytest
import tiny_model
import torch
from common import STOPPED, Run
from runs import assert_one_message, command, json_lines, train, write_jsonl
from transformers import AutoModelForCausalLM, AutoTokenizer

ARROW = Path(sys.executable).parents[1] / "parquet"  # cluster/bootstrap/requirements-parquet.txt
USAGE, DATA = 2, 3


def message(role, content):
    return {"role": role, "content": content}


TEXTS = tiny_model.sample_texts(60, seed=2)
ROWS = [{"messages": ([message("system", TEXTS[i + 9])] if i % 3 == 0 else []) +
         [message(role, TEXTS[3 * i + k]) for k, role in enumerate(("user", "assistant") * (1 + i % 2))]}
        for i in range(12)]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny_model.make_model_folder(tmp_path_factory.mktemp("lm") / "base", std=0.2, max_position_embeddings=512)


@pytest.fixture(scope="module")
def tokenizer(base):
    return AutoTokenizer.from_pretrained(base)


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    return write_jsonl(tmp_path_factory.mktemp("rows") / "rows.jsonl", ROWS)


@pytest.fixture(scope="module")
def config(base, rows):
    return {
        "model_config": {"pretrained_model_name": str(base), "frozen_dtype": "float32"},
        "peft_config": {"peft_type": "LORA", "r": 2, "lora_dropout": 0.1},
        "trainer_config": {"max_steps": 6, "per_device_train_batch_size": 2, "learning_rate": 1e-2},
        "data": {"train": str(rows)},
    }


@pytest.fixture(scope="module")
def run(config, tmp_path_factory, cache):
    run, ended = train(tmp_path_factory.mktemp("run"), cache, common.merged(config, {"trainer_config": {"learning_rate": 0}}))
    assert 'chats in the column "messages"' in ended.err
    return run


def rendered(messages, tokenizer):
    """Returns ids and labels of a chat: the text between answers, and each answer with its end, are encoded apart."""
    ids, labels, plain = [], [], ""
    for turn in messages:
        plain += f"### {turn['role'].capitalize()}:\n"
        if turn["role"] == "assistant":
            before = tokenizer(plain).input_ids
            answer = tokenizer(turn["content"]).input_ids + [tokenizer.eos_token_id]
            ids += before + answer
            labels += [-100] * len(before) + answer
            plain = ""
        else:
            plain += turn["content"]
        plain += "\n\n"
    return ids, labels


def oracle_loss(base, tokenizer, completion_only):
    model = AutoModelForCausalLM.from_pretrained(base, attn_implementation="eager", dtype=torch.float32)
    total = targets = 0
    for row in ROWS:
        ids, labels = rendered(row["messages"], tokenizer)
        labels = torch.tensor([labels if completion_only else ids])
        count = int((labels[0, 1:] != -100).sum())
        with torch.no_grad():
            total += float(model(input_ids=torch.tensor([ids]), labels=labels).loss) * count
        targets += count
    return total / targets


@pytest.mark.parametrize("completion_only", [True, False])
def test_the_loss_is_that_of_the_answers(base, tokenizer, rows, run, tmp_path, cache, completion_only):
    folder = run.folder
    if not completion_only:
        changed = common.merged(run.config, {"trainer_config": {"completion_only_loss": False}})
        folder = train(tmp_path, cache, changed)[0].folder
    found = json.loads(command(cache, "evaluate", "--run", folder, "--data", rows))
    assert found["eval_loss"] == pytest.approx(oracle_loss(base, tokenizer, completion_only), abs=1e-5)


def greedy(base, tokenizer, ids):
    model = AutoModelForCausalLM.from_pretrained(base, attn_implementation="eager", dtype=torch.float32)
    ids = torch.tensor([ids])
    with torch.no_grad():
        found = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=8, do_sample=False,
                               pad_token_id=tokenizer.eos_token_id)[0, ids.shape[1]:].tolist()
    return found[: found.index(tokenizer.eos_token_id)] if tokenizer.eos_token_id in found else found


def test_generate_answers_in_the_form_of_the_training(base, tokenizer, run, tmp_path, cache):
    options = ("--max_tokens", 8, "--temperature", 0, "--json")
    chats = [[message("user", "call now")], ROWS[1]["messages"] + [message("user", "and then?")]]
    prompts = write_jsonl(tmp_path / "prompts.jsonl", [{"messages": chat} for chat in chats] + [{"prompt": "call now"}])
    lines = json_lines(command(cache, "generate", "--run", run.folder, "--prompt_file", prompts, *options))
    for chat, line in zip(chats, lines):
        ids, _ = rendered(chat + [message("assistant", "")], tokenizer)
        assert line["prompt"] == tokenizer.decode(ids[:-1])
        assert line["ids"] == greedy(base, tokenizer, ids[:-1])
    assert lines[2] == lines[0]
    assert json_lines(command(cache, "generate", "--run", run.folder, "--prompt", "call now", *options)) == [lines[0]]
    sets = ("--set", f"runtime.cache_dir={cache}", "--set", "runtime.device=cpu")
    done = subprocess.run(common.command(0, "generate", "--run", run.folder, "--prompt_file", "-", *options, *sets),
                          env=common.environment(), input=prompts.read_text() + '{"messages": [{"role": "bot"}]}\n',
                          capture_output=True, text=True, timeout=120, check=True)
    *answers, problem = json_lines(done.stdout)
    assert answers == lines and "message 1" in problem["error"]
    [whole] = json_lines(command(cache, "generate", "--run", run.folder, "--prompt", lines[0]["prompt"], "--no_template",
                                 *options))
    assert whole == lines[0]


@pytest.mark.parametrize("row, fragments", [
    ({"messages": [message("bot", "x")]}, ('"messages": message 1', 'no role "bot"', '"system", "user", "assistant"')),
    ({"messages": ROWS[0]["messages"]}, ("the last message is the assistant's",)),
    ({"text": "x"}, ('expected the list of messages "messages"', '"prompt"')),
])
def test_prompts_that_cannot_be_answered_are_refused(run, tmp_path, cache, row, fragments):
    prompts = write_jsonl(tmp_path / "prompts.jsonl", [{"prompt": "x"}, row])
    ended = common.neoloom(0, "generate", "--run", run.folder, "--prompt_file", prompts, "--set",
                           f"runtime.cache_dir={cache}").expect(DATA)
    assert_one_message(ended, "prompts.jsonl: line 2: ", *fragments)


@pytest.mark.parametrize("row, fragments", [
    ({"messages": [message("user", "x"), message("bot", "y")]}, ("message 2", 'no role "bot"')),
    ({"messages": [message("user", "x")]}, ('no message has the role "assistant"',)),
    ({"messages": [message("assistant", None)]}, ("message 1: its content is no text: found null",)),
    ({"messages": "x"}, ("expected a list of messages",)),
], ids=["role", "no answer", "content", "no list"])
def test_rows_that_are_no_chats_are_named(config, tmp_path, cache, row, fragments):
    rows = write_jsonl(tmp_path / "rows.jsonl", ROWS + [row])
    _, ended = train(tmp_path, cache, common.merged(config, {"data": {"train": str(rows)}}), code=DATA)
    assert_one_message(ended, "rows.jsonl: 1 of 13 rows", "line 13: \"messages\": ", *fragments)


@pytest.mark.parametrize("data, fragments", [
    ({"messages_column": "messages", "template": "alpaca"}, ("data.template", "a block for each role")),
    ({"messages_column": "messages", "prompt_column": "p", "response_column": "r"}, ("data.messages_column", "remove prompt_column")),
    ({"messages_column": "messages", "label_column": "label"}, ("data.messages_column", "no labels")),
    ({"messages_column": "messages", "pack": "documents"}, ("data.pack", "use samples")),
], ids=["template", "columns", "labels", "documents"])
def test_impossible_combinations_are_refused(config, tmp_path, cache, data, fragments):
    _, ended = train(tmp_path, cache, common.merged(config, {"data": data}), code=USAGE)
    assert_one_message(ended, *fragments)


def test_a_template_of_one_s_own_and_files_of_parquet(config, tmp_path, cache):
    if not ARROW.is_dir():
        pytest.skip("no Arrow: bash cluster/bootstrap/bootstrap.sh installs it")
    sys.path.append(str(ARROW))
    import pyarrow as pa
    import pyarrow.parquet as pq

    own = "{?system}{system}\n{/system}{?user}Q: {user}\n{/user}{?assistant}A:{assistant}\n{/assistant}"
    table = tmp_path / "rows.parquet"
    pq.write_table(pa.Table.from_pylist(ROWS), table)
    found = []
    for name, path in (("json", config["data"]["train"]), ("parquet", table)):
        data = {"train": str(path), "template": own, "messages_column": "messages"}
        found.append(train(tmp_path / name, cache, common.merged(config, {"data": data}))[0].losses())
    assert found[0] == found[1]


def test_the_same_bits_on_two_ranks_packed_and_over_a_kill(config, tmp_path, cache):
    changes = {
        "trainer_config": {"save_steps": 2, "logging_steps": 1, "num_train_epochs": 3, "max_steps": -1},
        "tokenizer_config": {"max_length": 128},
        "data": {"pack": "samples"},
        "runtime": {"device": "cpu", "threads_per_rank": 1, "cache_dir": str(cache), "global_batch_size": 4},
    }
    config = common.merged(config, changes)
    runs = [Run(tmp_path / name, config) for name in ("one", "two", "killed")]
    assert "packs of up to 128 tokens" in runs[0].train(1).expect(0).err
    runs[1].train(2).expect(0)
    assert runs[2].train(2, NEOLOOM_FAULT="kill:rank=0:step=5").code not in (0, STOPPED)
    runs[2].train(1).expect(0)
    for run in runs[1:]:
        assert run.state() == runs[0].state() and run.losses() == runs[0].losses()
