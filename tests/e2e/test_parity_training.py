# SPDX-License-Identifier: Apache-2.0
"""Thirty training steps against a loop of transformers + peft + torch.optim.AdamW, and accumulation against one batch."""

import copy
import json
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import common
import pytest
import tiny_model
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.optimizers import create_loraplus_optimizer
from runs import assert_one_message, losses, padded, shared_data, train, write_jsonl
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer, get_scheduler

torch.set_num_threads(1)

STEPS = 30
BATCH = 8
LABELS = ["alpha", "beta 😀", "gamma"]
LORA = dict(r=4, lora_alpha=16, target_modules=["q_proj", "v_proj", "c_fc"])
CLIP_AT = {"classification": 1.5, "causal_lm": 0.95}  # about the median of the gradient's norm over the thirty steps
RECIPE = dict(learning_rate=2e-4, weight_decay=0.1, warmup_steps=5, lr_scheduler_type="linear")


@dataclass
class Task:
    name: str
    base: Path
    start: Path  # PEFT folder with the initial adapter
    data: Path
    cache: Path
    batches: list  # what the reference trains on: keyword arguments of the transformers model
    reference: PeftModel  # as it starts
    classifies: bool = field(init=False)

    def __post_init__(self):
        self.classifies = self.name == "classification"

    def config(self, **trainer):
        config = {
            "model_config": {"pretrained_model_name": str(self.base), "frozen_dtype": "float32"},
            "peft_config": {**LORA, "task_type": "SEQ_CLS" if self.classifies else "CAUSAL_LM",
                            "init_from": str(self.start)},
            "data": {"train": str(self.data)},
            "trainer_config": {"num_train_epochs": 1, "train_sampling_strategy": "sequential",
                               "per_device_train_batch_size": BATCH, "max_grad_norm": CLIP_AT[self.name], **RECIPE,
                               **trainer},
        }
        if self.classifies:
            config["data"] |= {"label_column": "label", "label_names": LABELS}
        return config


def load_base(folder, classifies):
    if not classifies:
        return AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32)
    torch.manual_seed(3)  # the score head is not in the folder
    pad = AutoTokenizer.from_pretrained(folder).eos_token_id
    return AutoModelForSequenceClassification.from_pretrained(
        folder, num_labels=len(LABELS), id2label=dict(enumerate(LABELS)), pad_token_id=pad,
        label2id={name: index for index, name in enumerate(LABELS)}, attn_implementation="eager", dtype=torch.float32)


def write_start(folder, base, classifies):
    """A PEFT adapter whose B matrices are not zero, so that every tensor has a gradient from the first step on."""
    model = get_peft_model(load_base(base, classifies),
                           LoraConfig(task_type="SEQ_CLS" if classifies else "CAUSAL_LM", **LORA))
    generator = torch.Generator().manual_seed(11)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.02)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=["classification", "causal_lm"])
def task(request, tmp_path_factory):
    root = tmp_path_factory.mktemp(request.param)
    classifies = request.param == "classification"
    base = tiny_model.make_model_folder(root / "base", num_layers=3, hidden_size=32, std=0.1)
    data = root / "train.jsonl"
    rows = tiny_model.write_classification_jsonl(data, STEPS * BATCH, LABELS, seed=4)
    if not classifies:
        write_jsonl(data, [{"text": row["text"]} for row in rows])
    tokenizer = AutoTokenizer.from_pretrained(base)
    ids = [tokenizer(row["text"]).input_ids + ([] if classifies else [tokenizer.eos_token_id]) for row in rows]
    batches = []
    for first in range(0, len(rows), BATCH):
        batch = padded(ids[first : first + BATCH], tokenizer.eos_token_id)
        wanted = rows[first : first + BATCH]
        batch["labels"] = (torch.tensor([LABELS.index(row["label"]) for row in wanted]) if classifies
                           else batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100))
        batches.append(batch)
    start = write_start(root / "start", base, classifies)
    model = PeftModel.from_pretrained(load_base(base, classifies), start, is_trainable=True)
    return Task(request.param, base, start, data, root / "cache", batches, model)


def reference_run(task, decay=0.1, beta2=0.999, eps=1e-8, clip=True, loraplus_lr_ratio=1.0):
    """Trains by hand as Hugging Face's Trainer does. Returns losses, gradient norms, values by name."""
    model = copy.deepcopy(task.reference).train()
    parameters = {name: value for name, value in model.named_parameters() if value.requires_grad}
    optimizer = create_loraplus_optimizer(model, torch.optim.AdamW, lr=RECIPE["learning_rate"], betas=(0.9, beta2), eps=eps,
                                          loraplus_weight_decay=decay, loraplus_lr_ratio=loraplus_lr_ratio)
    schedule = get_scheduler("linear", optimizer, num_warmup_steps=RECIPE["warmup_steps"], num_training_steps=STEPS)
    found_losses, norms = [], []
    for batch in task.batches:
        loss = model(**batch).loss
        loss.backward()
        limit = CLIP_AT[task.name] if clip else float("inf")
        norms.append(torch.nn.utils.clip_grad_norm_(parameters.values(), limit).item())
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        found_losses.append(loss.item())
    values = {name.replace(".default", "").replace("modules_to_save.", ""): value.detach()
              for name, value in parameters.items()}
    return found_losses, norms, values


