# SPDX-License-Identifier: Apache-2.0
"""How predict writes its rows: in order, while it computes, with columns of the input, and what it shows meanwhile."""

import csv
import gzip
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import common
import pytest
import tiny_model
from runs import assert_one_message, command, json_lines, write_jsonl

ARROW = Path(sys.executable).parents[1] / "parquet"  # cluster/bootstrap/requirements-parquet.txt
sys.path.append(str(ARROW))
USAGE, DATA = 2, 3
LABELS = ["ham", "spam"]
MANY = 30_000
ROWS = [{"id": 10 * i, "text": text, "label": LABELS[i % 2], "facts": {"score": i + 0.5, "tags": ["é", None]}}
        for i, text in enumerate(tiny_model.sample_texts(count=37, seed=3))]


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    return tiny_model.make_model_folder(tmp_path_factory.mktemp("cls") / "base", head="sequence_classification",
                                        labels=LABELS, std=0.3)


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    return write_jsonl(tmp_path_factory.mktemp("rows") / "rows.jsonl", ROWS)


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    texts = tiny_model.sample_texts(count=MANY, seed=4)
    return write_jsonl(tmp_path_factory.mktemp("many") / "many.jsonl", [{"text": text} for text in texts])


def settings(cache, *more):
    sets = ["runtime.device=cpu", "runtime.threads_per_rank=1", f"runtime.cache_dir={cache}",
            "model_config.frozen_dtype=float32", *more]
    return [word for setting in sets for word in ("--set", setting)]


def start(cache, *arguments, ranks=0):
    return subprocess.Popen(common.command(ranks, "predict", *arguments, *settings(cache)), env=common.environment(),
                            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("ranks", (0, 2))
def test_rows_arrive_in_order_while_others_are_computed(classifier, many, cache, ranks):
    command(cache, "predict", "--model", classifier, "--input", many, "--output", "/dev/null")  # fills the cache
    process = start(cache, "--model", classifier, "--input", many, ranks=ranks)
    first = json.loads(process.stdout.readline())
    assert process.poll() is None, "the first row came with the last"
    rest = [json.loads(line)["index"] for line in process.stdout]
    assert process.wait() == 0
    assert [first["index"], *rest] == list(range(MANY))


def test_a_file_is_replaced_at_the_end_and_never_half(classifier, many, cache, tmp_path):
    output = tmp_path / "labels.jsonl"
    output.write_text("old\n")
    process = start(cache, "--model", classifier, "--input", many, "--output", output)
    assert common.wait_until(lambda: any(p.stat().st_size > 0 for p in tmp_path.glob(".labels.jsonl.tmp-*")), process)
    assert output.read_text() == "old\n"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert output.read_text() == "old\n"
    assert not command(cache, "predict", "--model", classifier, "--input", many, "--output", output)
    assert sum(1 for _ in output.open()) == MANY


def test_any_number_of_ranks_writes_the_same_bytes(classifier, rows, cache):
    keep = ("predict", "--model", classifier, "--input", rows, "--keep", "id,text", "--set",
            "trainer_config.per_device_eval_batch_size=4")
    one = command(cache, *keep)
    assert [line["id"] for line in json_lines(one)] == [row["id"] for row in ROWS]
    for ranks in (1, 2, 3):
        assert command(cache, *keep, ranks=ranks) == one


def in_format(folder, name):
    path = folder / f"rows.{name}"
    if name == "csv":
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, ["id", "text", "label", "facts"])
            writer.writeheader()
            writer.writerows({**row, "facts": json.dumps(row["facts"])} for row in ROWS)
    elif name == "parquet":
        if not ARROW.is_dir():
            pytest.skip("no Arrow: bash cluster/bootstrap/bootstrap.sh installs it")
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), path)
    elif name == "json":
        path.write_text(json.dumps(ROWS))
    else:
        write_jsonl(path, ROWS)
    return path


@pytest.mark.parametrize("name", ("jsonl", "json", "csv", "parquet"))
def test_columns_of_the_input_come_along_as_they_are(classifier, tmp_path, cache, name):
    path = in_format(tmp_path, name)
    plain = json_lines(command(cache, "predict", "--model", classifier, "--input", path))
    kept = json_lines(command(cache, "predict", "--model", classifier, "--input", path, "--keep", "id,facts",
                              "--keep", "true_label=label"))
    for row, before, line in zip(ROWS, plain, kept, strict=True):
        expected = {"id": row["id"], "facts": row["facts"], "true_label": row["label"]}
        if name == "csv":  # has texts only
            expected |= {"id": str(row["id"]), "facts": json.dumps(row["facts"])}
        assert list(line)[:4] == ["index", "id", "facts", "true_label"]
        assert line == {**before, **expected}


