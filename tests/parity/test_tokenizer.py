# SPDX-License-Identifier: Apache-2.0
"""neoloom's ids against those of `tokenizers` and transformers, in bulk, with a small vocabulary trained here and, when
the shared data is there, with GPT-2's own."""
import gzip
import hashlib
import json
import os
import random
import shutil
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from tokenizers import AddedToken, ByteLevelBPETokenizer, Tokenizer

SOURCE = Path(os.environ.get("NEOLOOM_SOURCE_DIR", Path(__file__).resolve().parents[2]))
PROBE = Path(os.environ.get("NEOLOOM_BUILD_DIR", SOURCE / "build")) / "data_probe"
SHARED = Path(os.environ.get("NEOLOOM_SHARED", SOURCE.parent / "shared")) / "data"
CODE_POINTS = [c for c in range(0x110000) if not 0xD800 <= c <= 0xDFFF]
EDGE_CASES = [
    "", " ", "  ", " " * 20, "\t", "\r\n", "\n\n", "a\n\nb", "a\n\n", "a \n b", "a  b", "a \u00a0b", "\u2028x", "x\u2029",
    "\ufeffx", "a\0b", "IT'S it's don't we'll I'M I'm they've 'sx ''s", "it\u2019s", "\u0967\u0968 12\u00bd \u2163", "e\u0301 n\u0303",
    "\U0001F469\u200D\U0001F4BB\U0001F1E9\U0001F1EA \U0001F44D\U0001F3FD", "\u6f22\u5b57\u304b\u306a", "\u0645\u0631\u062d\u0628\u0627 \u05e9\u05dc\u05d5\u05dd", "<|endoftext|>",
    "<|endoftext|><|endoftext|>", "a<|endoftext|>b", " <|endoftext|> ", "<|endoftext |>", "<|endoftext|", "x" * 70 + " " + "y" * 49,
    "\x1c\x1d\x1e\x1f", "\x85a", "a\u3000b", "1 2  3", "--- ,,, ...", "https://example.org/?q=1&r=2#x",
]