def distance(left, right):
    return sum(((left[name].double() - right[name].double()) ** 2).sum() for name in right).sqrt().item()


def travelled_share(found, reference, start):
    """Returns |found - reference| / |reference - start| over all tensors of the adapter."""
    assert found.keys() == reference.keys() == start.keys()
    return distance(found, reference) / distance(reference, start)


@pytest.fixture(scope="module")
def ours(task, tmp_path_factory):
    run, _ = train(tmp_path_factory.mktemp("ours"), task.cache, task.config())
    return run


@pytest.fixture(scope="module")
def start_values(task):
    return load_file(task.start / "adapter_model.safetensors")


def adapter_values(run):
    return load_file(run.folder / "adapter" / "adapter_model.safetensors")


def test_thirty_steps_are_those_of_transformers_peft_and_torch(task, ours, start_values):
    reference_losses, norms, reference = reference_run(task)
    clipped = sum(norm > CLIP_AT[task.name] for norm in norms)
    assert STEPS // 2 <= clipped < STEPS, f"clipping acted in {clipped} steps: {sorted(norms)}"
    worst = max(abs(a - b) for a, b in zip(losses(ours), reference_losses, strict=True))
    share = travelled_share(adapter_values(ours), reference, start_values)
    print(f"{task.name}: loss difference {worst:.1e}, parameter difference {share:.1e}, clipped in {clipped} steps")
    assert worst <= 1e-5
    assert share <= 1e-4
    found_norms = [event["grad_norm"] for event in ours.events("train")]
    assert found_norms == pytest.approx(norms, rel=1e-4)


@pytest.mark.parametrize("mutation", [dict(decay=0.0), dict(beta2=0.99), dict(eps=1e-3), dict(clip=False)], ids=str)
def test_another_recipe_would_be_noticed(task, ours, start_values, mutation):
    _, _, reference = reference_run(task, **mutation)
    share = travelled_share(adapter_values(ours), reference, start_values)
    print(f"{task.name}: {mutation} is {share:.1e} away")
    assert share > 1e-3, "the comparison must tell such a recipe from ours by far more than its tolerance"


def test_lora_plus_is_that_of_peft(task, ours, start_values, tmp_path):
    run, _ = train(tmp_path, task.cache, task.config(loraplus_lr_ratio=4))
    reference_losses, _, reference = reference_run(task, loraplus_lr_ratio=4)
    assert losses(run) == pytest.approx(reference_losses, abs=1e-5)
    assert travelled_share(adapter_values(run), reference, start_values) <= 1e-4
    assert travelled_share(adapter_values(ours), reference, start_values) > 0.1


def test_four_micro_batches_of_four_are_one_of_sixteen(task, start_values, tmp_path):
    runs = {}
    for size, accumulation in [(16, 1), (4, 4)]:
        config = task.config(per_device_train_batch_size=size, gradient_accumulation_steps=accumulation)
        runs[size], _ = train(tmp_path / str(size), task.cache, config)
        assert runs[size].events("run_start")[0]["micro_batches_per_step"] == accumulation
    assert losses(runs[4]) == pytest.approx(losses(runs[16]), abs=1e-6)
    share = travelled_share(adapter_values(runs[4]), adapter_values(runs[16]), start_values)
    print(f"{task.name}: parameter difference {share:.1e}")
    assert share <= 1e-4


@pytest.mark.parametrize("change,code,words", [
    (dict(lora_alpha=8), 2, ["peft_config.init_from", "lora_alpha 16"]),
    (dict(r=2), 4, ["c_fc.lora_B.weight", "[128, 2]", "[128, 4]"]),
    (dict(init_from="nowhere"), 4, ["nowhere"]),
], ids=["scaling", "rank", "missing"])
def test_an_adapter_that_does_not_fit_is_no_start(task, tmp_path, change, code, words):
    config = task.config()
    config["peft_config"] |= change
    run, ended = train(tmp_path, task.cache, config, code=code)
    assert_one_message(ended, *words)
    assert not (run.folder / "config.yaml").exists()


def test_a_real_small_model_has_its_golden_logits(tmp_path):
    folder = shared_data("weights", "gpt-nano-sort-as-gptneo")
    golden = json.loads((folder / "golden-logits.json").read_text())["cases"]
    cases = [{"model": str(folder), "cache": str(tmp_path / "cache"), "output": str(tmp_path / f"{i}.safetensors"),
              "batch": {"ids": [case["input_ids"]], "lengths": [len(case["input_ids"])]}}
             for i, case in enumerate(golden)]
    request = tmp_path / "request.json"
    request.write_text(json.dumps({"cases": cases}))
    subprocess.run([common.BUILD / "model_probe", request], check=True, capture_output=True, timeout=120)
    for case, ran in zip(golden, cases, strict=True):
        [found] = load_file(ran["output"])["logits"]
        expected = torch.tensor(case["logits"])
        assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()
