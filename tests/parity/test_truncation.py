# SPDX-License-Identifier: Apache-2.0
"""truncation_side, and the windows of long texts, against transformers' tokenizer."""
import json
import random
import subprocess
import sys
from pathlib import Path

import h5py
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
import tiny_model  # noqa: E402
from test_token_store import PROBE  # noqa: E402
from tokenizers import Tokenizer  # noqa: E402
from transformers import AutoTokenizer  # noqa: E402

ROWS = 120


@pytest.fixture(scope="module", params=["plain", "bos"])
def folder(request, tmp_path_factory):
    """A tokenizer, and one that puts a token in front of each text."""
    folder = tmp_path_factory.mktemp(request.param)
    tiny_model.make_tokenizer(folder)
    if request.param == "bos":
        path = folder / "tokenizer.json"
        document = json.loads(path.read_text())
        eos = Tokenizer.from_file(str(path)).token_to_id(tiny_model.EOS)
        bos = {"SpecialToken": {"id": tiny_model.EOS, "type_id": 0}}
        first, second = ({"Sequence": {"id": name, "type_id": 0}} for name in "AB")
        document["post_processor"] = {
            "type": "TemplateProcessing", "single": [bos, first], "pair": [bos, first, bos, second],
            "special_tokens": {tiny_model.EOS: {"id": tiny_model.EOS, "ids": [eos], "tokens": [tiny_model.EOS]}},
        }
        path.write_text(json.dumps(document))
    return folder


@pytest.fixture(scope="module")
def texts():
    generator = random.Random(3)
    lines = tiny_model.sample_texts(ROWS, seed=8)
    return [" ".join(generator.choices(lines, k=generator.randint(0, 4))) for _ in range(ROWS)]


def build(folder, path, rows, *options):
    """Returns the samples of a store, and where the windows of each row begin if it has windows."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    output = path.with_suffix(".h5")
    done = subprocess.run([PROBE, "store", folder, path, output, *options], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with h5py.File(output) as file:
        ids, offsets = file["ids"][:].tolist(), file["offsets"][:]
        cut = file["truncated"][:].tolist() if "truncated" in file else [0] * (len(offsets) - 1)
        assert file.attrs["truncated_samples"] == sum(cut)
        begins = file["row_begins"][:].tolist() if "row_begins" in file else None
    return [ids[a:b] for a, b in zip(offsets, offsets[1:])], cut, begins


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("max_length", [2, 9, 40])
def test_single_texts(folder, texts, tmp_path, side, max_length):
    rows = [{"text": text, "label": "x"} for text in texts]
    samples, cut, _ = build(folder, tmp_path / "rows.jsonl", rows, "label=label", f"side={side}", f"max_length={max_length}")
    tokenizer = AutoTokenizer.from_pretrained(folder, truncation_side=side)
    assert samples == tokenizer(texts, truncation=True, max_length=max_length).input_ids
    assert cut == [int(len(ids) > max_length) for ids in tokenizer(texts).input_ids]


@pytest.mark.parametrize("side", ["left", "right"])
def test_texts_of_a_language_model(folder, texts, tmp_path, side):
    samples, _, _ = build(folder, tmp_path / "rows.jsonl", [{"text": text} for text in texts], "task=causal",
                          f"side={side}", "max_length=12")
    tokenizer = AutoTokenizer.from_pretrained(folder, truncation_side=side)
    ended = [text + tokenizer.eos_token for text in texts]
    assert samples == tokenizer(ended, truncation=True, max_length=12).input_ids


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("max_length", [7, 20, 33])
def test_pairs(folder, texts, tmp_path, side, max_length):
    pairs = list(zip(texts, reversed(texts)))
    rows = [{"text": first, "second": second, "label": "x"} for first, second in pairs]
    samples, _, _ = build(folder, tmp_path / "rows.jsonl", rows, "label=label", "pair=second", f"side={side}",
                          f"max_length={max_length}")
    tokenizer = AutoTokenizer.from_pretrained(folder, truncation_side=side)
    expected = tokenizer([first for first, _ in pairs], [second for _, second in pairs], truncation="longest_first",
                         max_length=max_length).input_ids
    assert samples == expected


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("max_length, stride", [(8, 0), (8, 3), (8, 6), (30, 10), (500, 100)])
def test_windows(folder, texts, tmp_path, side, max_length, stride):
    rows = [{"text": text, "label": "x"} for text in texts]
    samples, cut, begins = build(folder, tmp_path / "rows.jsonl", rows, "label=label", f"side={side}",
                                 f"max_length={max_length}", f"stride={stride}")
    tokenizer = AutoTokenizer.from_pretrained(folder, truncation_side=side)
    encoded = tokenizer(texts, truncation=True, max_length=max_length, stride=stride, return_overflowing_tokens=True)
    assert samples == encoded.input_ids
    row_of_window = [row for row, (a, b) in enumerate(zip(begins, begins[1:])) for _ in range(a, b)]
    assert row_of_window == encoded.overflow_to_sample_mapping
    assert not any(cut)
    assert (len(samples) > ROWS) == (max_length < 500)
