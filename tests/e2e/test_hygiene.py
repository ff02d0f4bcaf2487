# SPDX-License-Identifier: Apache-2.0
"""What plan, --dry-run and the log of a first start tell about the data, against counts in Python and numpy."""

import random
import re
from collections import Counter, defaultdict

import common
import numpy as np
import pytest
from common import Run, make_config, neoloom
from runs import write_jsonl
from transformers import AutoTokenizer

MAX_LENGTH, FEW = 24, 10
LABELS = ["alpha", "beta", "gamma", "rare"]
DATA = 3


def draw(seed, rows, labels):
    generator = random.Random(seed)
    texts = [" ".join(f"w{generator.randrange(40)}" for _ in range(generator.randrange(1, 14))) for _ in range(rows // 2)]
    return [{"text": generator.choice(texts), "label": generator.choice(labels)} for _ in range(rows)]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    train = draw(0, 80, LABELS[:3]) + [{"text": f"seldom {i}", "label": "rare"} for i in range(FEW - 1)]
    validation = draw(1, 30, LABELS[:2]) + train[:7] + [{"text": "", "label": "alpha"}]
    return train, validation


@pytest.fixture
def run(files, tmp_path, data, cache):
    for name, rows in zip(("train", "validation"), files, strict=True):
        write_jsonl(tmp_path / f"{name}.jsonl", rows)
    return Run(tmp_path / "run", make_config("classification", data, cache), tokenizer_config={"max_length": MAX_LENGTH},
               trainer_config={"max_steps": 2, "save_steps": 1, "eval_steps": 2},
               data={name: str(tmp_path / f"{name}.jsonl") for name in ("train", "validation")})


def counted(files, data):
    """Returns the findings, from the tokens of the oracle's tokenizer."""
    tokenizer = AutoTokenizer.from_pretrained(data / "base")
    whole = [[tokenizer(row["text"]).input_ids for row in rows] for rows in files]
    cut = [[tuple(ids[:MAX_LENGTH]) for ids in rows] for rows in whole]
    expected = []
    for name, rows, all_ids, ids in zip(("training data", "validation data"), files, whole, cut, strict=True):
        lengths = [len(row) for row in ids]
        at = [int(np.percentile(lengths, q, method="inverted_cdf")) for q in (50, 90, 95, 99, 100)]
        share = 100 * sum(len(row) > MAX_LENGTH for row in all_ids) / len(rows)
        assert 0 < share < 100
        expected.append(f"{name}: tokens a row: median {at[0]}, 90 % at most {at[1]}, 95 % {at[2]}, 99 % {at[3]}, "
                        f"longest {at[4]}; {share:.3g} % of {len(rows)} rows were cut")
        labels = defaultdict(set)
        for row, key in zip(rows, ids, strict=True):
            labels[key].add(row["label"])
        expected.append(f"{name}: {len(rows) - len(labels)} of {len(rows)} rows repeat the text of an earlier one")
        expected.append(f"{name}: {sum(len(found) > 1 for found in labels.values())} texts come with more than one label")
        sizes = Counter(row["label"] for row in rows)
        for text, names in ((f"labels with fewer than {FEW} rows", [n for n in LABELS if 0 < sizes[n] < FEW]),
                            ("labels without a row", [n for n in LABELS if sizes[n] == 0])):
            if names:
                expected.append(f"{name}: {text}: " + ", ".join(f'"{n}"' for n in names))
    expected.append(f"validation data: 1 of {len(files[1])} texts are empty")
    shared = sum(key in set(cut[0]) for key in cut[1])
    assert shared >= 7
    expected.append(f"validation data: {shared} of {len(files[1])} rows stand in the training data, too")
    return expected


def test_plan_and_dry_run_tell_what_python_counts(run, files, data):
    for arguments in (("plan",), ("train", "--dry-run")):
        printed = neoloom(0, *arguments, "--config", run.config_file).expect(0).out
        lines = [re.sub(r"^warning +", "", line) for line in printed.splitlines()]
        lines = [re.sub(r"^(\w+ data) +", r"\1: ", line) for line in lines]
        for text in counted(files, data):
            assert any(line.startswith(text) for line in lines), f"{text}\n{printed}"


def test_an_example_names_rows_that_are_equal(run, files):
    printed = neoloom(0, "plan", "--config", run.config_file).expect(0).out
    (first, second) = map(int, re.search(r"training data: \d+ of \d+ rows repeat .*rows (\d+) and (\d+)\)", printed).groups())
    assert files[0][first - 1]["text"] == files[0][second - 1]["text"] and first < second
    (first, second) = map(int, re.search(r"training data: .*more than one label .*rows (\d+) and (\d+)\)", printed).groups())
    assert files[0][first - 1]["label"] != files[0][second - 1]["label"]
    assert files[0][first - 1]["text"] == files[0][second - 1]["text"]


def test_the_log_tells_it_once_on_any_number_of_ranks(run, files, data):
    first = run.train(2).expect(0)
    for text in counted(files, data):
        assert len(re.findall(rf"^(?:warning: )?{re.escape(text)}", first.err, re.M)) == 1, f"{text}\n{first.err}"
    again = run.train(2, "--extend", "--set", "trainer_config.max_steps=3").expect(0)
    assert "repeat the text" not in again.err


def test_clean_data_get_no_warning(tmp_path, data, cache):
    rows = {name: [{"text": f"{name} number {i}", "label": LABELS[i % 2]} for i in range(40)]
            for name in ("train", "validation")}
    for name in rows:
        write_jsonl(tmp_path / f"{name}.jsonl", rows[name])
    run = Run(tmp_path / "run", make_config("classification", data, cache),
              data={name: str(tmp_path / f"{name}.jsonl") for name in rows})
    assert "warning" not in neoloom(0, "plan", "--config", run.config_file).expect(0).out


def test_a_plan_of_empty_texts_ends_as_the_run_would(tmp_path, data, cache):
    write_jsonl(tmp_path / "train.jsonl", [{"text": "", "label": label} for label in common.LABELS])
    run = Run(tmp_path / "run", make_config("classification", data, cache), data={"train": str(tmp_path / "train.jsonl")})
    assert "are empty" in neoloom(0, "plan", "--config", run.config_file).expect(DATA).err


def test_prompts_and_responses_are_compared_together(tmp_path, data, cache):
    rows = [{"prompt": f"say {i % 5}", "response": f"word {i}"} for i in range(20)] + [{"prompt": "say 0", "response": "word 0"}]
    write_jsonl(tmp_path / "train.jsonl", rows)
    config = make_config("causal_lm", data, cache)
    config["data"] = {"train": str(tmp_path / "train.jsonl"), "prompt_column": "prompt", "response_column": "response"}
    config["trainer_config"]["eval_strategy"] = "no"
    run = Run(tmp_path / "run", config)
    printed = neoloom(0, "plan", "--config", run.config_file).expect(0).out
    assert "training data: 1 of 21 rows repeat the text of an earlier one (for example rows 1 and 21)" in printed


def test_a_response_that_is_cut_in_part_is_told_apart(tmp_path, data, cache):
    """Of cut rows: one lost a part of its prompt, one the end of its response, one all of it."""
    tokenizer = AutoTokenizer.from_pretrained(data / "base")
    word = " call now"
    rows = [{"prompt": "a", "response": "b"}, {"prompt": word * 30, "response": "b"}, {"prompt": "a", "response": word * 30}]
    assert len(tokenizer(word * 30).input_ids) > 24
    write_jsonl(tmp_path / "train.jsonl", rows * 2)
    config = make_config("causal_lm", data, cache)
    config["data"] = {"train": str(tmp_path / "train.jsonl"), "prompt_column": "prompt", "response_column": "response"}
    config["trainer_config"] |= {"eval_strategy": "no", "max_steps": 1}
    run = Run(tmp_path / "run", config, tokenizer_config={"max_length": 24})
    planned, trained = neoloom(0, "plan", "--config", run.config_file).expect(0), run.train(0).expect(0)
    for text in (f"2 of 6 responses of {tmp_path}/train.jsonl lost their end: the model is not taught to stop there",
                 "66.7 % of 6 rows were cut (see tokenizer_config.max_length); 2 responses lost their end"):
        assert text in planned.out and text in trained.err, f"{text}\n{planned.out}\n{trained.err}"


def test_white_space_alone_is_empty(tmp_path, data, cache):
    rows = [{"text": text, "label": LABELS[i % 2]} for i, text in enumerate(["a b", " ", "\n\t ", "c", "", "d"])]
    write_jsonl(tmp_path / "train.jsonl", rows)
    run = Run(tmp_path / "run", make_config("classification", data, cache), trainer_config={"eval_strategy": "no"},
              data={"train": str(tmp_path / "train.jsonl"), "validation": ""})
    printed = neoloom(0, "plan", "--config", run.config_file).expect(0).out
    assert f"3 of 6 texts of {tmp_path}/train.jsonl are empty or white space" in printed


def test_texts_with_two_values_are_told(tmp_path, data, cache):
    rows = [{"text": f"text {i % 4}", "label": value} for i, value in enumerate([0.5, 1, 2, 3, 0.5, 1.5])]
    write_jsonl(tmp_path / "train.jsonl", rows)
    config = make_config("classification", data, cache)
    config["model_config"]["problem_type"] = "regression"
    run = Run(tmp_path / "run", config, trainer_config={"eval_strategy": "no"},
              data={"train": str(tmp_path / "train.jsonl"), "validation": ""})
    printed = neoloom(0, "plan", "--config", run.config_file).expect(0).out
    assert "1 text comes with more than one value (for example rows 2 and 6)" in printed


def test_keys_without_an_effect_are_named(tmp_path, data, cache):
    """Of the files' format, and validation data that nothing evaluates."""
    keys = {"delimiter": ";", "quoting": False, "header": False}
    run = Run(tmp_path / "run", make_config("classification", data, cache), data=keys, trainer_config={"eval_strategy": "no"})
    printed = neoloom(0, "plan", "--config", run.config_file).expect(0).out
    for key in keys:
        assert f"data.{key} has no effect: no file is CSV or TSV" in printed
    assert "nothing evaluates the validation data: set trainer_config.eval_strategy" in printed
    (tmp_path / "rows.csv").write_text("text;label\n" + "a b;ham\nc d;spam\n" * 20)
    run = Run(tmp_path / "tables", make_config("classification", data, cache), trainer_config={"eval_strategy": "no"},
              data={"train": str(tmp_path / "rows.csv"), "validation": "", "delimiter": ";"})
    printed = neoloom(0, "plan", "--config", run.config_file).expect(0).out
    assert "has no effect" not in printed and "nothing evaluates" not in printed


@pytest.mark.parametrize("eos", (True, False))
def test_empty_prompts_and_responses_are_told(tmp_path, data, cache, eos):
    rows = [{"prompt": f"say {i}", "response": f"word {i}"} for i in range(10)]
    spoilt = [{"prompt": "say it", "response": ""}, {"prompt": "", "response": "some words alone"},
              {"prompt": "then", "response": ""}]
    write_jsonl(tmp_path / "train.jsonl", rows + spoilt)
    write_jsonl(tmp_path / "validation.jsonl", [{"prompt": "new", "response": "x"}, {"prompt": "newer", "response": ""}])
    config = make_config("causal_lm", data, cache)
    config["data"] = {"train": str(tmp_path / "train.jsonl"), "validation": str(tmp_path / "validation.jsonl"),
                      "prompt_column": "prompt", "response_column": "response"}
    run = Run(tmp_path / "run", config, tokenizer_config={"add_eos_token": eos}, trainer_config={"max_steps": 1})
    training = ["1 of 13 prompts of TRAIN are empty", "2 of 13 responses of TRAIN are empty"]
    if not eos:  # then such a row has no token to train on, which is told anyway
        training[1] = "2 of 13 rows of TRAIN hold no token to train on"
    planned, trained = neoloom(0, "plan", "--config", run.config_file).expect(0), run.train(0).expect(0)
    for text in training:
        text = text.replace("TRAIN", str(tmp_path / "train.jsonl"))
        assert text in planned.out and text in trained.err, f"{text}\n{planned.out}\n{trained.err}"
    assert ("1 of 2 responses are empty" in planned.out) == eos
    whole = neoloom(0, "plan", "--config", run.config_file, "--set", "trainer_config.completion_only_loss=false").expect(0)
    assert "are empty" not in whole.out, "the store does not hold where a prompt ends that is trained on"