def run(*arguments, stdin=b""):
    done = subprocess.run([PROBE, *map(str, arguments)], input=stdin, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def records(blob, dtype):
    out, at = [], 0
    while at < len(blob):
        (count,) = struct.unpack_from("<I", blob, at)
        out.append(np.frombuffer(blob, dtype, count, at + 4).tolist())
        at += 4 + count * np.dtype(dtype).itemsize
    return out


def encode(folder, texts, *flags):
    stdin = b"".join(struct.pack("<I", len(raw)) + raw for raw in (t if isinstance(t, bytes) else t.encode() for t in texts))
    return records(run("encode", folder, *flags, stdin=stdin), "<i4")


def decode(folder, ids, *flags):
    stdin = b"".join(struct.pack(f"<I{len(row)}i", len(row), *row) for row in ids)
    return [bytes(row).decode() for row in records(run("decode", folder, *flags, stdin=stdin), "u1")]


def oracle(folder):
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def expect_equal_ids(folder, tokenizer, texts):
    for begin in range(0, len(texts), 50_000):
        part = texts[begin : begin + 50_000]
        ours = encode(folder, part)
        theirs = [e.ids for e in tokenizer.encode_batch_fast(part, add_special_tokens=False)]
        assert len(ours) == len(theirs)
        for text, mine, expected in zip(part, ours, theirs):
            assert mine == expected, f"{text[:200]!r}"


def made_up_text(generator, words=400):
    alphabets = ["abcdefghijklmnopqrstuvwxyz", "\u0430\u0431\u0432\u0433\u0434\u0435\u0436\u0437\u0438\u043a\u043b\u043c\u043d\u043e\u043f\u0440\u0441\u0442", "\u4e00\u4e8c\u4e09\u56db\u4e94\u516d\u4e03\u516b\u4e5d\u5341", "0123456789", "\u00e4\u00f6\u00fc\u00dfaeiou"]
    vocabulary = ["".join(generator.choices(generator.choice(alphabets), k=generator.randint(1, 9))) for _ in range(3000)]
    out = []
    for _ in range(words):
        word = vocabulary[min(int(generator.paretovariate(0.6)), len(vocabulary)) - 1]
        out.append(word.capitalize() if generator.random() < 0.1 else word)
        out.append(generator.choice([" ", " ", " ", " ", "  ", "\n", "\n\n", ", ", ". ", "'s ", "!", "\t", " (", ") "]))
    return "".join(out)


@pytest.fixture(scope="session")
def small(tmp_path_factory):
    """A byte-level BPE of 4,000 entries, trained by `tokenizers` on made-up text of several scripts."""
    folder = tmp_path_factory.mktemp("small")
    generator = random.Random(7)
    tokenizer = ByteLevelBPETokenizer()
    texts = [made_up_text(generator) for _ in range(150)]
    tokenizer.train_from_iterator(texts, vocab_size=4000, min_frequency=2, special_tokens=["<|endoftext|>"], show_progress=False)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture(scope="session")
def gpt2(tmp_path_factory):
    if not (SHARED / "tokenizer/gpt2-hf").is_dir():
        pytest.skip("the shared data is not beside the checkout")
    folder = tmp_path_factory.mktemp("gpt2")
    for path in (SHARED / "tokenizer/gpt2-hf").iterdir():
        shutil.copy(path, folder)
    (folder / "tokenizer.json").write_bytes(gzip.decompress((folder / "tokenizer.json.gz").read_bytes()))
    return folder


@pytest.fixture(params=["small", "gpt2"])
def folder(request):
    return request.getfixturevalue(request.param)


def words(texts):
    """Returns the bytes of each word that neoloom splits the texts into."""
    stdin = b"".join(struct.pack("<I", len(raw)) + raw for raw in (t.encode() for t in texts))
    return records(run("words", stdin=stdin), "<i4")


@pytest.mark.parametrize("around", ["{}", "a{}b"], ids=["alone", "between_two_letters"])
def test_every_code_point_splits_as_the_oracle_splits_it(around):
    splitter = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    texts = [around.format(chr(c)) for c in CODE_POINTS]
    ours = words(texts)
    assert len(ours) == len(texts) == 1_112_064
    for text, mine in zip(texts, ours):
        # One symbol of the oracle's word is one byte.
        assert mine == [len(word) for word, _ in splitter.pre_tokenize_str(text)], f"{text!r}"


def test_every_code_point_among_spaces_and_digits_has_the_ids_of_the_oracle(small):
    texts = ["".join(f"a{chr(c)} 1{chr(c)}{chr(c)} " for c in CODE_POINTS[i : i + 64]) for i in range(0, len(CODE_POINTS), 64)]
    expect_equal_ids(small, oracle(small), texts)


def test_edge_cases(folder):
    expect_equal_ids(folder, oracle(folder), EDGE_CASES)


def generated_strings(count):
    generator = random.Random(11)
    emoji = [0x1F600, 0x1F44D, 0x1F3FD, 0x200D, 0xFE0F, 0x1F1E9, 0x1F1EA, 0x1F469]
    pools = [
        lambda: generator.choice(CODE_POINTS),
        lambda: generator.randint(32, 126),
        lambda: generator.randint(0, 31),
        lambda: generator.choice(emoji),
        lambda: generator.choice([9, 10, 13, 32, 32, 0x85, 0xA0, 0x2003, 0x3000]),
        lambda: generator.randint(0x4E00, 0x9FFF),
        lambda: ord(generator.choice("'stremvld0123 aeiouxyz")),
    ]
    texts = []
    for _ in range(count):
        mix = generator.sample(pools, generator.randint(1, 4))
        texts.append("".join(chr(generator.choice(mix)()) for _ in range(generator.randint(1, 40))))
    return texts


def test_hundred_thousand_generated_strings(small):
    expect_equal_ids(small, oracle(small), generated_strings(100_000))


def test_twenty_thousand_generated_strings_under_the_published_vocabulary(gpt2):
    expect_equal_ids(gpt2, oracle(gpt2), generated_strings(20_000))


def test_decoding_gives_the_text_back(folder):
    texts = EDGE_CASES + generated_strings(5_000)
    assert decode(folder, encode(folder, texts)) == texts


def test_decoding_any_ids_replaces_invalid_bytes_as_the_oracle_does(folder):
    tokenizer = oracle(folder)
    generator = random.Random(3)
    ids = [[generator.randrange(tokenizer.get_vocab_size()) for _ in range(12)] for _ in range(3000)]
    ids += [[generator.randrange(1, 257) for _ in range(9)] for _ in range(3000)]
    assert decode(folder, ids) == [tokenizer.decode(row, skip_special_tokens=False) for row in ids]
    assert decode(folder, ids, "--skip-special") == [tokenizer.decode(row, skip_special_tokens=True) for row in ids]


def test_invalid_bytes_are_encoded_as_bytes(folder):
    letters = {byte: encode(folder, [bytes([byte])])[0] for byte in (0x61, 0x80, 0xFF, 0xC3)}
    rows = encode(folder, [b"a\xffa", b"\xc3a", b"\xed\xa0\x80", b"\x80" * 3, b"\xf4\x90\x80\x80"])
    assert rows[0] == letters[0x61] + letters[0xFF] + letters[0x61]
    assert rows[1] == letters[0xC3] + letters[0x61]
    assert rows[3] == letters[0x80] * 3
    assert all(len(ids) == 1 for ids in letters.values()) and len(rows[2]) == 3 and len(rows[4]) == 4
    # The bytes' tokens are those of the vocabulary: each prints as the byte it stands for.
    vocab = oracle(folder).get_vocab()
    assert letters[0xFF] == [vocab["\u00ff"]] and letters[0x80] == [vocab["\u0122"]]


def test_split_special_tokens_treats_them_as_text(folder):
    tokenizer = oracle(folder)
    tokenizer.encode_special_tokens = True
    texts = ["<|endoftext|>", "a<|endoftext|>b", " <|endoftext|> x"]
    assert encode(folder, texts, "--split-special") == [tokenizer.encode(text).ids for text in texts]


def test_vocab_and_merges_give_the_same_ids_as_tokenizer_json(small, tmp_path):
    document = json.loads((small / "tokenizer.json").read_text())
    (tmp_path / "vocab.json").write_text(json.dumps(document["model"]["vocab"]))
    merges = [m if isinstance(m, str) else " ".join(m) for m in document["model"]["merges"]]
    (tmp_path / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    texts = EDGE_CASES + generated_strings(2_000)
    assert encode(tmp_path, texts) == encode(small, texts)


@pytest.mark.parametrize("shape", ["strings", "arrays"])
def test_both_shapes_of_merges(small, tmp_path, shape):
    document = json.loads((small / "tokenizer.json").read_text())
    merges = [m.split(" ") if isinstance(m, str) else m for m in document["model"]["merges"]]
    document["model"]["merges"] = merges if shape == "arrays" else [" ".join(m) for m in merges]
    (tmp_path / "tokenizer.json").write_text(json.dumps(document))
    texts = EDGE_CASES + generated_strings(500)
    assert encode(tmp_path, texts) == encode(small, texts)


def test_truncation_block_is_reported_and_not_obeyed(small, tmp_path):
    tokenizer = oracle(small)
    tokenizer.enable_truncation(3)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    assert encode(tmp_path, ["one two three four five six seven"]) == encode(small, ["one two three four five six seven"])
    assert b"truncation" in run("info", tmp_path)


def test_added_tokens_are_found_longest_first(small, tmp_path):
    tokenizer = oracle(small)
    tokenizer.add_tokens([AddedToken("[a]", normalized=False), AddedToken("[a][b]", normalized=False), AddedToken("~x", lstrip=True, rstrip=True),
                          AddedToken("caf\u00e9!", normalized=True)])
    tokenizer.add_special_tokens(["<pad>"])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    texts = ["[a]", "[a][b]", "x[a][a][b][b]", "one  ~x two", "\u3000~x\n", "caf\u00e9!caf\u00e9", "<pad>x<pad>", "a <|endoftext|>[a]"]
    expect_equal_ids(tmp_path, tokenizer, texts)
    assert decode(tmp_path, encode(tmp_path, ["caf\u00e9![a]"])) == ["caf\u00e9![a]"]
    assert int(run("info", tmp_path).split()[0]) == tokenizer.get_vocab_size()


def test_prefix_space_is_honoured(small, tmp_path):
    tokenizer = oracle(small)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    expect_equal_ids(tmp_path, tokenizer, ["", "a", " a", "\ta", "a<|endoftext|>b", "<|endoftext|> x"])
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "GPT2Tokenizer", "add_prefix_space": False}))
    assert encode(tmp_path, ["a"]) == encode(small, ["a"])  # as transformers, which lets tokenizer_config.json decide


