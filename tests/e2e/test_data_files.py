# SPDX-License-Identifier: Apache-2.0
"""Several files, compressed files, other encodings and a validation split: the same rows as one plain file, the same
bits on any number of ranks and over a kill and a resume."""

import csv
import gzip
import json
from collections import Counter

import pytest
import zstandard
from common import LABELS, Run, make_config, neoloom
from runs import assert_one_message, command, json_lines
from sklearn.model_selection import train_test_split

DATA = 3


@pytest.fixture(scope="module")
def rows(data):
    return json_lines((data / "train.jsonl").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def parts(data, rows, tmp_path_factory):
    """Writes the training rows in three files of three kinds, whose names sort in the order of the rows."""
    folder = tmp_path_factory.mktemp("parts")
    text = lambda some: "".join(json.dumps(row) + "\n" for row in some).encode()
    (folder / "rows-0.jsonl.gz").write_bytes(gzip.compress(text(rows[:20])))
    (folder / "rows-2.json.zst").write_bytes(zstandard.compress(json.dumps(rows[40:]).encode()))
    with open(folder / "rows-1.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["label", "text"])
        writer.writeheader()
        writer.writerows(rows[20:40])
    return folder


def without_paths(state):
    return {key: value for key, value in state.items() if key != "adapter"}


def trained(folder, config, ranks, **changes):
    run = Run(folder, config, **changes)
    run.train(ranks).expect(0)
    return run


def test_files_of_a_pattern_train_as_one_file_with_their_rows(tmp_path, data, cache, parts):
    config = make_config("classification", data, cache)
    one = trained(tmp_path / "one", config, 1)
    for ranks, train in ((1, str(parts / "rows-*")), (2, str(parts / "rows-*")),
                         (3, [str(parts / "rows-2.json.zst"), str(parts / "rows-[01]*")])):
        several = trained(tmp_path / f"several{ranks}", config, ranks, data={"train": train})
        assert several.losses() == one.losses(), f"{ranks} ranks"
        assert without_paths(several.state()) == without_paths(one.state()), f"{ranks} ranks"


@pytest.fixture(scope="module")
def split(data, cache):
    config = make_config("classification", data, cache)
    del config["data"]["validation"]
    config["data"]["validation_split"] = 0.2
    return config


def test_a_split_is_the_same_on_any_number_of_ranks_and_over_a_kill(tmp_path, split):
    runs = {ranks: trained(tmp_path / f"np{ranks}", split, ranks) for ranks in (1, 2, 3)}
    for ranks in (2, 3):
        assert runs[ranks].state() == runs[1].state(), f"{ranks} ranks"
        assert runs[ranks].evaluations() == runs[1].evaluations(), f"{ranks} ranks"
    killed = Run(tmp_path / "killed", split)
    assert killed.train(2, NEOLOOM_FAULT="kill:rank=0:step=7").code != 0
    killed.train(3).expect(0)
    assert killed.events("resume")
    assert killed.state() == runs[1].state()
    assert killed.evaluations() == runs[1].evaluations()


def test_a_split_takes_its_share_of_each_label_and_evaluate_finds_it_again(tmp_path, cache, split, rows):
    run = Run(tmp_path / "run", split)
    ended = run.train(2).expect(0)
    assert f"data.validation_split: 11 of {len(rows)} samples" in ended.err + ended.out
    result = json.loads(command(cache, "evaluate", "--run", run.folder, ranks=2))
    last = run.evaluations()[-1]
    assert result["eval_loss"] == last["eval_loss"] and result["eval_accuracy"] == last["eval_accuracy"]
    labels = [row["label"] for row in rows]
    counts = Counter(train_test_split(labels, test_size=0.2, stratify=labels, random_state=0)[1])
    found = dict(zip(result["eval_labels"], map(sum, result["eval_confusion_matrix"])))
    assert found == {label: counts[label] for label in sorted(LABELS)}


def test_a_resume_with_another_share_or_seed_is_refused(tmp_path, split):
    run = trained(tmp_path / "run", split, 1)
    ended = run.train(1, "--set", "data.validation_split=0.3").expect(2)
    assert "training data and its settings" in ended.err
    assert run.train(1, "--set", "trainer_config.data_seed=7").expect(2)


def test_predict_reads_the_files_of_a_pattern_in_order(tmp_path, data, cache, parts, rows):
    run = trained(tmp_path / "run", make_config("classification", data, cache), 1)
    several = command(cache, "predict", "--run", run.folder, "--input", parts / "rows-*", ranks=2)
    one = command(cache, "predict", "--run", run.folder, "--input", data / "train.jsonl")
    assert len(json_lines(one)) == len(rows)
    assert several == one


def test_an_encoding_and_a_delimiter_read_what_a_spreadsheet_writes(tmp_path, data, cache, rows):
    config = make_config("classification", data, cache)
    plain = [{**row, "text": row["text"].encode("cp1252", "ignore").decode("cp1252") + " \u201ccaf\u00e9\u201d"} for row in rows]
    for name, encoding, delimiter in (("plain.csv", "utf-8", ","), ("sheet.csv", "cp1252", ";")):
        with open(tmp_path / name, "w", encoding=encoding, newline="") as file:
            writer = csv.DictWriter(file, ["text", "label"], delimiter=delimiter)
            writer.writeheader()
            writer.writerows(plain)
    one = trained(tmp_path / "one", config, 1, data={"train": str(tmp_path / "plain.csv")})
    sheet = {"train": str(tmp_path / "sheet.csv"), "delimiter": ";", "encoding": "cp1252", "validation": ""}
    other = trained(tmp_path / "other", config, 1, data=sheet, trainer_config={"eval_strategy": "no"})
    assert [loss for _, _, loss, _, _ in other.losses()] == [loss for _, _, loss, _, _ in one.losses()]


def test_a_pattern_without_a_file_and_a_cut_file_are_one_sentence(tmp_path, data, cache, parts):
    config = make_config("classification", data, cache)
    ended = Run(tmp_path / "none", config, data={"train": str(parts / "rows-*.parquet")}).train(2).expect(DATA)
    assert_one_message(ended, "no file matches the pattern", "rows-*.parquet")
    whole = (parts / "rows-0.jsonl.gz").read_bytes()
    cut = tmp_path / "cut.jsonl.gz"
    cut.write_bytes(whole[:-9])
    ended = Run(tmp_path / "cut", config, data={"train": str(cut)}).train(2).expect(DATA)
    assert_one_message(ended, cut, "the gzip stream has no end", f"after {len(whole) - 9} bytes")
    assert_one_message(neoloom(2, "plan", "--config", tmp_path / "cut.json", "--ranks", 2).expect(DATA), cut)
