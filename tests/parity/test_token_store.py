# SPDX-License-Identifier: Apache-2.0
"""Token stores read with h5py, against Python's csv and json modules and the ids of `tokenizers`."""
import csv
import gzip
import io
import json
import os
import random
import subprocess
from pathlib import Path

import h5py
import numpy as np
import pytest
import zstandard
from tokenizers import ByteLevelBPETokenizer, Tokenizer

SOURCE = Path(os.environ.get("NEOLOOM_SOURCE_DIR", Path(__file__).resolve().parents[2]))
PROBE = Path(os.environ.get("NEOLOOM_BUILD_DIR", SOURCE / "build")) / "data_probe"
SHARED = Path(os.environ.get("NEOLOOM_SHARED", SOURCE.parent / "shared")) / "data"


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizer = ByteLevelBPETokenizer()
    texts = ["the card has not arrived yet and the transfer is still pending\n" * 3, "caf\u00e9 \u4f60\u597d 123"] * 3
    tokenizer.train_from_iterator(texts, vocab_size=400, min_frequency=1, special_tokens=["<|endoftext|>"], show_progress=False)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


class Store:
    def __init__(self, path):
        with h5py.File(path, "r") as file:
            assert file.attrs["format"] in ("neoloom token store", b"neoloom token store")
            assert file.attrs["format_version"] == 1
            for name in ("ids", "offsets", "lengths", "prompt_tokens", "target_counts", "labels"):
                dataset = file[name]
                assert dataset.chunks is None and dataset.compression is None
                assert dataset.id.get_offset() % 64 == 0
                setattr(self, name, dataset[:])
            assert file.attrs["samples"] == len(self.lengths) and file.attrs["tokens"] == len(self.ids)
            self.multi_labels = file["multi_labels"][:]
            self.label_names = [name.decode() for name in file["label_names"][:]] if "label_names" in file else []
        self.rows = [self.ids[a:b].tolist() for a, b in zip(self.offsets, self.offsets[1:])]
        assert np.array_equal(np.diff(self.offsets), self.lengths)


def build(folder, path, *options):
    output = path.parent / (path.name + ".h5")
    done = subprocess.run([PROBE, "store", folder, path, output, *options], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return Store(output)


def ids_of(folder, texts):
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    return [encoding.ids for encoding in tokenizer.encode_batch(list(texts), add_special_tokens=False)]


def expect_equal(store, folder, rows):
    """rows: (text, label name)"""
    assert store.rows == ids_of(folder, [text for text, _ in rows])
    assert [store.label_names[label] for label in store.labels] == [label for _, label in rows]
    assert store.label_names == sorted({label for _, label in rows})


def rough_text(generator):
    pool = ['"', '""', ",", "\n", "\r\n", "\t", " ", "a", "the card", "caf\u00e9", "\U0001F600", "'s", "12", "|", "\\", "\u2028", "\x0b", "\x85"]
    return "".join(generator.choices(pool, k=generator.randint(0, 12)))


@pytest.mark.parametrize("suffix, dialect, end", [(".csv", "excel", "\r\n"), (".csv", "unix", "\n"), (".tsv", "excel-tab", "\r\n")])
def test_files_of_python_s_csv_writer(folder, tmp_path, suffix, dialect, end):
    generator = random.Random(1)
    rows = [(rough_text(generator), generator.choice(["x", "y, z", "\U0001F44D", 'q"q'])) for _ in range(2000)]
    text = io.StringIO()
    writer = csv.writer(text, dialect=dialect, lineterminator=end)
    writer.writerow(["label", "text"])
    writer.writerows((label, text) for text, label in rows)
    path = tmp_path / f"rows{suffix}"
    path.write_bytes(text.getvalue().encode())
    read_back = list(csv.reader(io.StringIO(text.getvalue(), newline=""), dialect=dialect))[1:]
    assert [tuple(reversed(row)) for row in read_back] == rows
    expect_equal(build(folder, path, "label=label"), folder, rows)


@pytest.mark.parametrize("ascii_only", [True, False])
def test_files_of_python_s_json_writer(folder, tmp_path, ascii_only):
    generator = random.Random(2)
    rows = [(rough_text(generator), generator.choice(["x", "\U0001F44D"])) for _ in range(1000)]
    records = [{"text": text, "label": label} for text, label in rows]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(r, ensure_ascii=ascii_only) + "\n" for r in records), newline="\n")
    (tmp_path / "rows.json").write_text(json.dumps(records, ensure_ascii=ascii_only, indent=1))
    expect_equal(build(folder, tmp_path / "rows.jsonl", "label=label"), folder, rows)
    expect_equal(build(folder, tmp_path / "rows.json", "label=label"), folder, rows)


@pytest.mark.parametrize("encoding, errors", [("latin-1", "strict"), ("cp1252", "strict"), ("utf-8-replace", "replace")])
def test_bytes_as_python_decodes_them(folder, tmp_path, encoding, errors):
    generator = random.Random(8)
    undefined = b"\x81\x8d\x8f\x90\x9d" if encoding == "cp1252" else b""
    usable = [byte for byte in range(256) if byte not in b'\r\n";' + undefined]
    content = b"text;label\n"
    for _ in range(2000):
        content += bytes(generator.choices(usable, k=generator.randint(1, 12))) + b";x\n"
    path = tmp_path / "rows.csv"
    path.write_bytes(content)
    text = content.decode(encoding.removesuffix("-replace"), errors)
    rows = [tuple(line.split(";")) for line in text.split("\n")[1:-1]]
    expect_equal(build(folder, path, "label=label", f"encoding={encoding}", "delimiter=;", "quoting=false"), folder, rows)


