# SPDX-License-Identifier: Apache-2.0
"""init_lora_weights against live peft: initial values, first gradients on the changed base, files in both directions."""

import json
import sys
from pathlib import Path

import peft
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

import test_model

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
import tiny_model  # noqa: E402
from model_files_tool import Refused, call  # noqa: E402

SIX = test_model.SIX
SHAPE = dict(hidden_size=64, num_heads=4, num_layers=2)
TOLERANCE = 1e-5


class Started(test_model.Situation):
    """A model whose adapter starts as peft starts it, and has then moved a little."""

    def randomize_adapter(self, seed):
        self.initial = {name: parameter.detach().clone() for name, parameter in self.trainable()}
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for _, parameter in self.trainable():
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.02)
        save_file(self.initial, self.tmp_path / "initial.safetensors")
        self.params = self.tmp_path / "params.safetensors"
        save_file({name: parameter.detach().clone() for name, parameter in self.trainable()}, self.params)

    def case(self, name, *batch, **extra):
        return super().case(name, *batch, initial=str(self.tmp_path / "initial.safetensors"), **extra)


def ours(situation, seed=0, **lora):
    """The initial values of model_probe."""
    batch = test_model.make_batch("causal_lm", [5], 512, 3)
    case = situation.case("values", *batch, seed=seed)
    del case["params"], case["initial"]
    case["lora"] = {**case["lora"], **lora}
    ((_, tensors),) = test_model.probe(situation.tmp_path, [case])
    return {name[6:]: value for name, value in tensors.items() if name.startswith("value.")}


def pairs(values):
    return {name: (value, values[name.replace("lora_A", "lora_B")]) for name, value in values.items() if "lora_A" in name}


@pytest.mark.parametrize("rslora", [False, True], ids=["", "rslora"])
@pytest.mark.parametrize("init", ["pissa", "olora"])
def test_decomposed_weights_are_those_of_peft_up_to_sign(tmp_path, init, rslora):
    lora = dict(r=6, lora_alpha=9, target_modules=SIX, init_lora_weights=init, use_rslora=rslora)
    situation = Started(tmp_path, lora=lora, **SHAPE)
    found, expected = pairs(ours(situation)), pairs(situation.initial)
    assert found.keys() == expected.keys() and len(found) == 12
    for name, (a, b) in expected.items():
        our_a, our_b = found[name]
        assert test_model.distance(our_b @ our_a, b @ a) <= TOLERANCE, name
        signs = (our_a * a).sum(1).sign()
        assert test_model.distance(our_a * signs[:, None], a) <= 2e-3, name  # close singular values turn into each other
        assert test_model.distance(our_b * signs, b) <= 2e-3, name


def test_the_randomised_pissa_nears_the_exact_one(tmp_path):
    lora = dict(r=6, lora_alpha=9, target_modules=SIX, init_lora_weights="pissa")
    situation = Started(tmp_path, lora=lora, **SHAPE)
    expected = pairs(situation.initial)
    far, near = (pairs(ours(situation, init_lora_weights=f"pissa_niter_{n}")) for n in (0, 2000))
    for name, (a, b) in expected.items():
        assert test_model.distance(near[name][1] @ near[name][0], b @ a) <= 1e-2, name
        assert test_model.distance(far[name][1] @ far[name][0], b @ a) > 1e-2, name


def test_the_randomised_pissa_errs_as_little_as_pefts(tmp_path):
    lora = dict(r=6, lora_alpha=6, target_modules=SIX, init_lora_weights="pissa_niter_1")
    situation = Started(tmp_path, lora=lora, **SHAPE)
    base = AutoModelForCausalLM.from_pretrained(situation.folder).state_dict()

    def rest(values):
        """The share of the weights that the adapters do not hold, over all of them."""
        total = 0.0
        for name, (a, b) in pairs(values).items():
            weight = base[name.removeprefix("base_model.model.").replace(".lora_A", "")]
            total += float((weight - b @ a).norm() / weight.norm())
        return total / len(pairs(values))

    mine, theirs = rest(ours(situation)), rest(situation.initial)
    print(f"left of the weights: {mine:.4f}, peft {theirs:.4f}")
    assert mine == pytest.approx(theirs, rel=0.02)


