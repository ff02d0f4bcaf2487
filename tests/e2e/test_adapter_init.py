# SPDX-License-Identifier: Apache-2.0
"""Runs with peft_config.init_lora_weights: trained as PEFT trains them, resumed, evaluated, generated from, exported."""

import json
import math
import signal

import common
import pytest
import tiny_model
import torch
from common import Run, make_config
from peft import LoraConfig, PeftModel, get_peft_model
from runs import assert_one_message, command, losses, padded, train, write_jsonl
from transformers import AutoModelForCausalLM, AutoTokenizer

torch.set_num_threads(1)
STEPS, BATCH = 10, 8
LORA = dict(r=4, lora_alpha=6, target_modules=["q_proj", "v_proj", "c_fc", "c_proj"])


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny_model.make_model_folder(tmp_path_factory.mktemp("base") / "gpt-neo", num_layers=2, hidden_size=32, std=0.1)


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    path = tmp_path_factory.mktemp("texts") / "train.jsonl"
    return write_jsonl(path, [{"text": text} for text in tiny_model.sample_texts(STEPS * BATCH, 4)])


def oracle(base):
    return AutoModelForCausalLM.from_pretrained(base, attn_implementation="eager", dtype=torch.float32)


def batches(base, texts):
    tokenizer = AutoTokenizer.from_pretrained(base)
    ids = [tokenizer(json.loads(line)["text"]).input_ids + [tokenizer.eos_token_id]
           for line in texts.read_text().splitlines()]
    for first in range(0, len(ids), BATCH):
        batch = padded(ids[first : first + BATCH], tokenizer.eos_token_id)
        yield {**batch, "labels": batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)}


def trained_by_hand(base, texts, **lora):
    """Returns PEFT's model after the steps, on the base that PEFT has changed, and the losses."""
    model = get_peft_model(oracle(base), LoraConfig(task_type="CAUSAL_LM", **LORA, **lora)).train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=2e-3, weight_decay=0.0)
    found = []
    for batch in batches(base, texts):
        loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        found.append(loss.item())
    return model.eval(), found


def config(base, texts, **lora):
    return {"model_config": {"pretrained_model_name": str(base), "frozen_dtype": "float32"},
            "peft_config": {**LORA, "task_type": "CAUSAL_LM", **lora},
            "data": {"train": str(texts)},
            "trainer_config": {"num_train_epochs": 1, "per_device_train_batch_size": BATCH, "learning_rate": 2e-3,
                               "lr_scheduler_type": "constant", "weight_decay": 0.0, "max_grad_norm": 0,
                               "train_sampling_strategy": "sequential"}}


def largest_difference(left, right, base, texts):
    """max|difference| / max|logit| over real tokens."""
    worst = top = 0.0
    with torch.no_grad():
        for batch in batches(base, texts):
            mask = batch["attention_mask"].bool()
            one, other = (model(**batch).logits[mask] for model in (left, right))
            worst, top = max(worst, float((one - other).abs().max())), max(top, float(other.abs().max()))
    return worst / top


@pytest.mark.parametrize("lora", [dict(init_lora_weights="pissa"), dict(init_lora_weights="olora"),
                                  dict(init_lora_weights="pissa", use_rslora=True)], ids=["pissa", "olora", "rslora"])
def test_a_run_trains_as_peft_does_and_its_adapter_fits_the_unchanged_base(tmp_path, cache, base, texts, lora):
    reference, expected = trained_by_hand(base, texts, **lora)
    run, _ = train(tmp_path, cache, config(base, texts, **lora))
    assert losses(run) == pytest.approx(expected, rel=2e-5)
    adapter = json.loads((run.folder / "adapter/adapter_config.json").read_text())
    assert (adapter["r"], adapter["init_lora_weights"]) == (8, True)
    ours = PeftModel.from_pretrained(oracle(base), run.folder / "adapter").eval()
    difference = largest_difference(ours, reference, base, texts)
    moved = largest_difference(oracle(base), reference, base, texts)
    print(f"logits differ from PEFT's trained model by {difference:.1e}; training moved them by {moved:.1e}")
    assert difference < 1e-3 * moved


