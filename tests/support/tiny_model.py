# SPDX-License-Identifier: Apache-2.0
"""Tiny random GPT-Neo folders and byte-level BPE tokenizers, written by transformers and tokenizers.

    from tests.support import tiny_model            # or put tests/support on sys.path and import tiny_model
    folder = tiny_model.make_model_folder(tmp_path / "base", num_layers=3, window_size=4)
    folder = tiny_model.make_model_folder(tmp_path / "base", head="sequence_classification", labels=["ham", "spam"])

Every parameter is random, biases and LayerNorm parameters too, so that a test notices when one is left out.
"""

import json
import random
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    GPTNeoConfig,
    GPTNeoForCausalLM,
    GPTNeoForSequenceClassification,
    GPTNeoModel,
    PreTrainedTokenizerFast,
)
from transformers.utils import logging

logging.disable_progress_bar()

EOS = "<|endoftext|>"
HEADS = {
    "causal_lm": GPTNeoForCausalLM,
    "sequence_classification": GPTNeoForSequenceClassification,
    "none": GPTNeoModel,
}
WORDS = (
    "free win prize call now claim your cash text to stop reply hello friend are you coming home tonight "
    "lunch at the office meeting moved tomorrow morning please send report thanks love see soon bank card "
    "account transfer money lost stolen exchange rate top up fee refund pending payment declined"
).split()


def sample_texts(count=200, seed=0):
    """Returns English-looking lines with digits, punctuation, accents and an emoji now and then."""
    rng = random.Random(seed)
    lines = []
    for _ in range(count):
        words = [rng.choice(WORDS) for _ in range(rng.randint(3, 14))]
        if rng.random() < 0.3:
            words.append(str(rng.randint(0, 99999)))
        if rng.random() < 0.1:
            words.append(rng.choice(["café", "naïve", "😀", "€5", "don't", "it's"]))
        lines.append(" ".join(words) + rng.choice(["", ".", "!", "?", "..."]))
    return lines


def make_tokenizer(folder, texts=None, vocab_size=512, legacy_files=False):
    """Trains a GPT-2 style tokenizer and saves it with save_pretrained. Returns the transformers object.

    The last id is <|endoftext|>, as in GPT-2: vocab_size - 1 where the texts allow that many entries, 257 at least.
    `legacy_files` adds vocab.json and merges.txt beside tokenizer.json.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - 1,
        special_tokens=[],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts if texts is not None else sample_texts(), trainer)
    tokenizer.add_special_tokens([EOS])
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if legacy_files:
        tokenizer.model.save(str(folder))
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=EOS,
        eos_token=EOS,
        unk_token=EOS,
        model_max_length=2048,
        clean_up_tokenization_spaces=False,
    )
    wrapped.save_pretrained(folder)
    return wrapped


def make_config(**overrides):
    """Returns a tiny GPTNeoConfig: 2 layers (global, local), 2 heads of 8, window 8. Any field can be overridden;
    num_layers alone is enough, attention_types follows (alternating global and local)."""
    values = dict(
        vocab_size=512,
        hidden_size=16,
        num_layers=2,
        num_heads=2,
        max_position_embeddings=64,
        window_size=8,
        intermediate_size=None,
    )
    values.update(overrides)
    if "attention_types" not in values:
        layers = values["num_layers"]
        pairs = [[["global", "local"], layers // 2]] if layers > 1 else []
        values["attention_types"] = pairs + ([[["global"], 1]] if layers % 2 else [])
    last = values["vocab_size"] - 1
    values.setdefault("bos_token_id", last)
    values.setdefault("eos_token_id", last)
    return GPTNeoConfig(**values)


def randomize(model, seed, std):
    """Fills every parameter: N(0, std), LayerNorm weights around 1. Equal for equal (shapes, seed, std)."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            values = torch.randn(parameter.shape, generator=generator) * std
            is_norm = ".ln_" in "." + name and name.endswith("weight")
            parameter.copy_(values + 1.0 if is_norm else values)
    return model


def make_model(head="causal_lm", seed=0, std=0.2, labels=None, problem_type=None, pad_token_id=None, **config):
    """Returns a random transformers model in fp32 and evaluation mode. `head`: a key of HEADS."""
    settings = make_config(**config)
    if labels is not None:
        settings.num_labels = len(labels)
        settings.id2label = dict(enumerate(labels))
        settings.label2id = {name: index for index, name in enumerate(labels)}
    if problem_type is not None:
        settings.problem_type = problem_type
    if pad_token_id is not None:
        settings.pad_token_id = pad_token_id
    settings._attn_implementation = "eager"
    return randomize(HEADS[head](settings), seed, std).eval()


def make_model_folder(
    folder, head="causal_lm", seed=0, std=0.2, dtype="float32", max_shard_size=None, tokenizer=True, **config
):
    """Writes config.json, safetensors (in shards when max_shard_size is given, e.g. "20KB") and, unless
    `tokenizer` is false, a tokenizer whose vocabulary fits vocab_size. Returns the folder as a Path."""
    folder = Path(folder)
    if tokenizer:
        eos = make_tokenizer(folder, vocab_size=config.get("vocab_size", 512)).eos_token_id
        config = {"bos_token_id": eos, "eos_token_id": eos, **config}
    model = make_model(head=head, seed=seed, std=std, **config).to(getattr(torch, dtype))
    extra = {"max_shard_size": max_shard_size} if max_shard_size else {}
    model.save_pretrained(folder, **extra)
    return folder


def write_classification_jsonl(path, count=60, labels=("ham", "spam"), seed=0):
    """JSONL rows {"text", "label"} whose label can be learned from the words. Returns the rows."""
    rng = random.Random(seed)
    rows = []
    for text in sample_texts(count, seed):
        index = rng.randrange(len(labels))
        rows.append({"text": f"{WORDS[index]} {WORDS[index]} {text}", "label": labels[index]})
    Path(path).write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return rows
