# SPDX-License-Identifier: Apache-2.0
"""The loader against transformers and safetensors: what they write is read, bit for bit."""

import json
import os
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import GPTNeoForCausalLM

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
import tiny_model  # noqa: E402
from model_files_tool import Refused, call  # noqa: E402

DTYPES = ["float32", "float16", "bfloat16"]
SHARED = Path(os.environ.get("NEOLOOM_SHARED", Path(__file__).resolve().parents[3] / "shared"))


def converted(folder, cache, dtype="float32", **request):
    answer = call("prepare", folder=folder, cache=cache, dtype=dtype, **request)
    tensors = load_file(answer["path"])  # the oracle reads our file, too
    return {name: value for name, value in tensors.items() if not name.startswith("padding.")}, answer


def assert_equal_weights(tensors, model, dtype="float32", heads=()):
    expected = {name: value for name, value in model.state_dict().items() if name != "lm_head.weight" or name in heads}
    assert set(tensors) == set(expected)
    for name, value in expected.items():
        target = torch.float32 if name == "score.weight" else getattr(torch, dtype)
        assert tensors[name].dtype == target, name
        assert torch.equal(tensors[name], value.to(target)), name


@pytest.mark.parametrize("stored", DTYPES)
@pytest.mark.parametrize("frozen", DTYPES)
def test_every_stored_type_becomes_every_frozen_type_as_torch_rounds(tmp_path, stored, frozen):
    folder = tiny_model.make_model_folder(tmp_path / "base", dtype=stored, tokenizer=False, num_layers=3)
    tensors, _ = converted(folder, tmp_path / "cache", frozen)
    model = GPTNeoForCausalLM.from_pretrained(folder, dtype=getattr(torch, stored))
    assert_equal_weights(tensors, model, frozen)


def test_shards_of_transformers_are_one_model(tmp_path):
    folder = tiny_model.make_model_folder(tmp_path / "base", max_shard_size="20KB", tokenizer=False)
    assert len(list(folder.glob("*.safetensors"))) > 2
    tensors, _ = converted(folder, tmp_path / "cache")
    assert_equal_weights(tensors, tiny_model.make_model())


@pytest.mark.parametrize("head", ["none", "sequence_classification"])
def test_models_without_a_language_head_load(tmp_path, head):
    folder = tiny_model.make_model_folder(tmp_path / "base", head=head, dtype="float16", tokenizer=False)
    tensors, _ = converted(folder, tmp_path / "cache", "float16")
    model = tiny_model.make_model(head=head).to(torch.float16)
    renamed = {name if head != "none" else f"transformer.{name}": value for name, value in model.state_dict().items()}
    assert set(tensors) == set(renamed)
    assert all(torch.equal(tensors[name], value.to(tensors[name].dtype)) for name, value in renamed.items())


def test_mask_buffers_of_old_files_are_ignored(tmp_path):
    folder = tiny_model.make_model_folder(tmp_path / "base", tokenizer=False)
    stored = load_file(folder / "model.safetensors")
    for layer in range(2):
        stored[f"transformer.h.{layer}.attn.attention.bias"] = torch.ones(1, 1, 64, 64, dtype=torch.uint8).tril()
        stored[f"transformer.h.{layer}.attn.attention.masked_bias"] = torch.tensor(-1e9)
    stored["lm_head.weight"] = stored["transformer.wte.weight"].clone()
    save_file(stored, folder / "model.safetensors", {"format": "pt"})
    tensors, answer = converted(folder, tmp_path / "cache")
    assert_equal_weights(tensors, tiny_model.make_model())
    assert answer["notes"] == []


def test_a_head_that_differs_is_untied_as_transformers_unties_it(tmp_path):
    folder = tiny_model.make_model_folder(tmp_path / "base", tokenizer=False)
    stored = load_file(folder / "model.safetensors")
    stored["lm_head.weight"] = torch.randn(512, 16)
    save_file(stored, folder / "model.safetensors", {"format": "pt"})
    oracle = GPTNeoForCausalLM.from_pretrained(folder)
    tensors, answer = converted(folder, tmp_path / "cache")
    assert_equal_weights(tensors, oracle, heads=["lm_head.weight"])
    assert torch.equal(tensors["lm_head.weight"], stored["lm_head.weight"])
    assert "lm_head.weight differs" in answer["notes"][0]