def test_lines_of_a_text_file_and_rows_without_a_prediction_come_along(classifier, tmp_path, cache):
    (tmp_path / "a.txt").write_text('say "hi"\nfree cash\n')
    lines = json_lines(command(cache, "predict", "--model", classifier, "--input", tmp_path / "a.txt", "--keep", "text"))
    assert [line["text"] for line in lines] == ['say "hi"', "free cash"]
    (tmp_path / "b.jsonl").write_text('{"id": 1, "text": 7}\nnot json\n{"text": "free"}\n')
    lines = json_lines(command(cache, "predict", "--model", classifier, "--input", tmp_path / "b.jsonl", "--keep", "id"))
    assert [line["id"] for line in lines] == [1, None, None]
    assert [line["label"] is None for line in lines] == [True, True, False]


def test_a_column_that_is_not_there_is_named_before_the_work(classifier, rows, tmp_path, cache):
    def refused(code, keep, path=rows):
        return common.neoloom(0, "predict", "--model", classifier, "--input", path, "--keep", keep,
                              *settings(cache)).expect(code)

    assert_one_message(refused(DATA, "idd"), 'no column "idd" (--keep)', 'did you mean "id"?')
    assert_one_message(refused(DATA, "idd", in_format(tmp_path, "csv")), 'no column "idd" (--keep)')
    assert_one_message(refused(DATA, "idd", in_format(tmp_path, "parquet")), 'no column "idd" (--keep)')
    assert_one_message(refused(USAGE, "label"), "predictions have a key label of their own", "--keep my_label=label")
    assert_one_message(refused(USAGE, "id,id"), '"id" stands there twice')


def test_long_work_shows_how_far_it_is(classifier, rows, tmp_path, cache):
    fresh = tmp_path / "cache"  # so that it tokenises

    def shown(style, *arguments):
        return common.neoloom(0, *arguments, *settings(fresh, f"logging.progress={style}")).expect(0).err

    predict = shown("bar", "predict", "--model", classifier, "--input", rows, "--output", tmp_path / "out.jsonl")
    assert "predicting 100%" in predict and "37/37 rows, done" in predict
    evaluate = shown("bar", "evaluate", "--model", classifier, "--data", rows)
    assert "evaluating 100%" in evaluate and "37/37 rows, done" in evaluate
    export = shown("bar", "export", "--model", classifier, "--format", "merged", "--output", tmp_path / "merged")
    assert "exporting 100%" in export and "kB, done" in export
    many = write_jsonl(tmp_path / "many.jsonl", ROWS * 20)
    assert "tokenising" in shown("bar", "predict", "--model", classifier, "--input", many, "--output", "/dev/null")
    quiet = shown("off", "predict", "--model", classifier, "--input", rows, "--output", tmp_path / "out.jsonl")
    assert "predicting" not in quiet


@pytest.mark.parametrize("ranks", (0, 2))
def test_work_on_weights_and_data_shows_how_far_it_is(tmp_path, data, ranks):
    base = Path(shutil.copytree(data / "base", tmp_path / "base"))
    os.utime(base / "model.safetensors", (0, 0))  # so that it counts as settled
    run = common.Run(tmp_path / "run", common.make_config("classification", data, tmp_path / "cache"),
                     model_config={"pretrained_model_name": str(base)})

    def shown(style, verify="changed"):
        sets = ("--set", f"logging.progress={style}", "--set", f"runtime.verify_weights={verify}")
        err = common.neoloom(ranks, "prepare", "--config", run.config_file, *sets).expect(0).err
        return set(re.findall(r"\x1b\[\?7l([a-z ]+) 100% [^\r\n]* kB, done", err)), err

    first, _ = shown("bar")
    packs = {"packing weights"} if any("panels" in path.name for path in (tmp_path / "cache/weights").iterdir()) else set()
    assert first == {"hashing data", "converting weights"} | packs
    again, _ = shown("bar")
    assert again == {"hashing data", "verifying cached tokens", "verifying cached weights"}
    always, _ = shown("bar", "always")
    compared = {"comparing weights"} | ({"comparing packed weights"} if packs else set())
    assert always == again | compared | {"hashing weights"}
    for style in ("auto", "plain", "off"):  # it takes less than a second
        assert not re.search("hashing|verifying|comparing", shown(style, "always")[1])


def test_unpacking_and_converting_input_shows_how_far_it_is(classifier, tmp_path):
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS * 20)
    (tmp_path / "packed.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    (tmp_path / "latin.jsonl").write_bytes(lines.encode("latin-1", "replace"))
    for name, work, sets in (("packed.jsonl.gz", "unpacking data", ()),
                             ("latin.jsonl", "converting data", ("data.encoding=latin-1",))):
        done = common.neoloom(0, "predict", "--model", classifier, "--input", tmp_path / name, "--output", "/dev/null",
                              *settings(tmp_path / "cache", "logging.progress=bar", *sets)).expect(0)
        assert f"{work} 100%" in done.err and "hashing data 100%" in done.err and "tokenising" in done.err
