# SPDX-License-Identifier: Apache-2.0
"""Adapter folders, full models and merged exports: both directions against peft and transformers, logits equal."""

import copy
import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
import tiny_model  # noqa: E402
from model_files_tool import Refused, call  # noqa: E402

LABELS = ["ham", "spam 😀", "other"]
IDS = [[3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8], [100], [7, 300, 20, 11]]
ALL_LINEAR = ["c_fc", "c_proj", "k_proj", "out_proj", "q_proj", "v_proj"]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A causal LM whose folder carries a tokenizer."""
    return tiny_model.make_model_folder(tmp_path_factory.mktemp("base") / "gpt-neo", num_layers=3)


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


def oracle_logits(model, classifies):
    model.eval()
    rows = []
    with torch.no_grad():
        for ids in IDS:
            logits = model(input_ids=torch.tensor([ids])).logits
            rows.append(logits[0] if classifies else logits[0].reshape(-1))
    return rows


def assert_close(found, expected, tolerance=2e-5):
    for left, right in zip(found, expected, strict=True):
        left = torch.as_tensor(left)
        assert left.shape == right.shape
        assert (left - right).abs().max() <= tolerance * right.abs().max()


def tokenizer_files(folder):
    return [str(path) for path in sorted(folder.glob("tokenizer*"))]


def plain_model(base, classifies):
    if not classifies:
        return AutoModelForCausalLM.from_pretrained(base, attn_implementation="eager")
    return AutoModelForSequenceClassification.from_pretrained(
        base, num_labels=len(LABELS), id2label=dict(enumerate(LABELS)),
        label2id={name: i for i, name in enumerate(LABELS)}, pad_token_id=0, attn_implementation="eager")


def peft_model(base, classifies, **lora):
    model = plain_model(base, classifies)
    settings = dict(task_type="SEQ_CLS" if classifies else "CAUSAL_LM", r=4, lora_alpha=16)
    model = get_peft_model(model, LoraConfig(**{**settings, **lora}))
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model


def ours(base, cache, adapter, classifies, **request):
    head = dict(head="single_label", num_labels=len(LABELS)) if classifies else {}
    return call("logits", folder=base, cache=cache, adapter=adapter, ids=IDS, **head, **request)["logits"]


@pytest.mark.parametrize("classifies", [True, False])
@pytest.mark.parametrize("lora", [
    dict(target_modules=["q_proj", "v_proj"]),
    dict(target_modules="all-linear", r=3, lora_alpha=7),
    dict(target_modules=ALL_LINEAR, use_rslora=True, init_lora_weights="gaussian"),
    dict(target_modules=r".*\.h\.[02]\..*\.(q_proj|c_fc)"),
    dict(target_modules=["transformer.h.1.mlp.c_proj", "h.0.attn.attention.out_proj"]),
    dict(target_modules="all-linear", exclude_modules=["h.1.mlp.c_fc", "out_proj"]),
    dict(target_modules=["q_proj", "c_fc"], exclude_modules=r".*\.h\.2\..*"),
    dict(target_modules=["q_proj", "transformer.h.0.mlp.c_fc"], layers_to_transform=[1, 2], layers_pattern="h"),
    dict(target_modules="all-linear", rank_pattern={"h.0.attn.attention.q_proj": 2, "q_proj": 3, r"h\.1\..*c_fc": 5},
         alpha_pattern={"q_proj": 5, "mlp.c_proj": 0.5}),
    dict(target_modules=ALL_LINEAR, use_rslora=True, rank_pattern={"c_fc": 1}, alpha_pattern={"c_fc": 3}),
    dict(target_modules=ALL_LINEAR, use_dora=True),
    dict(target_modules=["q_proj", "c_fc"], use_dora=True, use_rslora=True, rank_pattern={"c_fc": 1}),
    dict(target_modules=["q_proj", "c_fc"], bias="all"),
    dict(target_modules=["q_proj", "c_fc"], bias="lora_only", use_dora=True),
    dict(target_modules=ALL_LINEAR, bias="all", lora_bias=True),
    dict(target_modules=["q_proj"], modules_to_save=["ln_f"]),
    dict(target_modules=["q_proj"], modules_to_save=["wte"]),
    dict(target_modules=["q_proj"], modules_to_save=["lm_head"]),
    dict(target_modules=["q_proj"], bias="all", modules_to_save=["lm_head", "wte", "ln_f"]),
    dict(target_modules=["q_proj"], trainable_token_indices=[5, 3, 100]),
    dict(target_modules=["q_proj"], trainable_token_indices={"wte": [20, 1]}, bias="all", modules_to_save=["ln_f"]),
], ids=["q_v", "all_linear", "rslora", "expression", "full_names", "exclude", "exclude_expression", "layers", "patterns",
        "rslora_patterns", "dora", "dora_rslora", "bias_all", "bias_dora", "bias_of_b", "ln_f", "wte", "lm_head",
        "all_that_modules_to_save_takes", "tokens", "tokens_of_wte"])
def test_adapters_that_peft_wrote_compute_the_same(base, cache, tmp_path, classifies, lora):
    model = peft_model(base, classifies, **lora)
    model.save_pretrained(tmp_path / "adapter")
    assert_close(ours(base, cache, tmp_path / "adapter", classifies), oracle_logits(model, classifies))


@pytest.fixture(scope="module")
def untied(base, tmp_path_factory):
    folder = tmp_path_factory.mktemp("untied") / "gpt-neo"
    shutil.copytree(base, folder)
    model = AutoModelForCausalLM.from_pretrained(base, tie_word_embeddings=False)
    model.lm_head.weight = torch.nn.Parameter(torch.randn(model.lm_head.weight.shape, generator=torch.Generator().manual_seed(8)))
    model.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("changed", [[], [3, 100, 250]], ids=["as_in_the_base", "changed"])
@pytest.mark.parametrize("lora", [dict(), dict(trainable_token_indices=[5, 3]), dict(modules_to_save=["wte"]),
                                  dict(modules_to_save=["lm_head"], bias="all")],
                         ids=["lora", "tokens", "wte", "lm_head"])
@pytest.mark.parametrize("kind", ["classifier", "tied", "untied"])
def test_an_embedding_that_peft_stored_beside_the_adapter_counts_as_in_peft(base, untied, cache, tmp_path, kind, lora, changed):
    base = untied if kind == "untied" else base
    classifies = kind == "classifier"
    if classifies and "lm_head" in lora.get("modules_to_save", []):
        pytest.skip("a classifier has no lm_head")
    model = peft_model(base, classifies, target_modules=["q_proj"], **copy.deepcopy(lora))  # PEFT adds to the lists
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if changed and not parameter.requires_grad and ".wte." in name:
                parameter[changed] += 0.5
    model.save_pretrained(tmp_path / "adapter", save_embedding_layers=True)
    if changed and kind == "tied" and "modules_to_save" in lora:
        with pytest.raises(Refused, match="rows of its frozen embedding are not the base's|lm_head.weight is not") as refused:
            ours(base, cache, tmp_path / "adapter", classifies)
        assert refused.value.code == 4 and "merge_and_unload" in str(refused.value)
        return
    model = PeftModel.from_pretrained(plain_model(base, classifies), tmp_path / "adapter")
    assert_close(ours(base, cache, tmp_path / "adapter", classifies), oracle_logits(model, classifies))


@pytest.mark.parametrize("name, rows, message", [
    ("wte.token_adapter.trainable_tokens_delta", 3, r"is \[3, 16\], but trainable_token_indices has 2 tokens"),
    ("wte.token_adapter.base_layer.weight", 513, "own embedding for 513 tokens, the base has 512 tokens"),
])
def test_rows_that_do_not_fit_the_tokens_or_the_base_are_refused(base, cache, tmp_path, name, rows, message):
    adapter = tmp_path / "adapter"
    peft_model(base, True, trainable_token_indices=[5, 3]).save_pretrained(adapter, save_embedding_layers=True)
    tensors = load_file(adapter / "adapter_model.safetensors")
    tensors["base_model.model.transformer." + name] = torch.zeros(rows, 16)
    save_file(tensors, adapter / "adapter_model.safetensors", {"format": "pt"})
    with pytest.raises(Refused, match=message) as refused:
        ours(base, cache, adapter, True)
    assert refused.value.code == 4


def test_sixteen_bit_tensors_and_a_float_alpha_of_foreign_files_are_read(base, cache, tmp_path):
    model = peft_model(base, True)
    adapter = tmp_path / "adapter"
    model.save_pretrained(adapter)
    tensors = {name: value.half() for name, value in load_file(adapter / "adapter_model.safetensors").items()}
    save_file(tensors, adapter / "adapter_model.safetensors", {"format": "pt"})
    config = json.loads((adapter / "adapter_config.json").read_text())
    config["lora_alpha"] = 11.313708498984761
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    plain = AutoModelForSequenceClassification.from_pretrained(
        base, num_labels=len(LABELS), pad_token_id=0, attn_implementation="eager")
    oracle = PeftModel.from_pretrained(plain, adapter)
    assert_close(ours(base, cache, adapter, True), oracle_logits(oracle.float(), True))


@pytest.mark.parametrize("lora", [dict(init_lora_weights="pissa_niter_1"), dict(modules_to_save=["wpe"])],
                         ids=lambda lora: next(iter(lora)))
def test_peft_adapters_with_unsupported_fields_are_refused_by_name(base, cache, tmp_path, lora):
    peft_model(base, False, target_modules=["q_proj"], **lora).save_pretrained(tmp_path / "adapter")
    with pytest.raises(Refused, match=f"adapter_config.json: {next(iter(lora))} is ") as refused:
        ours(base, cache, tmp_path / "adapter", False)
    assert refused.value.code == 4


def test_all_tensors_that_do_not_belong_come_in_one_report(base, cache, tmp_path):
    adapter = tmp_path / "adapter"
    peft_model(base, True).save_pretrained(adapter)
    tensors = load_file(adapter / "adapter_model.safetensors")
    prefix = "base_model.model.transformer.h.0.attn.attention."
    tensors.pop(prefix + "q_proj.lora_A.weight")
    tensors[prefix + "v_proj.lora_B.weight"] = torch.zeros(16, 5)
    tensors["base_model.model.transformer.wte.weight"] = torch.zeros(3, 16)  # a vocabulary that grew, in PEFT
    save_file(tensors, adapter / "adapter_model.safetensors", {"format": "pt"})
    with pytest.raises(Refused) as refused:
        ours(base, cache, adapter, True)
    text = str(refused.value)
    assert f"missing (1): {prefix}q_proj.lora_A.weight [4, 16]" in text
    assert f"{prefix}v_proj.lora_B.weight expected [16, 4] found [16, 5]" in text
    assert "unexpected (1): base_model.model.transformer.wte.weight [3, 16]" in text


@pytest.mark.parametrize("targets", [["v_proj", "q_proj"], ["all-linear"]], ids=["q_v", "all_linear"])
@pytest.mark.parametrize("kind", [{}, dict(use_rslora=True), dict(use_dora=True)],
                         ids=lambda kind: next(iter(kind), "plain"))
def test_a_classifier_that_we_wrote_loads_in_peft_and_transformers(base, cache, tmp_path, targets, kind):
    adapter = tmp_path / "adapter"
    lora = dict(r=3, lora_alpha=5.0, target_modules=targets) | kind
    for _ in range(2):  # the second time it replaces itself
        answer = call("write", folder=base, cache=cache, output=adapter, head="single_label", labels=LABELS,
                      problem_type="single_label_classification", pad_token_id=0, lora=lora, fill_lora_b=True,
                      tokenizer_files=tokenizer_files(base))
    assert {path.name for path in adapter.iterdir()} == {
        "adapter_config.json", "adapter_model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json"}
    config = (adapter / "adapter_config.json").read_text()
    assert config == json.dumps(json.loads(config), sort_keys=True, indent=2) + "\n"

    # transformers takes a folder with config.json for a whole model, so the base is named and the folder configures it
    config = AutoConfig.from_pretrained(adapter)
    assert config.id2label == dict(enumerate(LABELS))
    assert config.num_labels == len(LABELS)
    assert config.problem_type == "single_label_classification"
    assert config.pad_token_id == 0
    assert config.architectures == ["GPTNeoForSequenceClassification"]
    plain = AutoModelForSequenceClassification.from_pretrained(base, config=config, attn_implementation="eager")
    wrapped = PeftModel.from_pretrained(plain, adapter, is_trainable=True)
    trainable = sum(parameter.numel() for parameter in wrapped.parameters() if parameter.requires_grad)
    assert trainable == answer["trainable"]
    expected = ours(base, cache, adapter, True)
    assert_close(oracle_logits(wrapped, True), [torch.tensor(row) for row in expected])

    assert AutoTokenizer.from_pretrained(adapter)("free cash").input_ids == \
        AutoTokenizer.from_pretrained(base)("free cash").input_ids


@pytest.mark.parametrize("kind", [{}, dict(use_dora=True)], ids=lambda kind: next(iter(kind), "plain"))
def test_peft_reads_our_language_adapter_and_writes_it_back_unchanged(base, cache, tmp_path, kind):
    adapter = tmp_path / "adapter"
    call("write", folder=base, cache=cache, output=adapter, lora=dict(r=2, target_modules=ALL_LINEAR) | kind,
         fill_lora_b=True)
    plain = AutoModelForCausalLM.from_pretrained(base, attn_implementation="eager")
    wrapped = PeftModel.from_pretrained(plain, adapter)
    expected = ours(base, cache, adapter, False)
    assert_close(oracle_logits(wrapped, False), [torch.tensor(row) for row in expected])
    wrapped.save_pretrained(tmp_path / "again")
    left, right = (load_file(path / "adapter_model.safetensors") for path in (adapter, tmp_path / "again"))
    assert set(left) == set(right)
    assert all(torch.equal(left[name], right[name]) for name in left)


@pytest.mark.parametrize("lora", [
    dict(target_modules=r".*\.h\.[02]\..*\.(q_proj|c_fc)"),
    dict(target_modules=ALL_LINEAR, exclude_modules=["h.1.mlp.c_fc", "out_proj"], layers_to_transform=[0, 1]),
    dict(target_modules=["all-linear"], rank_pattern={"h.0.attn.attention.q_proj": 2, "q_proj": 3, r"h\.1\..*c_fc": 5},
         alpha_pattern={"q_proj": 5, "mlp.c_proj": 0.5}),
    dict(target_modules=["all-linear"], use_dora=True),
    dict(target_modules=["q_proj", "c_fc"], bias="all"),
    dict(target_modules=["out_proj", "c_fc", "v_proj"], bias="lora_only"),
    dict(target_modules=["out_proj", "c_fc"], bias="all", lora_bias=True),
    dict(target_modules=["out_proj", "c_proj"], lora_bias=True),
    dict(target_modules=["out_proj"], modules_to_save=["wte"]),
    dict(target_modules=["out_proj"], modules_to_save=["lm_head", "ln_f"]),
    dict(target_modules=["out_proj"], modules_to_save=["wte", "lm_head"], use_dora=True),
    dict(target_modules=["out_proj"], trainable_token_indices=[5, 300, 1], bias="all"),
], ids=["expression", "limits", "patterns", "dora", "bias_all", "bias_lora_only", "bias_all_and_of_b", "bias_of_b",
        "wte", "lm_head", "wte_and_lm_head", "tokens"])
def test_peft_finds_the_modules_ranks_and_scalings_that_we_chose(base, cache, tmp_path, lora):
    adapter = tmp_path / "adapter"
    call("write", folder=base, cache=cache, output=adapter, lora=dict(r=4, lora_alpha=6.0) | lora, fill_lora_b=True)
    wrapped = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, attn_implementation="eager"), adapter)
    targets = lora["target_modules"]
    fresh = get_peft_model(AutoModelForCausalLM.from_pretrained(base, attn_implementation="eager"),
                           LoraConfig(**dict(task_type="CAUSAL_LM", r=4, lora_alpha=6.0) | lora |
                                      dict(target_modules="all-linear" if targets == ["all-linear"] else targets)))
    assert wrapped.state_dict().keys() == fresh.state_dict().keys()
    trained = {name for name, parameter in fresh.named_parameters() if parameter.requires_grad}
    names = {name.replace(".default", "").replace(".modules_to_save", "").replace("vector.weight", "vector")
             for name in trained}
    assert load_file(adapter / "adapter_model.safetensors").keys() == names
    expected = ours(base, cache, adapter, False)
    assert_close(oracle_logits(wrapped, False), [torch.tensor(row) for row in expected])
    call("export", folder=base, cache=cache, adapter=adapter, output=tmp_path / "merged", export_dtype="float32",
         tokenizer_files=[])
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", attn_implementation="eager")
    assert_close(oracle_logits(merged, False), oracle_logits(wrapped, False))


def test_a_merged_export_in_shards_is_that_of_one_file(base, cache, tmp_path):
    peft_model(base, False, target_modules="all-linear").save_pretrained(tmp_path / "adapter")
    request = dict(folder=base, cache=cache, adapter=tmp_path / "adapter", tokenizer_files=[])
    call("export", output=tmp_path / "one", **request)
    call("export", output=tmp_path / "shards", max_shard_bytes=20_000, **request)
    whole = load_file(tmp_path / "one/model.safetensors")
    index = json.loads((tmp_path / "shards/model.safetensors.index.json").read_text())
    assert index["weight_map"].keys() == whole.keys()
    assert index["metadata"]["total_size"] == sum(value.nbytes for value in whole.values())
    shards = sorted((tmp_path / "shards").glob("model-*.safetensors"))
    assert len(shards) > 2 and shards[0].name == f"model-00001-of-{len(shards):05}.safetensors"
    for shard in shards:
        tensors = load_file(shard)
        assert len(tensors) == 1 or sum(value.nbytes for value in tensors.values()) <= 20_000
        for name, value in tensors.items():
            assert index["weight_map"][name] == shard.name and torch.equal(value, whole[name])
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "shards", attn_implementation="eager")
    for name, value in whole.items():
        assert torch.equal(loaded.state_dict()[name], value)


@pytest.mark.parametrize("classifies", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("kind", ["use_rslora", "use_dora"])
def test_a_merged_export_is_a_transformers_model_rounded_once(base, cache, tmp_path, classifies, dtype, kind):
    adapter = tmp_path / "adapter"
    model = peft_model(base, classifies, target_modules="all-linear", **{kind: True})
    model.save_pretrained(adapter)
    head = dict(head="single_label", labels=LABELS, problem_type="single_label_classification",
                pad_token_id=0) if classifies else {}
    call("export", folder=base, cache=cache, adapter=adapter, output=tmp_path / "merged", export_dtype=dtype,
         tokenizer_files=tokenizer_files(base), **head)

    kind = AutoModelForSequenceClassification if classifies else AutoModelForCausalLM
    loaded = kind.from_pretrained(tmp_path / "merged", attn_implementation="eager")
    assert loaded.dtype == getattr(torch, dtype)
    if classifies:
        assert loaded.config.id2label == dict(enumerate(LABELS))
    expected = oracle_logits(model, classifies)
    assert_close(oracle_logits(loaded.float(), classifies), expected, 2e-5 if dtype == "float32" else 5e-3)
    merged = model.merge_and_unload().state_dict()
    for name, value in load_file(tmp_path / "merged" / "model.safetensors").items():
        exact = merged[name].to(getattr(torch, dtype)).float()
        # The product's last bit may fall on the other side of a rounding step.
        assert torch.allclose(value.float(), exact, rtol=2e-3 if dtype == "float16" else 1e-5, atol=1e-6), name
    assert AutoTokenizer.from_pretrained(tmp_path / "merged")("free cash").input_ids


def test_a_full_model_that_we_wrote_is_a_transformers_model(base, cache, tmp_path):
    for head in (dict(), dict(head="single_label", labels=LABELS, pad_token_id=0)):
        output = tmp_path / ("full" + head.get("head", ""))
        call("write", folder=base, cache=cache, output=output, tokenizer_files=tokenizer_files(base), **head)
        kind = AutoModelForSequenceClassification if head else AutoModelForCausalLM
        model, info = kind.from_pretrained(output, attn_implementation="eager", output_loading_info=True)
        assert not info["unexpected_keys"] and not info["mismatched_keys"]
        assert [key for key in info["missing_keys"] if key != "lm_head.weight"] == []
        found = ours(output, cache, output, bool(head), full=True)
        assert_close(oracle_logits(model, bool(head)), [torch.tensor(row) for row in found])


def test_a_bias_of_b_without_one_in_the_base_is_not_merged_as_in_peft(base, cache, tmp_path):
    adapter = tmp_path / "adapter"
    model = peft_model(base, False, target_modules=["q_proj"], lora_bias=True)
    model.save_pretrained(adapter)
    with pytest.raises(RuntimeError, match="has no bias"):
        model.merge_and_unload()
    with pytest.raises(Refused, match="h.0.attn.attention.q_proj.bias cannot be merged") as refused:
        call("export", folder=base, cache=cache, adapter=adapter, output=tmp_path / "merged")
    assert refused.value.code == 2
    assert not (tmp_path / "merged").exists()


def test_an_export_does_not_replace_its_own_base(base, cache, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(base, copy)
    adapter = tmp_path / "adapter"
    peft_model(base, False).save_pretrained(adapter)
    with pytest.raises(Refused, match="own folder"):
        call("export", folder=copy, cache=cache, adapter=adapter, output=copy)
    assert (copy / "tokenizer.json").exists()
