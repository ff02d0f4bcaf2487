# SPDX-License-Identifier: Apache-2.0
"""What evaluate, predict, generate, tokenize and plan make of the prompts, rows, settings and outputs that users bring:
the right thing, or one sentence."""

import gzip
import json
import os
import re
import shutil
import subprocess

import common
import pytest
import tiny_model
import torch
from runs import assert_one_message, command, json_lines, train, write_jsonl
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

USAGE, DATA, WEIGHTS, OUTPUT = 2, 3, 4, 74
LABELS = ["ham", "spam"]


@pytest.fixture(scope="module")
def lm(tmp_path_factory):
    return tiny_model.make_model_folder(tmp_path_factory.mktemp("lm") / "base", std=0.3)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    return tiny_model.make_model_folder(tmp_path_factory.mktemp("cls") / "base", head="sequence_classification",
                                        labels=LABELS, std=0.3)


def settings(cache):
    sets = ["runtime.device=cpu", "runtime.threads_per_rank=1", f"runtime.cache_dir={cache}",
            "model_config.frozen_dtype=float32"]
    return [word for setting in sets for word in ("--set", setting)]


def started(cache, *arguments, ranks=0):
    return common.neoloom(ranks, *arguments, *settings(cache))


def edited(folder, source, **files):
    """Makes a copy of a model folder with keys of its JSON files changed."""
    shutil.copytree(source, folder)
    for name, changes in files.items():
        path = folder / f"{name}.json"
        document = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps({**document, **changes}))
    return folder


def oracle_ids(folder, prompt, **options):
    """Returns the new ids of transformers' generate, without the token that ended it."""
    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32).eval()
    ids = torch.tensor([AutoTokenizer.from_pretrained(folder)(prompt).input_ids])
    with torch.no_grad():
        new = model.generate(ids, attention_mask=torch.ones_like(ids), pad_token_id=0, **options)[0, ids.shape[1]:].tolist()
    eos = model.generation_config.eos_token_id
    return new[:-1] if new and new[-1] in (eos if isinstance(eos, list) else [eos]) else new


# Same text as transformers


PROMPT = "free cash win prize call now claim your text to stop"