@pytest.mark.parametrize("init", [True, False, "gaussian", "orthogonal"], ids=str)
def test_random_values_are_distributed_as_pefts(tmp_path, init):
    lora = dict(r=8, lora_alpha=8, target_modules=["c_fc", "c_proj"], init_lora_weights=init)
    situation = Started(tmp_path, lora=lora, hidden_size=256, num_heads=4, num_layers=2)
    found, expected = pairs(ours(situation)), pairs(situation.initial)
    for name, (a, b) in expected.items():
        for mine, theirs in zip(found[name], (a, b), strict=True):
            assert mine.shape == theirs.shape
            if not theirs.any():
                assert not mine.any()
                continue
            assert float(mine.std()) == pytest.approx(float(theirs.std()), rel=0.1), name
            if init in (True, False):
                assert float(mine.abs().max()) == pytest.approx(float(theirs.abs().max()), rel=0.05), name
        if init == "orthogonal":
            assert (found[name][1] @ found[name][0]).abs().max() < 1e-6


@pytest.mark.parametrize("lora", [
    dict(init_lora_weights="pissa"), dict(init_lora_weights="olora"), dict(init_lora_weights="pissa", use_rslora=True),
    dict(init_lora_weights="olora", target_modules=["k_proj", "c_proj"]),
], ids=["pissa", "olora", "pissa rslora", "olora some"])
@pytest.mark.parametrize("head", ["causal_lm", "single_label"])
def test_losses_and_gradients_equal_those_on_pefts_changed_base(tmp_path, monkeypatch, head, lora):
    monkeypatch.setattr(test_model, "TOLERANCE", 3e-5)  # B0 A0 x is a term more to round; OLoRA's is as large as W x
    situation = Started(tmp_path, head, dict(r=4, lora_alpha=6, **{"target_modules": SIX, **lora}), **SHAPE)
    batch = test_model.make_batch(head, [9, 1, 16], 512, 3)
    ((answer, tensors),) = test_model.probe(tmp_path, [situation.case("out", *batch)])
    test_model.compare(situation, batch, answer, tensors)


@pytest.mark.parametrize("init", ["pissa", "olora"])
def test_a_16_bit_base_starts_where_it_was_and_pefts_does_not(tmp_path, init):
    """peft rounds the changed weights to 16 bit once more. Here they are never formed, so that the start is the base."""
    lora = dict(r=4, lora_alpha=8, target_modules=SIX, init_lora_weights=init)
    situation = Started(tmp_path, lora=lora, rounded_to=torch.float16, **SHAPE)
    ids, mask, labels = test_model.make_batch("causal_lm", [48, 20, 33], 512, 3)

    def load(dtype):
        return AutoModelForCausalLM.from_pretrained(situation.folder, dtype=dtype, attn_implementation="eager")

    def logits(model):
        with torch.no_grad():
            return model.float().eval()(input_ids=ids, attention_mask=mask.long()).logits[mask]

    expected = logits(load(torch.float32))
    theirs = logits(get_peft_model(load(torch.float16), LoraConfig(task_type="CAUSAL_LM", **lora)))
    case = situation.case("start", ids, mask, labels, frozen="float16")
    del case["params"], case["initial"]
    ((_, tensors),) = test_model.probe(tmp_path, [case])
    our_error, their_error = (test_model.distance(found, expected) for found in (tensors["logits"][mask], theirs))
    print(f"first logits: off by {our_error:.1e} here, by {their_error:.1e} in peft {peft.__version__}")
    assert our_error < 5e-6 and their_error > 5e-5


# --- files

IDS = [[3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8], [100], [7, 300, 20, 11]]
FILES = {
    "pissa": dict(init_lora_weights="pissa"),
    "olora": dict(init_lora_weights="olora"),
    "pissa rslora": dict(init_lora_weights="pissa", use_rslora=True),
    "olora patterns": dict(init_lora_weights="olora", rank_pattern={"q_proj": 2}, alpha_pattern={"c_fc": 3}),
    "pissa rslora patterns": dict(init_lora_weights="pissa", use_rslora=True, rank_pattern={"c_fc": 2},
                                  alpha_pattern={"c_fc": 3}),
}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny_model.make_model_folder(tmp_path_factory.mktemp("base") / "gpt-neo", num_layers=2, std=0.1)


def oracle(base):
    return AutoModelForCausalLM.from_pretrained(base, attn_implementation="eager", dtype=torch.float32)


def logits_of(model):
    with torch.no_grad():
        return [model.eval()(input_ids=torch.tensor([ids])).logits[0].reshape(-1) for ids in IDS]