def test_a_finished_run_is_evaluated_generated_from_and_exported(tmp_path, cache, base, texts):
    run, _ = train(tmp_path, cache, config(base, texts, init_lora_weights="pissa_niter_4"))
    model = PeftModel.from_pretrained(oracle(base), run.folder / "adapter").eval()
    total = count = 0.0
    with torch.no_grad():
        for batch in batches(base, texts):
            targets = int((batch["labels"][:, 1:] != -100).sum())
            total, count = total + float(model(**batch).loss) * targets, count + targets
    found = json.loads(command(cache, "evaluate", "--run", run.folder, "--data", texts))
    assert found["eval_loss"] == pytest.approx(total / count, rel=1e-5)

    command(cache, "export", "--run", run.folder, "--format", "merged", "--output", tmp_path / "merged", "--dtype", "float32")
    assert largest_difference(oracle(tmp_path / "merged"), model, base, texts) < 1e-5
    command(cache, "export", "--run", run.folder, "--format", "peft", "--output", tmp_path / "peft")
    again = PeftModel.from_pretrained(oracle(base), tmp_path / "peft").eval()
    assert largest_difference(again, model, base, texts) == 0

    tokenizer = AutoTokenizer.from_pretrained(base)
    prompt = "one two three"
    ids = tokenizer(prompt, return_tensors="pt").input_ids
    expected = model.generate(input_ids=ids, max_new_tokens=12, do_sample=False, pad_token_id=0)[0, ids.shape[1] :]
    answer = json.loads(command(cache, "generate", "--run", run.folder, "--prompt", prompt, "--max_tokens", 12,
                                "--temperature", 0, "--json"))
    assert answer["text"].strip() in tokenizer.decode(expected, skip_special_tokens=True)


def test_a_run_goes_on_from_a_finished_one_and_from_what_peft_saved_only_once_converted(tmp_path, cache, base, texts):
    reference, _ = trained_by_hand(base, texts, init_lora_weights="olora")
    reference.save_pretrained(tmp_path / "unconverted")
    start = config(base, texts, init_from=str(tmp_path / "unconverted"))
    _, ended = train(tmp_path / "refused", cache, start, code=2)
    assert_one_message(ended, "init_lora_weights, olora", "neoloom export")
    common.neoloom(0, "export", "--model", base, "--adapter", tmp_path / "unconverted", "--output", tmp_path / "plain",
                   "--set", f"runtime.cache_dir={cache}", "--set", "model_config.frozen_dtype=float32").expect(0)
    run, _ = train(tmp_path / "on", cache, config(base, texts, init_from=str(tmp_path / "plain"), r=8, lora_alpha=12))
    with torch.no_grad():
        first = float(reference(**next(iter(batches(base, texts)))).loss)
    assert losses(run)[0] == pytest.approx(first, rel=1e-5)


@pytest.mark.parametrize("init", ["pissa_niter_2", "olora"])
def test_killed_on_two_ranks_and_finished_on_three_ends_with_the_same_bits(tmp_path, data, cache, init):
    settings = make_config("causal_lm", data, cache, "float16")
    settings["peft_config"]["init_lora_weights"] = init
    undisturbed = Run(tmp_path / "undisturbed", settings)
    undisturbed.train(1).expect(0)
    run = Run(tmp_path / "run", settings)
    killed = run.train(2, NEOLOOM_FAULT="kill:rank=1:step=8")
    assert killed.code not in (0, common.STOPPED), killed.err
    run.train(3).expect(0)
    assert [event["step"] for event in run.events("resume")] in ([6], [4])
    assert run.state() == undisturbed.state() and "initial_params" in run.state()
    assert run.losses() == undisturbed.losses()
    assert run.evaluations() == undisturbed.evaluations()


def test_another_initialisation_is_another_run(tmp_path, data, cache):
    settings = make_config("classification", data, cache)
    run = Run(tmp_path / "run", settings)
    run.train(0, NEOLOOM_FAULT="kill:rank=0:step=8").expect(-signal.SIGKILL)
    other = Run(tmp_path / "run", settings, peft_config={**settings["peft_config"], "init_lora_weights": "olora"})
    refused = other.train(0).expect(2)
    assert "peft_config.init_lora_weights: was true, is olora" in refused.err


@pytest.mark.parametrize("init", [False, "gaussian", "orthogonal"], ids=str)
def test_random_initialisations_train_and_are_named_in_the_adapter(tmp_path, cache, base, texts, init):
    run, _ = train(tmp_path, cache, config(base, texts, init_lora_weights=init))
    assert all(map(math.isfinite, losses(run))) and losses(run)[-1] < losses(run)[0]
    assert json.loads((run.folder / "adapter/adapter_config.json").read_text())["init_lora_weights"] == init
    PeftModel.from_pretrained(oracle(base), run.folder / "adapter")
