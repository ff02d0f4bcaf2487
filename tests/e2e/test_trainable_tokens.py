# SPDX-License-Identifier: Apache-2.0
"""Rows of the embedding that train (trainable_token_indices), and embeddings that PEFT stored with an adapter
(save_embedding_layers): trained, evaluated, predicted, generated from and exported as PEFT does."""

import json
from collections import Counter

import common
import pytest
import test_adapter_init as by_hand
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from runs import adapter, assert_one_message, command, json_lines, losses, train
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

torch.set_num_threads(1)
DELTA = "base_model.model.transformer.wte.token_adapter.trainable_tokens_delta"
UNUSED = 5  # a token that stands in no text

base, texts = by_hand.base, by_hand.texts  # fixtures


@pytest.fixture(scope="module")
def tokens(base, texts):
    """Three frequent tokens, and one that no text has."""
    found = Counter(i for batch in by_hand.batches(base, texts) for i in batch["input_ids"].flatten().tolist())
    assert UNUSED not in found
    return [token for token, _ in found.most_common(4)[1:]] + [UNUSED]


def write_start(folder, base, tokens):
    model = get_peft_model(by_hand.oracle(base),
                           LoraConfig(task_type="CAUSAL_LM", **by_hand.LORA, trainable_token_indices=tokens))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(len(name))))
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory, cache, base, texts, tokens):
    """(neoloom's run, PEFT's model after the same steps, losses of both)"""
    folder = tmp_path_factory.mktemp("trained")
    start = write_start(folder / "start", base, {"wte": tokens})
    model = PeftModel.from_pretrained(by_hand.oracle(base), start, is_trainable=True).train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=2e-3, weight_decay=0.1)
    expected = []
    for batch in by_hand.batches(base, texts):
        loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        expected.append(loss.item())
    config = by_hand.config(base, texts, trainable_token_indices=tokens, init_from=str(start))
    config["trainer_config"]["weight_decay"] = 0.1
    run, _ = train(folder, cache, config)
    return run, model.eval(), losses(run), expected


def test_rows_of_tokens_train_as_in_peft(base, texts, tokens, trained):
    run, reference, found, expected = trained
    assert found == pytest.approx(expected, rel=2e-5)
    stored = json.loads((run.folder / "adapter/adapter_config.json").read_text())
    assert stored["trainable_token_indices"] == tokens
    ours = PeftModel.from_pretrained(by_hand.oracle(base), run.folder / "adapter").eval()
    assert by_hand.largest_difference(ours, reference, base, texts) < 1e-4
    rows = torch.tensor(adapter(run.folder / "adapter")[DELTA])
    moved = (rows - by_hand.oracle(base).transformer.wte.weight[tokens]).abs().amax(1)
    assert rows.shape == (4, 32) and (moved > 0.01).all(), "the tied head trains the row of the token that no text has"
    assert run.events("run_start")[0]["trainable_parameters"] == sum(
        p.numel() for p in get_peft_model(by_hand.oracle(base), LoraConfig(
            **by_hand.LORA, trainable_token_indices=tokens)).parameters() if p.requires_grad)


def test_such_a_run_is_evaluated_generated_from_and_exported(tmp_path, cache, base, texts, trained):
    run, reference, *_ = trained
    model = PeftModel.from_pretrained(by_hand.oracle(base), run.folder / "adapter").eval()
    tokenizer = AutoTokenizer.from_pretrained(base)
    ids = torch.tensor([tokenizer("free win").input_ids])
    with torch.no_grad():
        expected = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=16, do_sample=False,
                                  pad_token_id=tokenizer.eos_token_id)[0, ids.shape[1] :].tolist()
    [line] = json_lines(command(cache, "generate", "--run", run.folder, "--prompt", "free win", "--max_tokens", 16,
                                "--temperature", 0, "--json"))
    assert line["ids"] == [i for i in expected if i != tokenizer.eos_token_id]
    assert_evaluates_as(model, base, texts, cache, "--run", run.folder)
    command(cache, "export", "--run", run.folder, "--format", "merged", "--dtype", "float32", "--output", tmp_path / "merged")
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", attn_implementation="eager").eval()
    assert merged.lm_head.weight is merged.transformer.wte.weight
    assert by_hand.largest_difference(merged, model, base, texts) < 1e-5


def assert_evaluates_as(model, base, texts, cache, *source):
    total = count = 0.0
    with torch.no_grad():
        for batch in by_hand.batches(base, texts):
            targets = (batch["labels"][:, 1:] != -100).sum().item()
            total += model(**batch).loss.item() * targets
            count += targets
    found = json.loads(command(cache, "evaluate", *source, "--data", texts))
    assert found["eval_loss"] == pytest.approx(total / count, rel=1e-5)