def test_folder_saved_by_transformers(small, tmp_path):
    from transformers import GPT2Tokenizer

    saved = GPT2Tokenizer.from_pretrained(str(small))
    saved.add_special_tokens({"pad_token": "<pad>"})
    saved.save_pretrained(tmp_path)
    texts = ["Hello world", "a<pad>b", "<|endoftext|>", " x  y"]
    assert encode(tmp_path, texts) == [saved(text, add_special_tokens=False)["input_ids"] for text in texts]
    vocab_size, eos, pad = map(int, run("info", tmp_path).split()[:3])
    assert (vocab_size, eos, pad) == (len(saved), saved.eos_token_id, saved.pad_token_id)
    assert int(run("info", small).split()[2]) == -1


def with_bos_in_front(document):
    bos = {"id": "<|endoftext|>", "ids": [document["added_tokens"][0]["id"]], "tokens": ["<|endoftext|>"]}
    text = {"Sequence": {"id": "A", "type_id": 0}}
    return {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}}, text],
            "pair": [text, {"Sequence": {"id": "B", "type_id": 0}}], "special_tokens": {"<|endoftext|>": bos}}


def folder_with(path, document, processor, keys):
    """Makes a folder as transformers finds it: with tokenizer.json, or for processor "files" with vocab.json and merges.txt."""
    path.mkdir()
    (path / "tokenizer_config.json").write_text(json.dumps(keys))
    if processor != "files":
        (path / "tokenizer.json").write_text(json.dumps(document | {"post_processor": processor}))
        return path
    vocab = document["model"]["vocab"] | {token["content"]: token["id"] for token in document["added_tokens"]}
    (path / "vocab.json").write_text(json.dumps(vocab))
    merges = [m if isinstance(m, str) else " ".join(m) for m in document["model"]["merges"]]
    (path / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    return path


def test_inputs_have_the_special_tokens_that_transformers_adds(small, tmp_path):
    from transformers import AutoTokenizer

    document = json.loads((small / "tokenizer.json").read_text())
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    bos = with_bos_in_front(document)
    cases = [(processor, {"tokenizer_class": kind} | keys)
             for processor in (None, byte_level, bos, {"type": "Sequence", "processors": [byte_level, bos]}, "files")
             for kind in ("GPT2Tokenizer", "PreTrainedTokenizerFast") if processor != "files" or kind == "GPT2Tokenizer"
             for keys in ({}, {"add_bos_token": True}, {"add_bos_token": False}, {"bos_token": None, "add_bos_token": True})]
    texts, fronts = ["", "free cash", "<|endoftext|>a"], set()
    for number, (processor, keys) in enumerate(cases):
        folder = folder_with(tmp_path / str(number), document, processor, keys)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        ids = [tokenizer(text)["input_ids"] for text in texts]
        assert encode(folder, texts, "--as-input") == ids, (processor, keys)
        fronts.add(tuple(ids[0]))
    assert len(fronts) == 2, "some of them add a token, some do not"


def test_a_template_makes_another_tokenizer_of_the_same_vocabulary(small, tmp_path):
    document = json.loads((small / "tokenizer.json").read_text())
    hashes = [run("info", folder_with(tmp_path / name, document, processor, {})).split()[3]
              for name, processor in (("without", None), ("with", with_bos_in_front(document)))]
    assert hashes[0] == run("info", small).split()[3] != hashes[1]


@pytest.mark.parametrize("part, value, named", [
    ("normalizer", {"type": "NFC"}, "normalizer"),
    ("pre_tokenizer", {"type": "Whitespace"}, "pre_tokenizer"),
    ("model", {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100, "vocab": {"a": 0}}, "WordPiece"),
])
def test_other_kinds_of_tokenizer_are_refused_by_name(small, tmp_path, part, value, named):
    document = json.loads((small / "tokenizer.json").read_text())
    document[part] = value
    (tmp_path / "tokenizer.json").write_text(json.dumps(document))
    done = subprocess.run([PROBE, "info", tmp_path], capture_output=True, text=True)
    assert done.returncode == 4 and named in done.stderr and "tokenizer.json" in done.stderr


def test_missing_merges_are_named(small, tmp_path):
    document = json.loads((small / "tokenizer.json").read_text())
    (tmp_path / "vocab.json").write_text(json.dumps(document["model"]["vocab"]))
    done = subprocess.run([PROBE, "info", tmp_path], capture_output=True, text=True)
    assert done.returncode == 4 and "merges.txt" in done.stderr


def test_content_hash_is_over_what_decides_ids(small, tmp_path):
    document = json.loads((small / "tokenizer.json").read_text())
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(document, indent=3))
    same = run("info", tmp_path).split()[3]
    document["model"]["merges"].pop()
    path.write_text(json.dumps(document))
    assert same == run("info", small).split()[3] != run("info", tmp_path).split()[3]