def moved(base, **lora):
    """A peft model that has left its start."""
    model = get_peft_model(oracle(base), LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=8, target_modules=SIX, **lora))
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.05)
    return model


def assert_close(found, expected, tolerance=5e-5):
    for left, right in zip(found, expected, strict=True):
        assert test_model.distance(torch.as_tensor(left), right) <= tolerance


@pytest.mark.parametrize("lora", FILES.values(), ids=FILES)
def test_what_we_write_computes_in_peft_on_the_unchanged_base_what_we_compute(base, tmp_path, lora):
    request = dict(folder=base, cache=tmp_path / "cache", fill_lora_b=True,
                   lora=dict(r=4, lora_alpha=8, target_modules=SIX, **lora))
    call("write", output=tmp_path / "adapter", **request)
    config = json.loads((tmp_path / "adapter/adapter_config.json").read_text())
    assert config["init_lora_weights"] is True and config["r"] == 8
    assert config["lora_alpha"] == pytest.approx(8 * 2**0.5 if lora.get("use_rslora") else 16, rel=1e-12)
    found = call("logits", ids=IDS, **request)["logits"]
    assert_close(found, logits_of(PeftModel.from_pretrained(oracle(base), tmp_path / "adapter")))
    again = call("logits", ids=IDS, folder=base, cache=tmp_path / "cache", adapter=tmp_path / "adapter")["logits"]
    assert_close(again, [torch.tensor(row) for row in found])
    call("export", output=tmp_path / "merged", **request)
    assert_close(found, logits_of(oracle(tmp_path / "merged")))


@pytest.mark.parametrize("lora", FILES.values(), ids=FILES)
def test_an_adapter_that_peft_saved_unconverted_gets_its_changed_base(base, tmp_path, lora):
    model = moved(base, **lora)
    model.save_pretrained(tmp_path / "adapter")
    request = dict(folder=base, cache=tmp_path / "cache", adapter=tmp_path / "adapter")
    assert_close(call("logits", ids=IDS, **request)["logits"], logits_of(model))
    call("write", output=tmp_path / "plain", **request)
    assert_close(logits_of(PeftModel.from_pretrained(oracle(base), tmp_path / "plain")), logits_of(model))


@pytest.mark.parametrize("lora", [FILES["pissa"], FILES["olora"], FILES["pissa rslora"]], ids=["pissa", "olora", "rslora"])
def test_our_conversion_is_pefts(base, tmp_path, lora):
    """The same A and B through peft's path_initial_model_for_weight_conversion and through ours."""
    model = get_peft_model(oracle(base), LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=8, target_modules=SIX, **lora))
    start = tmp_path / "start"
    model.peft_config["default"].init_lora_weights = True
    model.save_pretrained(start)
    model.peft_config["default"].init_lora_weights = lora["init_lora_weights"]
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.05)
    model.save_pretrained(tmp_path / "trained")
    model.save_pretrained(tmp_path / "theirs", path_initial_model_for_weight_conversion=str(start))
    call("write", output=tmp_path / "ours", folder=base, cache=tmp_path / "cache", adapter=tmp_path / "trained")
    configs = [json.loads((tmp_path / side / "adapter_config.json").read_text()) for side in ("ours", "theirs")]
    for key in configs[0]:
        if key not in ("base_model_name_or_path", "target_modules", "modules_to_save"):
            assert configs[0][key] == configs[1][key], key
    found, expected = (load_file(tmp_path / side / "adapter_model.safetensors") for side in ("ours", "theirs"))
    assert {name: value.shape for name, value in found.items()} == {name: v.shape for name, v in expected.items()}
    for name, (a, b) in pairs(expected).items():
        assert torch.equal(found[name][:4], a[:4]), "the trained half is copied"
        assert test_model.distance(found[name.replace("lora_A", "lora_B")] @ found[name], b @ a) <= 1e-4, name


def test_a_randomised_pissa_that_peft_saved_unconverted_is_refused_with_the_way_out(base, tmp_path):
    moved(base, init_lora_weights="pissa_niter_4").save_pretrained(tmp_path / "adapter")
    with pytest.raises(Refused, match="path_initial_model_for_weight_conversion") as refused:
        call("logits", ids=IDS, folder=base, cache=tmp_path / "cache", adapter=tmp_path / "adapter")
    assert refused.value.code == 4