def test_values_beyond_fp16_are_refused_by_name(tmp_path):
    folder = tiny_model.make_model_folder(tmp_path / "base", tokenizer=False)
    stored = load_file(folder / "model.safetensors")
    stored["transformer.h.1.mlp.c_fc.weight"][0, 0] = 7e4
    save_file(stored, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(Refused, match="h.1.mlp.c_fc.weight.*beyond the range of F16") as refused:
        converted(folder, tmp_path / "cache", "float16")
    assert refused.value.code == 4
    converted(folder, tmp_path / "cache", "bfloat16")


@pytest.mark.parametrize("layers", [["global", "local"], ["local", "global"], ["local", "local"]])
def test_attention_layers_beside_attention_types_count_as_in_transformers(tmp_path, layers):
    folder = tiny_model.make_model_folder(tmp_path / "base", tokenizer=False)  # attention_types: global, local
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "attention_layers": layers}))
    ids = torch.randint(0, 512, (1, 24), generator=torch.Generator().manual_seed(1))  # three windows
    with torch.no_grad():
        expected = GPTNeoForCausalLM.from_pretrained(folder)(ids).logits[0]
    answer = call("logits", folder=folder, cache=tmp_path / "cache", ids=ids.tolist())
    assert torch.allclose(torch.tensor(answer["logits"][0]).view(24, -1), expected, atol=1e-4)


def test_all_that_is_wrong_comes_in_one_report(tmp_path):
    folder = tiny_model.make_model_folder(tmp_path / "base", tokenizer=False)
    stored = load_file(folder / "model.safetensors")
    del stored["transformer.ln_f.bias"]
    stored["transformer.wpe.weight"] = torch.zeros(63, 16)
    stored["transformer.h.0.attn.attention.q_proj.bias"] = torch.zeros(16)
    save_file(stored, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(Refused) as refused:
        converted(folder, tmp_path / "cache")
    text = str(refused.value)
    assert "missing (1): transformer.ln_f.bias [16]" in text
    assert "transformer.wpe.weight expected [64, 16] found [63, 16]" in text
    assert "unexpected (1): transformer.h.0.attn.attention.q_proj.bias [16]" in text


def test_damage_that_safetensors_refuses_is_refused(tmp_path):
    folder = tiny_model.make_model_folder(tmp_path / "base", tokenizer=False)
    whole = (folder / "model.safetensors").read_bytes()
    length = int.from_bytes(whole[:8], "little")
    header = json.loads(whole[8 : 8 + length])
    names = [name for name in header if name != "__metadata__"]

    def with_header(change):
        edited = json.loads(json.dumps(header))
        change(edited)
        text = json.dumps(edited).encode()
        return len(text).to_bytes(8, "little") + text + whole[8 + length :]

    def overlap(edited):
        edited[names[1]]["data_offsets"] = edited[names[0]]["data_offsets"]

    def grow(edited):
        edited[names[0]]["shape"][0] += 1

    def wrap(edited):
        edited[names[0]]["shape"] = [1 << 62, 4]

    damaged = {
        "truncated": whole[:-5],
        "longer": whole + b"x",
        "absurd length": (1 << 60).to_bytes(8, "little") + whole[8:],
        "cut header": whole[: 8 + length // 2],
        "overlap": with_header(overlap),
        "shape": with_header(grow),
        "wrap-around": with_header(wrap),
    }
    for name, content in damaged.items():
        (folder / "model.safetensors").write_bytes(content)
        with pytest.raises(Exception):
            load_file(folder / "model.safetensors")
        with pytest.raises(Refused) as refused:
            converted(folder, tmp_path / "cache")
        assert refused.value.code == 4, name


def test_a_real_small_model_loads(tmp_path):
    folder = SHARED / "data" / "weights" / "gpt-nano-sort-as-gptneo"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there")
    tensors, _ = converted(folder, tmp_path / "cache")
    oracle = GPTNeoForCausalLM.from_pretrained(folder)
    assert_equal_weights(tensors, oracle, heads=["lm_head.weight"])


def test_an_id_resolves_where_huggingface_hub_puts_it(tmp_path, monkeypatch):
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.file_download import repo_folder_name

    commit = "21def0189f5705e2521767faed922f1f15e7d7db"
    root = tmp_path / "hub" / repo_folder_name(repo_id="EleutherAI/gpt-neo-125m", repo_type="model")
    snapshot = root / "snapshots" / commit
    tiny_model.make_model_folder(snapshot, tokenizer=False)
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text(commit)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    oracle = try_to_load_from_cache("EleutherAI/gpt-neo-125m", "config.json", cache_dir=tmp_path / "hub")
    found = call("resolve", name="EleutherAI/gpt-neo-125m")["folder"]
    assert Path(found) == Path(oracle).parent