def test_settings_of_the_model_folder_hold_as_in_transformers(lm, tmp_path, cache):
    eos = json.loads((lm / "config.json").read_text())["eos_token_id"]
    plain = oracle_ids(lm, PROMPT, do_sample=False, max_new_tokens=20, repetition_penalty=1.4)
    stop = next(token for token in plain[3:] if token not in plain[:3])
    tokenizer = json.loads((lm / "tokenizer.json").read_text())
    bos = {"id": "<|endoftext|>", "ids": [eos], "tokens": ["<|endoftext|>"]}
    template = {"type": "TemplateProcessing", "pair": [], "special_tokens": {"<|endoftext|>": bos},
                "single": [{"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]}
    assert tokenizer["post_processor"] != template
    folders = {
        "eos_list": edited(tmp_path / "eos_list", lm, generation_config={
            "eos_token_id": [eos, stop], "do_sample": False, "repetition_penalty": 1.4, "max_new_tokens": 20}),
        "no_generation_config": edited(tmp_path / "no_file", lm, config={
            "eos_token_id": [eos, stop], "attention_layers": ["global", "global"], "resid_dropout": 0.1,
            "attention_dropout": 0.1}),
        "bos": edited(tmp_path / "bos", lm, tokenizer={"post_processor": template}),
    }
    (folders["no_generation_config"] / "generation_config.json").unlink()
    greedy = ("--temperature", 0, "--max_tokens", 20)
    options = {"eos_list": (), "no_generation_config": greedy, "bos": greedy}
    found = {}
    for name, folder in folders.items():
        ended = started(cache, "generate", "--model", folder, "--prompt", PROMPT, "--json", *options[name]).expect(0)
        [line] = json_lines(ended.out)
        keywords = {} if name == "eos_list" else dict(do_sample=False, max_new_tokens=20)
        assert line["ids"] == oracle_ids(folder, PROMPT, **keywords), name
        found[name] = line["ids"], line["finish_reason"], ended.err
    assert found["eos_list"][0] == plain[: plain.index(stop)] and found["eos_list"][1] == "stop"
    assert "repetition_penalty 1.4" in found["eos_list"][2] and "do_sample false" in found["eos_list"][2]
    assert "attention_layers counts" in found["no_generation_config"][2]
    assert found["bos"][0] != found["no_generation_config"][0]


def test_settings_that_neoloom_does_not_have_are_named(lm, tmp_path, cache):
    folder = edited(tmp_path / "beams", lm, generation_config={"num_beams": 4, "top_k": 7, "typical_p": 1.0})
    ended = started(cache, "generate", "--model", folder, "--prompt", "free", "--max_tokens", 1, "--top_k", 3).expect(0)
    assert "num_beams 4, which neoloom does not support" in ended.err
    assert "typical_p" not in ended.err and "top_k" not in ended.err, "the command line goes first"


# Prompts


def test_prompt_files_of_windows_have_the_prompts_that_one_sees(lm, tmp_path, cache):
    prompts = tmp_path / "prompts.txt"
    prompts.write_bytes(b"\xef\xbb\xbffree\r\ncash\r\n\r\nhello friend")
    [*lines] = json_lines(command(cache, "generate", "--model", lm, "--prompt_file", prompts, "--max_tokens", 2,
                                  "--temperature", 0, "--json"))
    assert [line["prompt"] for line in lines] == ["free", "cash", "", "hello friend"]
    tokenizer = AutoTokenizer.from_pretrained(lm)
    rows = json_lines(common.neoloom(0, "tokenize", "--tokenizer", lm, "--input", prompts).expect(0).out)
    assert rows == [tokenizer(text).input_ids for text in ("free", "cash", "", "hello friend")]


def test_a_prompt_that_does_not_fit_is_named_before_the_first_is_answered(lm, tmp_path, cache):
    (tmp_path / "prompts.txt").write_text("free\n" + "cash " * 100 + "\nhello\n")
    ended = started(cache, "generate", "--model", lm, "--prompt_file", tmp_path / "prompts.txt").expect(DATA)
    assert_one_message(ended, "prompts.txt: line 2: the prompt has", "the model takes 64")
    assert ended.out == ""


def test_prompts_that_are_not_utf8_are_refused_with_their_place(lm, tmp_path, cache):
    (tmp_path / "prompts.txt").write_bytes(b"free\ncaf\xe9\n")
    for arguments in (("generate", "--model", lm, "--prompt_file"), ("tokenize", "--tokenizer", lm, "--input")):
        ended = common.neoloom(0, *arguments, tmp_path / "prompts.txt").expect(DATA)
        assert_one_message(ended, "prompts.txt: line 2: not UTF-8: 0xE9 at byte 4", "iconv -f LATIN1 -t UTF-8")
    for arguments in (("generate", "--model", lm, "--json", "--prompt"), ("tokenize", "--tokenizer", lm, "--text")):
        done = subprocess.run([os.fsencode(common.NEOLOOM), *(os.fsencode(str(a)) for a in arguments), b"caf\xe9"],
                              env=common.environment(), capture_output=True, timeout=60)
        assert done.returncode == USAGE and b"not UTF-8: 0xE9 at byte 4" in done.stderr
    (tmp_path / "prompts.txt").write_bytes("free".encode("utf-16-le"))
    ended = common.neoloom(0, "generate", "--model", lm, "--prompt_file", tmp_path / "prompts.txt").expect(DATA)
    assert_one_message(ended, "prompts.txt is UTF-16LE", "iconv -f UTF-16LE -t UTF-8")


def test_prompt_files_are_what_their_names_say(lm, tmp_path, cache):
    rows = [{"prompt": "free cash"}, {"prompt": "hello"}]
    lines = "\n".join(json.dumps(row) for row in rows) + "\n"
    files = {"a.ndjson": lines.encode(), "b.json": json.dumps(rows).encode(), "c.json": lines.encode(),
             "d.jsonl.gz": gzip.compress(lines.encode()), "e.jsonl": lines.replace("\n", "\n\n").encode(),
             "f.txt.gz": b"free cash\nhello\n"}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
        found = json_lines(command(cache, "generate", "--model", lm, "--prompt_file", tmp_path / name, "--max_tokens", 1, "--json"))
        assert [line["prompt"] for line in found] == ["free cash", "hello"], name
    for name, content, message in (
            ("g.csv", b"prompt\nfree\n", "pipe a table: neoloom generate --prompt_file - --set data.format=csv <"),
            ("h.parquet", b"PAR1", "not from Parquet"), ("i.json", b'[{"prompt": "free"}, 7]', "i.json: item 2: expected an object")):
        (tmp_path / name).write_bytes(content)
        ended = common.neoloom(0, "generate", "--model", lm, "--prompt_file", tmp_path / name).expect(DATA)
        assert_one_message(ended, name, message)


def test_prompts_of_jsonl_and_their_mistakes(lm, tmp_path, cache):
    prompts = tmp_path / "prompts.jsonl"
    write_jsonl(prompts, [{"prompt": "two\nlines", "id": 7}, {"prompt": ""}])
    [*lines] = json_lines(command(cache, "generate", "--model", lm, "--prompt_file", prompts, "--max_tokens", 1, "--json"))
    assert [line["prompt"] for line in lines] == ["two\nlines", ""]
    for row, message in (({"text": "free"}, 'expected the text "prompt", found "text"'), (["free"], "expected an object"),
                         ({"prompt": 7}, 'expected the text "prompt", found no text')):
        write_jsonl(prompts, [{"prompt": "free"}, row])
        ended = started(cache, "generate", "--model", lm, "--prompt_file", prompts).expect(DATA)
        assert_one_message(ended, "prompts.jsonl: line 2: " + message)


@pytest.fixture(scope="module")
def sampled(lm, tmp_path_factory, cache):
    """Three texts for each of 25 prompts, as the program alone writes them one by one, and how to ask for them."""
    prompts = tmp_path_factory.mktemp("sampled") / "prompts.txt"
    prompts.write_text("".join(f"free {'cash ' * (i % 7)}{i}\n" for i in range(25)))
    arguments = ("generate", "--model", lm, "--prompt_file", prompts, "--max_tokens", 12, "--temperature", 1.3, "--json",
                 "--num_return_sequences", 3)
    return arguments, command(cache, *arguments, "--batch_size", 1)


def test_texts_depend_neither_on_the_batch_nor_on_the_ranks(sampled, cache):
    arguments, alone = sampled
    lines = json_lines(alone)
    assert [(line["sequence"], line["prompt"]) for line in lines[:4]] == [(0, "free 0"), (1, "free 0"), (2, "free 0"), (0, "free cash 1")]
    assert len({tuple(line["ids"]) for line in lines}) > 70, "the texts of a prompt differ"
    assert command(cache, *arguments, "--batch_size", 7) == alone
    for ranks, batch_size in ((2, 8), (3, 2)):
        options = (*arguments, "--batch_size", batch_size, *settings(cache))
        assert common.neoloom(ranks, *options).expect(0).out == alone


def test_several_texts_without_json_are_printed_in_order(sampled, cache):
    arguments, alone = sampled
    printed = command(cache, *(a for a in arguments if a != "--json"))
    expected = "".join(f"{line['prompt']}{line['text']}\n" for line in json_lines(alone))
    assert printed == expected.replace("\r", "\n"), "the test reads line breaks of all systems as one"


def test_greedy_texts_of_one_prompt_are_refused(lm, cache):
    ended = started(cache, "generate", "--model", lm, "--prompt", "free", "--temperature", 0,
                    "--num_return_sequences", 2).expect(USAGE)
    assert_one_message(ended, "num_return_sequences is 2", "greedy")


def test_a_text_ends_before_a_stop_string(lm, tmp_path, cache):
    arguments = ("generate", "--model", lm, "--prompt", PROMPT, "--temperature", 0, "--max_tokens", 30)
    [whole] = json_lines(command(cache, *arguments, "--json"))
    stop = whole["text"][11:14]  # begins and ends wherever in tokens
    expected = whole["text"][: whole["text"].index(stop)]
    [line] = json_lines(command(cache, *arguments, "--json", "--stop_strings", "not there", "--stop_strings", stop))
    assert line["text"] == expected and line["finish_reason"] == "stop"
    assert line["ids"] == whole["ids"][: len(line["ids"])]
    assert command(cache, *arguments, "--stop_strings", stop) == PROMPT + expected + "\n"
    folder = edited(tmp_path / "stop", lm, generation_config={"stop_strings": [stop], "min_new_tokens": 2})
    ended = started(cache, *(folder if a is lm else a for a in arguments), "--json").expect(0)
    assert json_lines(ended.out)[0]["text"] == expected
    assert "min_new_tokens 2, 1 stop_strings" in ended.err


def speaking(folder, source, token):
    """Makes a model that says the same token for ever: the final norm gives a constant, which is nearest to that token."""
    shutil.copytree(source, folder)
    weights = load_file(folder / "model.safetensors")
    wte = weights["transformer.wte.weight"]
    weights["transformer.ln_f.weight"].zero_()
    weights["transformer.ln_f.bias"].copy_(wte[token])
    wte[token] *= 30
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def test_no_output_ends_in_half_a_character(lm, tmp_path, cache):
    vocab = json.loads((lm / "tokenizer.json").read_text())["model"]["vocab"]
    folder = speaking(tmp_path / "half", lm, vocab["\u00f0"])  # byte 0xF0, which opens a character of four bytes
    arguments = ("--model", folder, "--prompt", "x", "--max_tokens", 2, "--temperature", 0)
    [line] = json_lines(command(cache, "generate", *arguments, "--json"))
    assert line["ids"] == [vocab["\u00f0"]] * 2
    assert line["text"] == AutoTokenizer.from_pretrained(lm).decode(line["ids"]) == "\ufffd\ufffd"
    done = subprocess.run([common.NEOLOOM, "generate", *map(str, arguments), *settings(cache)], capture_output=True,
                          env=common.environment(), timeout=60)
    assert done.stdout.decode("utf-8") == "x\ufffd\ufffd\n"


def test_a_prompt_that_was_forgotten_is_told(lm, cache):
    words = ("generate", "--model", lm, "--max_tokens", 1)
    assert "neither --prompt nor --prompt_file is given" in started(cache, *words).err
    assert "neither" not in started(cache, *words, "--prompt", "x").expect(0).err


def test_a_text_that_reaches_the_last_position_says_so(lm, tmp_path, cache):
    ended = started(cache, "generate", "--model", lm, "--prompt", "free " * 20, "--max_tokens", 500, "--temperature", 0,
                    "--json").expect(0)
    [line] = json_lines(ended.out)
    assert line["finish_reason"] in ("positions", "stop")
    if line["finish_reason"] == "positions":
        assert f"{len(line['ids'])} of 500 tokens: the model has 64 positions" in ended.err


# Rows


def test_predict_answers_every_row_and_needs_no_labels(classifier, tmp_path, cache):
    rows = ['{"text": "free cash", "label": -1}', '{"text": null, "label": "ham"}', "not json", '{"text": ""}',
            '{"text": 7}', '{"text": "hello friend", "label": [1, {}]}', '{"label": "unheard of"}']
    path = tmp_path / "rows.jsonl"
    path.write_bytes("\n".join(rows).encode() + b'\n{"text": "caf\xe9"}\n')
    arguments = ("predict", "--model", classifier, "--input", path, "--set", "data.invalid_data_tolerance_percent=50",
                 "--set", "data.label_column=label")
    ended = started(cache, *arguments).expect(0)
    lines = json_lines(ended.out)
    assert [line["index"] for line in lines] == list(range(8))
    assert [line["label"] is None for line in lines] == [False, True, True, True, True, False, True, True]
    assert all(("error" in line) == (line["label"] is None) for line in lines)
    assert "the text is empty" in lines[3]["error"] and "0xE9" in lines[7]["error"]
    assert "6 of 8 rows have no prediction (the first: line 2: no value for \"text\")" in ended.err
    (tmp_path / "good.jsonl").write_text(f"{rows[0]}\n{rows[5]}\n")
    good = json_lines(command(cache, "predict", "--model", classifier, "--input", tmp_path / "good.jsonl", ranks=2))
    assert [row["scores"] for row in good] == [pytest.approx(lines[i]["scores"], abs=1e-6) for i in (0, 5)]
    (tmp_path / "glue.csv").write_text("text,label\nfree cash,-1\n\"hello, friend\"\n")
    lines = json_lines(command(cache, "predict", "--model", classifier, "--input", tmp_path / "glue.csv"))
    assert lines[0]["scores"] == pytest.approx(good[0]["scores"]) and "1 fields, expected 2" in lines[1]["error"]
    (tmp_path / "other.csv").write_text("body,label\nfree cash,ham\n")
    ended = started(cache, "predict", "--model", classifier, "--input", tmp_path / "other.csv").expect(DATA)
    assert_one_message(ended, 'no column "text"', '"body", "label"')


def test_the_share_of_rows_that_were_cut_is_told(classifier, tmp_path, cache):
    texts = ["free win prize call now"] * 3 + ["free"] * 5
    data = write_jsonl(tmp_path / "data.jsonl", [{"text": text, "label": LABELS[i % 2]} for i, text in enumerate(texts)])
    run, _ = train(tmp_path, cache, {"model_config": {"pretrained_model_name": str(classifier)},
                                     "trainer_config": {"max_steps": 1}, "peft_config": {"task_type": "SEQ_CLS"},
                                     "tokenizer_config": {"max_length": 2}, "data": {"train": str(data)}})
    note = "37.5 % of 8 rows were cut (see tokenizer_config.max_length)"
    for command_, option in (("predict", "--input"), ("evaluate", "--data")):
        for model in (("--run", run.folder), ("--model", classifier, "--set", "tokenizer_config.max_length=2")):
            assert note in started(cache, command_, *model, option, data).expect(0).err
        assert "were cut" not in started(cache, command_, "--model", classifier, option, data).expect(0).err


def test_evaluate_says_how_many_rows_it_left_out(classifier, tmp_path, cache):
    write_jsonl(tmp_path / "rows.jsonl", [{"text": "free", "label": "ham"}, {"text": 7, "label": "ham"}])
    ended = started(cache, "evaluate", "--model", classifier, "--data", tmp_path / "rows.jsonl", "--set",
                    "data.invalid_data_tolerance_percent=50").expect(0)
    assert 'evaluate: 1 of 2 rows were left out (the first: line 2: "text"' in ended.err
    assert json.loads(ended.out)["eval_samples"] == 1


def test_the_format_of_a_run_is_not_that_of_a_file_with_another_name(classifier, tmp_path, cache):
    rows = [{"text": "free cash", "label": "spam"}, {"text": "hello", "label": "ham"}]
    (tmp_path / "rows.txt").write_text("text,label\nfree cash,spam\nhello,ham\n")
    config = {"model_config": {"pretrained_model_name": str(classifier)}, "peft_config": {"r": 2},
              "trainer_config": {"max_steps": 1, "per_device_train_batch_size": 2},
              "data": {"train": str(tmp_path / "rows.txt"), "format": "csv", "label_column": "label"}}
    run, _ = train(tmp_path, cache, config)
    write_jsonl(tmp_path / "rows.jsonl", rows)
    shutil.copy(tmp_path / "rows.txt", tmp_path / "more.txt")
    outputs = []
    for name in ("rows.jsonl", "more.txt"):
        ended = started(cache, "predict", "--run", run.folder, "--input", tmp_path / name).expect(0)
        assert ("not the run's data.format csv (--set data.format=csv" in ended.err) == (name == "rows.jsonl")
        outputs.append(ended.out)
    assert outputs[0] == outputs[1]


# Outputs


def to(path, *arguments):
    """Runs neoloom with that device as its standard output; None: closed."""
    words = " ".join(f"'{word}'" for word in (common.NEOLOOM, *arguments))
    target = ">&-" if path is None else f">{path}"
    done = subprocess.run(["bash", "-c", f"{words} {target}"], env=common.environment(), stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, timeout=120)
    return common.Ended(done.returncode, done.stdout, done.stderr)


def test_an_output_that_was_not_written_is_an_error_of_every_command(lm, classifier, tmp_path, cache):
    rows = write_jsonl(tmp_path / "rows.jsonl", [{"text": "free cash", "label": "ham"}, {"text": "win", "label": "spam"}])
    config = tmp_path / "run.json"
    config.write_text(json.dumps({"model_config": {"pretrained_model_name": str(lm)}, "peft_config": {},
                                  "trainer_config": {"output_dir": str(tmp_path / "run")}, "data": {"train": str(rows)}}))
    (tmp_path / "checkpoints").mkdir()
    commands = [
        ("--version",),
        ("help", "train"),
        ("train", "--config", config, "--print-config"),
        ("train", "--config", config, "--dry-run"),
        ("plan", "--config", config),
        ("checkpoint", "list", tmp_path),
        ("tokenize", "--tokenizer", lm, "--input", rows),
        ("generate", "--model", lm, "--prompt", "free", "--max_tokens", 1, *settings(cache)),
        ("evaluate", "--model", classifier, "--data", rows, *settings(cache)),
        ("predict", "--model", classifier, "--input", rows, *settings(cache)),
    ]
    for arguments in commands:
        assert_one_message(to("/dev/full", *arguments).expect(OUTPUT), "standard output", "No space left on device")
    for arguments in (commands[0], commands[-1]):
        assert_one_message(to(None, *arguments).expect(OUTPUT), "standard output: it is closed")


def test_a_result_file_that_cannot_be_written_is_known_before_the_work(lm, classifier, tmp_path, cache):
    rows = write_jsonl(tmp_path / "rows.jsonl", [{"text": "free cash", "label": "ham"}])
    below = tmp_path / "rows.jsonl" / "out"
    for arguments in (("predict", "--model", classifier, "--input", rows, "--output", below / "out.jsonl"),
                      ("evaluate", "--model", classifier, "--data", rows, "--output", below / "out.json"),
                      ("export", "--model", lm, "--format", "merged", "--output", below)):
        ended = started(tmp_path / "fresh cache", *arguments).expect(OUTPUT)
        assert_one_message(ended, tmp_path / "rows.jsonl")
    assert not (tmp_path / "fresh cache").exists()


# Command line and plan


@pytest.mark.parametrize("arguments, fragments", [
    (("trian",), ['no command named "trian"', "did you mean train?", "predict, generate"]),
    ((), ["give a command", "train, prepare, plan"]),
    (("generate", "--max-token", "3"), ['"--max-token"', "did you mean --max_tokens?", "neoloom help generate"]),
    (("generate", "--repetition_penalty", "0"), ["--repetition_penalty: expected a number above 0", '"0"']),
    (("generate", "--top_p", "nan"), ["--top_p: expected a number above 0 and at most 1", '"nan"']),
    (("generate", "--top_k", "-1"), ["--top_k: expected an integer of at least 0", '"-1"']),
    (("generate", "--max_tokens", "1e3"), ["--max_tokens: expected an integer", '"1e3"']),
    (("plan", "--config", "x", "--ranks", "0"), ["--ranks: expected an integer of at least 1", '"0"']),
    (("help", "predit"), ['no command named "predit"', "did you mean predict?"]),
])
def test_a_command_line_with_a_mistake_is_one_short_sentence(arguments, fragments):
    ended = common.neoloom(0, *arguments).expect(USAGE)
    assert_one_message(ended, *fragments)
    assert len(ended.err) < 400


def test_help_without_a_command_lists_the_commands():
    ended = common.neoloom(0, "help").expect(0)
    assert all(re.search(rf"^  {name} +\w", ended.out, re.MULTILINE) for name in ("train", "predict", "doctor"))
    assert ended.out == common.neoloom(0, "--help").expect(0).out
    assert "--top_p" in common.neoloom(0, "help", "generate").expect(0).out


def test_a_plan_for_many_ranks_does_not_put_them_on_this_machine(lm, tmp_path):
    rows = write_jsonl(tmp_path / "rows.jsonl", [{"text": "free cash"}] * 64)
    config = tmp_path / "run.json"
    config.write_text(json.dumps({"model_config": {"pretrained_model_name": str(lm)}, "peft_config": {},
                                  "trainer_config": {"per_device_train_batch_size": 1}, "data": {"train": str(rows)}}))

    def plan(*arguments):
        out = common.neoloom(0, "plan", "--config", config, *arguments).expect(0).out
        found = re.search(r"machines +(\d+), .* \((\d+) cores\), with (\d+) ranks? each", out)
        return tuple(map(int, found.groups()))

    machines, cores, each = plan("--ranks", 512)
    assert machines * each >= 512 and each == min(cores, 512)
    assert plan("--ranks", 512, "--ranks_per_node", 8) == (64, cores, 8)
