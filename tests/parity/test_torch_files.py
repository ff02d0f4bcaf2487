# SPDX-License-Identifier: Apache-2.0
"""pytorch_model.bin against torch and transformers: what they load is read, bit for bit, and nothing of a file is run."""

import json
import os
import pickle
import random
import struct
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from huggingface_hub import save_torch_state_dict
from safetensors.torch import load_file
from transformers import GPTNeoForCausalLM

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
import tiny_model  # noqa: E402
from model_files_tool import Refused, call  # noqa: E402

DTYPES = ["float64", "float32", "float16", "bfloat16"]


def folder_without_weights(folder, **overrides):
    tiny_model.make_model_folder(folder, tokenizer=False, **overrides)
    for path in folder.glob("*.safetensors*"):
        path.unlink()
    return folder


def converted(folder, cache, dtype="float32"):
    tensors = load_file(call("prepare", folder=folder, cache=cache, dtype=dtype)["path"])
    return {name: value for name, value in tensors.items() if not name.startswith("padding.")}


def assert_as_transformers_loads(folder, cache, dtype="float32"):
    oracle = GPTNeoForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype)).state_dict()
    tensors = converted(folder, cache, dtype)
    assert set(tensors) in (set(oracle), set(oracle) - {"lm_head.weight"})
    for name, value in tensors.items():
        assert torch.equal(value, oracle[name]), name


def save(folder, state, **options):
    torch.save(state, folder / "pytorch_model.bin", **options)


@pytest.mark.parametrize("stored", DTYPES)
@pytest.mark.parametrize("frozen", DTYPES[1:])
def test_every_stored_type_becomes_every_frozen_type_as_transformers_loads_it(tmp_path, stored, frozen):
    folder = folder_without_weights(tmp_path / "base")
    save(folder, tiny_model.make_model().to(getattr(torch, stored)).state_dict())
    assert_as_transformers_loads(folder, tmp_path / "cache", frozen)


def test_float64_safetensors_are_converted_too(tmp_path):
    folder = tiny_model.make_model_folder(tmp_path / "base", dtype="float64", tokenizer=False)
    assert_as_transformers_loads(folder, tmp_path / "cache", "float16")


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before torch 1.6"])
def test_shared_storages_strides_parameters_and_mixed_types(tmp_path, zipped):
    folder = folder_without_weights(tmp_path / "base")
    state = tiny_model.make_model().state_dict()  # lm_head and wte share a storage
    assert state["lm_head.weight"].data_ptr() == state["transformer.wte.weight"].data_ptr()
    key = "transformer.h.0.attn.attention.q_proj.weight"
    state[key] = state[key].T.contiguous().T
    key = "transformer.h.0.mlp.c_fc.weight"
    state[key] = state[key].double().repeat(2, 1)[1 : 1 + len(state[key])]  # in the middle of a larger storage
    key = "transformer.h.1.ln_1.weight"
    state[key] = torch.tensor([1.5]).expand(16)
    both = torch.randn(40).half()
    state["transformer.h.1.ln_2.weight"], state["transformer.h.1.ln_2.bias"] = both[:16], both[8:24]  # they overlap
    state["transformer.ln_f.bias"] = torch.nn.Parameter(state["transformer.ln_f.bias"].bfloat16())
    for layer in range(2):
        attention = f"transformer.h.{layer}.attn.attention"
        state[f"{attention}.bias"] = torch.ones(1, 1, 64, 64, dtype=[torch.uint8, torch.bool][layer]).tril()
        state[f"{attention}.masked_bias"] = torch.tensor(-1e9)
    save(folder, state, _use_new_zipfile_serialization=zipped)
    assert_as_transformers_loads(folder, tmp_path / "cache")


def test_shards_and_their_index_are_one_model(tmp_path):
    folder = folder_without_weights(tmp_path / "base")
    save_torch_state_dict(tiny_model.make_model().state_dict(), folder, max_shard_size="20KB", safe_serialization=False)
    assert (folder / "pytorch_model.bin.index.json").exists() and len(list(folder.glob("*.bin"))) > 2
    assert_as_transformers_loads(folder, tmp_path / "cache")
    shard = sorted(folder.glob("*.bin"))[1]
    shard.unlink()
    with pytest.raises(Refused, match=shard.name):
        converted(folder, tmp_path / "cache")


def test_a_model_without_the_prefix_loads(tmp_path):
    folder = folder_without_weights(tmp_path / "base")
    state = tiny_model.make_model().state_dict()
    save(folder, {name.removeprefix("transformer."): value for name, value in state.items() if name != "lm_head.weight"})
    assert_as_transformers_loads(folder, tmp_path / "cache")


@pytest.mark.parametrize("sharded", [False, True])
def test_safetensors_go_before_a_pickle_as_in_transformers(tmp_path, sharded):
    size = "20KB" if sharded else "1GB"
    folder = tiny_model.make_model_folder(tmp_path / "base", tokenizer=False, max_shard_size=size)
    save(folder, {name: value + 1 for name, value in tiny_model.make_model().state_dict().items()})
    assert_as_transformers_loads(folder, tmp_path / "cache")