@pytest.mark.parametrize("unit", ["x", " ", "ab", "\u00e9", "\n", "0", "!", "\u4e00"])
def test_a_word_of_a_million_symbols_takes_no_quadratic_time(small, unit):
    text = unit * (1_000_000 // len(unit))
    done = subprocess.run([PROBE, "encode", small], input=struct.pack("<I", len(text.encode())) + text.encode(), capture_output=True, timeout=120)
    assert decode(small, records(done.stdout, "<i4")) == [text]


def test_long_words_have_the_ids_of_the_oracle(folder):
    generator = random.Random(5)
    texts = ["".join(generator.choices("abcdefghij", k=k)) for k in (47, 48, 49, 50, 64, 65, 1000, 20_000)] + ["ab" * 10_000, "z" * 9_999]
    expect_equal_ids(folder, oracle(folder), texts)


@pytest.mark.parametrize("n, seed", [(1, 0), (2, 3), (10, 42), (10, 43), (11, 7), (1000, 2**32 + 5), (65_537, 2**63)])
def test_shuffling_is_the_permutation_of_torch(n, seed):
    import torch

    expected = torch.randperm(n, generator=torch.Generator().manual_seed(seed)).tolist()
    assert list(map(int, run("permutation", n, seed).split())) == expected


def test_shuffling_is_the_order_in_which_accelerate_hands_out_samples():
    from accelerate.data_loader import SeedableRandomSampler
    import torch

    sampler = SeedableRandomSampler(list(range(37)), generator=torch.Generator(), data_seed=42)
    for epoch in range(3):
        sampler.set_epoch(epoch)
        assert list(sampler) == list(map(int, run("permutation", 37, 42 + epoch).split()))


def test_the_public_vectors(gpt2):
    vectors = [json.loads(line) for line in (SHARED / "tokenizer/llama.cpp-gpt2-vectors/gpt2_vectors.jsonl").read_text().splitlines()]
    assert len(vectors) == 47
    assert encode(gpt2, [v["text"] for v in vectors]) == [v["ids"] for v in vectors]


def shared_texts():
    for path in sorted(SHARED.rglob("*")):
        if path.is_file() and path.suffix not in (".safetensors", ".gz") and "gpt2-hf" not in path.parts:
            yield path, path.read_bytes().decode("utf-8", errors="surrogateescape")


def test_every_line_of_the_public_texts(gpt2):
    lines, files = [], 0
    for _, text in shared_texts():
        if any("\udc80" <= c <= "\udcff" for c in text):
            continue  # not UTF-8: the oracle cannot take it
        lines += text.splitlines(keepends=True)
        files += 1
    assert files >= 15 and len(lines) > 30_000
    expect_equal_ids(gpt2, oracle(gpt2), lines)


def test_whole_public_texts_have_the_recorded_ids(gpt2):
    recorded = json.loads((SHARED / "tokenizer/expected-token-counts.json").read_text())["files"]
    recorded = [entry for entry in recorded if (SHARED / entry["file"]).is_file()]
    assert len(recorded) >= 5
    for entry in recorded:
        ids = encode(gpt2, [(SHARED / entry["file"]).read_bytes()])[0]
        assert ids[:16] == entry["first16"] and ids[-8:] == entry["last8"], entry["file"]
        assert len(ids) == entry["tokens"], entry["file"]
        assert hashlib.sha256(np.array(ids, "<u2").tobytes()).hexdigest() == entry["ids_u16le_sha256"], entry["file"]