def test_tokens_and_adapters_that_do_not_fit_are_refused(tmp_path, cache, base, texts, tokens):
    _, ended = train(tmp_path / "range", cache, by_hand.config(base, texts, trainable_token_indices=[3, 512]), code=2)
    assert_one_message(ended, "trainable_token_indices: 512 is no token of this model; expected 0 to 511")
    head = dict(trainable_token_indices=[3], modules_to_save=["lm_head"])
    _, ended = train(tmp_path / "head", cache, by_hand.config(base, texts, **head), code=2)
    assert_one_message(ended, "not together with modules_to_save: [lm_head]", "tied to wte")
    start = write_start(tmp_path / "start", base, tokens)
    other = dict(trainable_token_indices=tokens[::-1], init_from=str(start))
    _, ended = train(tmp_path / "order", cache, by_hand.config(base, texts, **other), code=2)
    assert_one_message(ended, f"was made with trainable_token_indices {tokens}, but this run has {tokens[::-1]}")


def with_own_embedding(folder, base, classifies, changed, tokens=None):
    """Saves an adapter with the embedding, in which these rows are not the base's. Returns PEFT's model of it."""
    def plain():
        if not classifies:
            return by_hand.oracle(base)
        return AutoModelForSequenceClassification.from_pretrained(base, num_labels=2, pad_token_id=511,
                                                                  attn_implementation="eager")
    torch.manual_seed(1)
    model = get_peft_model(plain(), LoraConfig(task_type="SEQ_CLS" if classifies else "CAUSAL_LM", **by_hand.LORA,
                                               trainable_token_indices=tokens))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn(parameter.shape))
            if changed and name.endswith(("wte.weight", "wte.token_adapter.base_layer.weight")):
                parameter[changed] += 0.3 * torch.randn(len(changed), 32)
    model.save_pretrained(folder, save_embedding_layers=True)
    assert any(name.endswith(("wte.weight", "wte.token_adapter.base_layer.weight")) for name in adapter(folder))
    return PeftModel.from_pretrained(plain(), folder).eval()


@pytest.mark.parametrize("own", [False, True], ids=["the_bases", "its_own"])
@pytest.mark.parametrize("with_tokens", [False, True], ids=["lora", "tokens"])
def test_an_embedding_that_peft_stored_is_used_as_in_peft(tmp_path, cache, base, texts, tokens, own, with_tokens):
    changed = [tokens[0], tokens[1], 7, UNUSED] if own else []
    trained_too = tokens[1:] if with_tokens else None
    model = with_own_embedding(tmp_path / "peft", base, False, changed, trained_too)
    source = ("--model", base, "--adapter", tmp_path / "peft")
    assert_evaluates_as(model, base, texts, cache, *source)
    ended = common.neoloom(0, "evaluate", *source, "--data", texts, "--set", f"runtime.cache_dir={cache}").expect(0)
    count = len(set(changed) - set(trained_too or []))
    assert (f"an embedding of its own: {count} of 512 rows" if own else "an embedding, which is the base's") in ended.err
    command(cache, "export", *source, "--format", "peft", "--output", tmp_path / "ours")
    again = PeftModel.from_pretrained(by_hand.oracle(base), tmp_path / "ours").eval()
    assert by_hand.largest_difference(again, model, base, texts) < 1e-5
    config = by_hand.config(base, texts, trainable_token_indices=trained_too or [], init_from=str(tmp_path / "peft"))
    _, ended = train(tmp_path, cache, config, code=2 if own else 0)
    if own:
        assert_one_message(ended, "init_from", f"in which rows of {count} tokens are not the base's")


def test_a_classifier_with_a_stored_embedding_predicts_as_in_peft(tmp_path, cache, base, texts, tokens):
    model = with_own_embedding(tmp_path / "peft", base, True, [tokens[0], 7], tokens[1:])
    tokenizer = AutoTokenizer.from_pretrained(base)
    found = json_lines(command(cache, "predict", "--model", base, "--adapter", tmp_path / "peft", "--input", texts))
    with torch.no_grad():
        for row, line in zip(found, json_lines(texts.read_text())[:20]):
            scores = torch.softmax(model(input_ids=torch.tensor([tokenizer(line["text"]).input_ids])).logits[0], -1)
            assert list(row["scores"].values()) == pytest.approx(scores.tolist(), abs=1e-5)
