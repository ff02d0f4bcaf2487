# SPDX-License-Identifier: Apache-2.0
"""Parquet files of pyarrow, read as the JSON lines with the same rows are."""
import gzip
import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from test_token_store import PROBE, build, expect_equal, folder, rough_text  # noqa: F401

ARROW = Path(sys.executable).parents[1] / "parquet"  # cluster/bootstrap/requirements-parquet.txt
if not ARROW.is_dir():
    pytest.skip("no Arrow: bash cluster/bootstrap/bootstrap.sh installs it", allow_module_level=True)
sys.path.append(str(ARROW))
import pyarrow as pa  # noqa: E402
import pyarrow.parquet as pq  # noqa: E402


def refused(folder, path, *options):
    done = subprocess.run([PROBE, "store", folder, path, str(path) + ".h5", *options], capture_output=True, text=True)
    assert done.returncode == 3, done.stderr
    return done.stderr


def made_rows(count=3000):
    generator = random.Random(11)
    return [(rough_text(generator), generator.choice(["x", "y, z", "\U0001F44D"])) for _ in range(count)]


TEXTS = {
    "string": pa.string(),
    "large_string": pa.large_string(),
    "string_view": pa.string_view(),
    "binary": pa.binary(),
    "dictionary": pa.dictionary(pa.int32(), pa.string()),
    "dictionary of large strings": pa.dictionary(pa.int64(), pa.large_string()),
}


@pytest.mark.parametrize("name", TEXTS)
def test_texts_of_every_kind(folder, tmp_path, name):  # noqa: F811
    rows = made_rows()
    table = pa.table({key: pa.array(column).cast(TEXTS[name]) for key, column in zip(("text", "label"), zip(*rows))})
    path = tmp_path / "rows.parquet"
    pq.write_table(table, path, row_group_size=700)
    expect_equal(build(folder, path, "label=label"), folder, rows)


@pytest.mark.parametrize("options", [
    {"compression": codec} for codec in ("none", "snappy", "gzip", "brotli", "zstd", "lz4")
] + [{"version": "1.0"}, {"data_page_version": "2.0"}, {"use_dictionary": False}, {"data_page_size": 100},
     {"write_page_checksum": True}, {"store_schema": False}, {"row_group_size": 1}], ids=str)
def test_files_of_every_kind(folder, tmp_path, options):  # noqa: F811
    rows = made_rows(500)
    text, label = zip(*rows)
    table = pa.table({"id": range(len(rows)), "text": text, "more": [[i, None] for i in range(len(rows))], "label": label})
    path = tmp_path / "rows.data"  # the first bytes say what it is
    pq.write_table(table, path, **options)
    expect_equal(build(folder, path, "label=label"), folder, rows)


@pytest.mark.parametrize("kind", [pa.int8(), pa.uint8(), pa.int32(), pa.int64(), pa.uint64(), pa.float32(), pa.float64(),
                                  pa.dictionary(pa.int8(), pa.int64())], ids=str)
def test_labels_that_are_numbers_go_by_their_value(folder, tmp_path, kind):  # noqa: F811
    rows = [(f"row {i}", str(i % 11)) for i in range(100)]
    labels = pa.array([int(label) for _, label in rows])
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"text": [text for text, _ in rows],
                             "label": labels.dictionary_encode().cast(kind) if pa.types.is_dictionary(kind) else labels.cast(kind)}), path)
    store = build(folder, path, "label=label")
    assert store.label_names == [str(i) for i in range(11)]
    assert [store.label_names[label] for label in store.labels] == [label for _, label in rows]


@pytest.mark.parametrize("kind", [pa.list_(pa.string()), pa.large_list(pa.large_string()), pa.list_(pa.dictionary(pa.int32(), pa.string()))], ids=str)
def test_lists_of_labels(folder, tmp_path, kind):  # noqa: F811
    generator = random.Random(12)
    lists = [generator.sample(["a", "b", "c, d"], generator.randint(0, 3)) for _ in range(1000)]
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"labels": pa.array(lists, kind), "text": [f"row {i}" for i in range(1000)]}), path,
                   row_group_size=1000 if "dictionary" in str(kind) else 300)  # Arrow reads no lists of dictionaries of several groups
    store = build(folder, path, "labels=labels")
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps({"text": f"row {i}", "labels": names}) + "\n" for i, names in enumerate(lists)))
    same = build(folder, tmp_path / "rows.jsonl", "labels=labels")
    assert store.label_names == ["a", "b", "c, d"] and store.rows == same.rows
    assert (store.multi_labels == same.multi_labels).all()
    assert store.multi_labels.sum() == sum(map(len, lists))