def test_files_of_python_s_compressors(folder, tmp_path):
    generator = random.Random(7)
    rows = [(rough_text(generator), generator.choice(["x", "y"])) for _ in range(3000)]
    text = "".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in rows).encode()
    half = len(text) // 2
    stream = io.BytesIO()
    with zstandard.ZstdCompressor(write_checksum=True).stream_writer(stream, closefd=False) as writer:  # of unknown size
        for at in range(0, len(text), 10_000):
            writer.write(text[at : at + 10_000])
    files = {
        "level9.jsonl.gz": gzip.compress(text, 9),
        "stored.jsonl.gz": gzip.compress(text, 0),
        "two.jsonl.gz": gzip.compress(text[:half]) + gzip.compress(text[half:]),
        "plain.jsonl": zstandard.ZstdCompressor(level=19).compress(text),
        "stream.jsonl.zst": stream.getvalue(),
        "two.jsonl.zst": zstandard.compress(text[:half]) + zstandard.compress(text[half:]),
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
        expect_equal(build(folder, tmp_path / name, "label=label"), folder, rows)


def test_prompts_and_responses(folder, tmp_path):
    generator = random.Random(3)
    rows = [(rough_text(generator), rough_text(generator)) for _ in range(500)]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"p": p, "r": r}) + "\n" for p, r in rows))
    store = build(folder, path, "task=causal", "prompt=p", "response=r", "max_length=20")
    eos = Tokenizer.from_file(str(folder / "tokenizer.json")).token_to_id("<|endoftext|>")
    prompts, responses = ids_of(folder, [p for p, _ in rows]), ids_of(folder, [r for _, r in rows])
    for i, (prompt, response) in enumerate(zip(prompts, responses)):
        response = response + [eos]
        kept = prompt[max(0, len(prompt) + len(response) - 20):]
        assert store.rows[i] == (kept + response)[:20]
        labels = [-100] * len(kept) + response  # Hugging Face's form: loss on labels[1:] that are not -100
        assert store.prompt_tokens[i] == len(kept)
        assert store.target_counts[i] == sum(label != -100 for label in labels[:20][1:])
    assert any(len(p) + len(r) + 1 > 20 for p, r in zip(prompts, responses))


def shared(name):
    path = SHARED / name
    if not path.exists():
        pytest.skip("the shared data is not beside the checkout")
    return path


def copy(path, tmp_path):
    target = tmp_path / path.name
    target.write_bytes(path.read_bytes())
    return target


def test_banking_questions(folder, tmp_path):
    path = copy(shared("classification/banking77/train.csv"), tmp_path)
    with open(path, newline="", encoding="utf-8") as file:
        rows = [(row["text"], row["category"]) for row in csv.DictReader(file)]
    assert len(rows) == 10_003
    store = build(folder, path, "label=category")
    expect_equal(store, folder, rows)
    assert len(store.label_names) == 77


def test_short_messages_with_raw_quotes(folder, tmp_path):
    path = copy(shared("classification/sms_spam/sms.tsv"), tmp_path)
    rows = [tuple(reversed(line.rstrip("\r").split("\t"))) for line in path.read_bytes().decode().split("\n") if line.strip("\r")]
    assert len(rows) == 5_574
    expect_equal(build(folder, path, "header=false", "quoting=false", "label=0", "text=1"), folder, rows)


def test_news_with_integer_labels(folder, tmp_path):
    path = copy(shared("classification/ag_news/test.csv"), tmp_path)
    with open(path, newline="", encoding="utf-8") as file:
        rows = [(row[2], row[0]) for row in csv.reader(file)]
    assert len(rows) == 7_600
    store = build(folder, path, "header=false", "label=0", "text=2")
    expect_equal(store, folder, rows)
    assert store.label_names == ["1", "2", "3", "4"]


def test_instructions(folder, tmp_path):
    path = copy(shared("instruction/rasbt/instruction-data.json"), tmp_path)
    records = json.loads(path.read_text())
    assert len(records) == 1_100
    store = build(folder, path, "task=causal", "prompt=instruction", "response=output")
    eos = Tokenizer.from_file(str(folder / "tokenizer.json")).token_to_id("<|endoftext|>")
    prompts, responses = ids_of(folder, [r["instruction"] for r in records]), ids_of(folder, [r["output"] for r in records])
    assert store.rows == [p + r + [eos] for p, r in zip(prompts, responses)]
    assert store.target_counts.tolist() == [len(r) + 1 - (not p) for p, r in zip(prompts, responses)]


def test_a_play_as_one_stream(folder, tmp_path):
    path = copy(shared("text/tinyshakespeare.txt"), tmp_path)
    store = build(folder, path, "task=causal", "max_length=512")
    ids = ids_of(folder, [path.read_text()])[0]
    ids.append(Tokenizer.from_file(str(folder / "tokenizer.json")).token_to_id("<|endoftext|>"))
    assert store.ids.tolist() == ids
    assert set(store.lengths[:-1].tolist()) == {512} and store.lengths[-1] == len(ids) % 512