def in_zip64(path):
    """Rewrites the directory of a zip archive so that every size and offset stands in a zip64 field."""
    whole = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        members, begin = archive.infolist(), archive.start_dir
    directory = b""
    for member in members:
        name, crc = member.filename.encode(), member.CRC
        extra = struct.pack("<HHQQQ", 1, 24, member.file_size, member.compress_size, member.header_offset)
        most = 0xFFFFFFFF
        directory += b"PK\1\2" + struct.pack("<6H3I", 45, 45, 0, 0, 0, 0, crc, most, most)
        directory += struct.pack("<5HII", len(name), len(extra), 0, 0, 0, 0, most) + name + extra
    end = begin + len(directory)
    count = len(members)
    directory += b"PK\6\6" + struct.pack("<QHHIIQQQQ", 44, 45, 45, 0, 0, count, count, len(directory), begin)
    directory += b"PK\6\7" + struct.pack("<IQI", 0, end, 1)
    directory += b"PK\5\6" + struct.pack("<4HIIH", 0, 0, 0xFFFF, 0xFFFF, most, most, 0)
    path.write_bytes(whole[:begin] + directory)


def test_zip64_directories_as_of_files_beyond_four_gigabytes(tmp_path):
    folder = folder_without_weights(tmp_path / "base")
    save(folder, tiny_model.make_model().state_dict())
    in_zip64(folder / "pytorch_model.bin")
    torch.load(folder / "pytorch_model.bin", weights_only=True)
    assert_as_transformers_loads(folder, tmp_path / "cache")


class Evil:
    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def refusals(tmp_path):
    """(what is saved, what the message says)"""
    state = tiny_model.make_model().state_dict()
    yield tiny_model.make_model(), r"asks for \"transformers.models.gpt_neo.*runs nothing else"
    yield {"a": Evil(tmp_path / "made")}, "asks for \"posix.mkdir\""
    yield {"state_dict": state, "step": 3}, "\"state_dict\" is a dict"
    yield {"epoch": 3, **state}, "\"epoch\" is an integer"
    yield list(state.values()), "expected a state dict, found a list"
    yield {"a": torch.zeros(3, dtype=torch.complex64)}, "ComplexFloatStorage"
    yield {"a": torch.zeros(3).to_sparse()}, "_rebuild_sparse_tensor"
    yield {1: torch.zeros(3)}, "expected a text, found an integer"


@pytest.mark.parametrize("zipped", [True, False])
def test_whatever_is_no_state_dict_is_refused_by_name_and_never_run(tmp_path, zipped):
    folder = folder_without_weights(tmp_path / "base")
    for saved, message in refusals(tmp_path):
        save(folder, saved, _use_new_zipfile_serialization=zipped)
        with pytest.raises(Refused, match=message) as refused:
            converted(folder, tmp_path / "cache")
        assert refused.value.code == 4
    assert not (tmp_path / "made").exists()


def test_other_files_of_that_name_are_refused(tmp_path):
    folder = folder_without_weights(tmp_path / "base")
    path = folder / "pytorch_model.bin"
    save(folder, {"a": torch.zeros(3)})
    good = path.read_bytes()

    def zipped(content, compression=zipfile.ZIP_STORED):
        with zipfile.ZipFile(path, "w", compression) as archive:
            for name, value in content.items():
                archive.writestr(name, value)
        return path.read_bytes()

    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    pickled = members["pytorch_model/data.pkl"]
    script = torch.jit.script(torch.nn.Linear(2, 2))
    script.save(path)
    cases = {
        "TorchScript": path.read_bytes(),
        "Git LFS": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n",
        "neither of its formats": pickle.dumps({"a": 1}),
        "compressed": zipped(members, zipfile.ZIP_DEFLATED),
        "no FOLDER/data.pkl": zipped({"other": "x"}),
        "big-endian": zipped({**members, "pytorch_model/byteorder": "big"}),
        'storage "0" is not in': zipped({name: value for name, value in members.items() if "/data/0" not in name}),
        "expected 3 elements": zipped({**members, "pytorch_model/data/0": b"\0" * 8}),
        "beyond its storage": zipped({**members, "pytorch_model/data.pkl": pickled.replace(b"K\x03\x85", b"K\x04\x85")}),
        "another name in its local": good.replace(b"pytorch_model/version", b"pytorch_model/verxion", 1),
        "truncated": good[:-30],
    }
    for message, content in cases.items():
        path.write_bytes(content)
        with pytest.raises(Refused, match=message) as refused:
            converted(folder, tmp_path / "cache")
        assert refused.value.code == 4


def mutations(good, count, seed):
    """Flips bits where the structure is: outside of the tensors' data; truncates, too."""
    rng = random.Random(seed)
    places = list(range(good.index(b"\x80\x02") + 2600))
    if good.startswith(b"PK"):
        places += range(len(good) - 4000, len(good))
    for trial in range(count):
        damaged = bytearray(good)
        for _ in range(rng.randint(1, 3)):
            damaged[rng.choice(places)] = rng.choice([0, 1, 0x28, 0x2E, 0x52, 0x7F, 0x80, 0xFF, rng.randrange(256)])
        yield bytes(damaged) if trial % 8 else good[: rng.randrange(len(good))]


@pytest.mark.parametrize("zipped", [True, False])
def test_damaged_files_are_refused_or_read_within_the_file(tmp_path, zipped):
    path = tmp_path / "good.bin"
    state = tiny_model.make_model(num_layers=1).state_dict()
    torch.save(state, path, _use_new_zipfile_serialization=zipped)
    files = [path]
    for index, damaged in enumerate(mutations(path.read_bytes(), 400, seed=5)):
        files.append(tmp_path / f"{index}.bin")
        files[-1].write_bytes(damaged)
    answers = call("open", files=[str(file) for file in files])["files"]  # one process: a crash ends the test
    assert "error" not in answers[0] and answers[0]["tensors"] == len(state)
    errors = [answer for answer in answers[1:] if "error" in answer]
    assert len(errors) > 150
    for answer, file in zip(answers, files):
        assert "error" not in answer or (answer["code"] == 4 and str(file) in answer["error"]), json.dumps(answer)