def test_more_rows_than_are_held_at_once(folder, tmp_path):  # noqa: F811
    rows = [(f"row {i}", "x") for i in range(50_000)]
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"text": [text for text, _ in rows], "label": ["x"] * len(rows)}), path)
    expect_equal(build(folder, path, "label=label"), folder, rows)


def test_missing_values_and_types_that_are_no_text_are_named_with_their_row(folder, tmp_path):  # noqa: F811
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"text": ["a", None, "c"], "label": ["x", "y", "z"]}), path)
    assert 'line 2: no value for "text"' in refused(folder, path, "label=label")
    pq.write_table(pa.table({"text": ["a", "b"], "label": [1.0, float("nan")]}), path)
    assert 'line 2: no value for "label"' in refused(folder, path, "label=label")
    pq.write_table(pa.table({"text": [[{"role": "user", "content": "hi"}]], "label": ["x"]}), path)
    assert "a list that holds object" in refused(folder, path, "label=label")
    pq.write_table(pa.table({"text": pa.array([b"caf\xe9"], pa.binary()), "label": ["x"]}), path)
    assert "line 1: not UTF-8: 0xE9" in refused(folder, path, "label=label")
    pq.write_table(pa.table({"text": pa.array([0], pa.timestamp("ms")), "label": ["x"]}), path)
    assert 'the column "text" has the type timestamp[ms]; expected text' in refused(folder, path, "label=label")


def test_a_file_without_the_column_or_without_rows_is_named(folder, tmp_path):  # noqa: F811
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"Text": ["a"], "label": ["x"]}), path)
    message = refused(folder, path, "label=label")
    assert 'no column "text"' in message and 'did you mean "Text"?' in message
    pq.write_table(pa.table({"text": pa.array([], pa.string()), "label": pa.array([], pa.string())}), path)
    assert "has no rows" in refused(folder, path, "label=label")


def test_damaged_files_end_with_a_message_that_names_them(folder, tmp_path):  # noqa: F811
    generator = random.Random(13)
    path = tmp_path / "rows.parquet"
    rows = made_rows(200)
    text, label = zip(*rows)
    pq.write_table(pa.table({"text": text, "label": label}), path, write_page_checksum=True)
    whole = path.read_bytes()
    for size in (5, 12, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        assert str(path) in refused(folder, path, "label=label")
    for _ in range(60):
        at = generator.randrange(4, len(whole))
        path.write_bytes(whole[:at] + bytes([whole[at] ^ generator.randrange(1, 256)]) + whole[at + 1:])
        done = subprocess.run([PROBE, "store", folder, path, tmp_path / "s.h5", "label=label"], capture_output=True, text=True)
        assert done.returncode in (0, 3), f"byte {at}: {done.returncode} {done.stderr}"
        assert done.returncode == 0 or str(path) in done.stderr


def test_only_parquet_loads_arrow_and_a_build_without_it_says_so(folder, tmp_path):  # noqa: F811
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"text": ["a"], "label": ["x"]}), path)
    (tmp_path / "rows.csv").write_text("text,label\na,x\n")
    for name, loads in (("rows.csv", False), ("rows.parquet", True)):
        done = subprocess.run([PROBE, "store", folder, tmp_path / name, tmp_path / "s.h5", "label=label"], text=True,
                              capture_output=True, env={**os.environ, "LD_DEBUG": "files"})
        assert done.returncode == 0 and ("libarrow" in done.stderr) == loads, name
    alone = tmp_path / "probe"
    shutil.copy(PROBE, alone)
    done = subprocess.run([alone, "store", folder, path, tmp_path / "s.h5", "label=label"], capture_output=True, text=True)
    assert done.returncode == 3
    assert f"{path} is a Parquet file, but this build cannot read these" in done.stderr and "bootstrap.sh" in done.stderr


def test_a_compressed_parquet_file_is_refused(folder, tmp_path):  # noqa: F811
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"text": ["a"], "label": ["x"]}), path)
    packed = tmp_path / "rows.parquet.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert "a Parquet file within a compressed file; unpack it" in refused(folder, packed, "label=label")
