# SPDX-License-Identifier: Apache-2.0
"""One epoch of HF Trainer + PEFT on labelled JSON lines, then its evaluation; prints one JSON object.

    hf_epoch.py REQUEST.json       model, start (PEFT folder), tokenizer, train, validation, labels, output, batch,
                                   learning_rate, bf16, group_by_length, max_steps, threads, evaluate
    hf_epoch.py --start MODEL FOLDER LABELS      writes the adapter that both sides start from

Moments are seconds of CLOCK_MONOTONIC, so that the parent can count from the process's start.
"""

import json
import sys
import time
from pathlib import Path

import numpy
import peft
import torch
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from sides import lora_config


def load_base(folder, labels, pad, dtype):
    return AutoModelForSequenceClassification.from_pretrained(folder, num_labels=len(labels), pad_token_id=pad,
                                                              dtype=dtype, attn_implementation="eager")


def write_start(model, folder, labels):
    torch.manual_seed(1)
    names = list(map(str, range(int(labels))))
    base = load_base(model, names, 50256, torch.float32)
    peft.get_peft_model(base, peft.LoraConfig(**lora_config("single_label"))).save_pretrained(folder)


def encode(path, tokenizer, labels, max_length):
    rows = [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]
    encoded = tokenizer([row["text"] for row in rows], truncation=True, max_length=max_length)
    return [dict(input_ids=ids, attention_mask=mask, labels=labels.index(row["label"]), length=len(ids))
            for ids, mask, row in zip(encoded["input_ids"], encoded["attention_mask"], rows, strict=True)]


class Collator(DataCollatorWithPadding):
    """Dynamic padding, counted: tokens of the texts, and positions that the model computes."""

    def __init__(self, tokenizer):
        super().__init__(tokenizer)
        self.tokens = self.positions = 0

    def __call__(self, features):
        batch = super().__call__(features)
        self.tokens += int(batch["attention_mask"].sum())
        self.positions += batch["input_ids"].numel()
        return batch


class FirstStep(TrainerCallback):
    moment = None

    def on_step_begin(self, *_, **__):
        self.moment = self.moment or time.monotonic()


def accuracy(prediction):
    return {"accuracy": float(numpy.mean(prediction.predictions.argmax(-1) == prediction.label_ids))}


def main(request):
    torch.set_num_threads(request["threads"])
    tokenizer = AutoTokenizer.from_pretrained(request["tokenizer"])
    tokenizer.pad_token = tokenizer.eos_token
    labels = request["labels"]
    dtype = torch.bfloat16 if request["bf16"] else torch.float32
    base = load_base(request["model"], labels, tokenizer.pad_token_id, dtype)
    model = peft.PeftModel.from_pretrained(base, request["start"], is_trainable=True)
    limit = base.config.max_position_embeddings
    train, validation = (encode(request[name], tokenizer, labels, limit) for name in ("train", "validation"))
    arguments = TrainingArguments(
        output_dir=request["output"], per_device_train_batch_size=request["batch"], num_train_epochs=1,
        learning_rate=request["learning_rate"], max_steps=request["max_steps"], use_cpu=True, report_to=[],
        disable_tqdm=True, save_strategy="no", seed=42,
        train_sampling_strategy="group_by_length" if request["group_by_length"] else "random")
    first, collator = FirstStep(), Collator(tokenizer)
    trainer = Trainer(model=model, args=arguments, train_dataset=train, eval_dataset=validation, callbacks=[first],
                      data_collator=collator, compute_metrics=accuracy)
    loop = trainer.train().metrics["train_runtime"]
    counts = dict(tokens=collator.tokens, positions=collator.positions)
    trainer.save_model()
    done = time.monotonic()
    metrics = trainer.evaluate() if request["evaluate"] else {}
    print(json.dumps(dict(loop_seconds=loop, first_step=first.moment, done=done, **counts,
                          eval_loss=metrics.get("eval_loss"), eval_accuracy=metrics.get("eval_accuracy"))), flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "--start":
        write_start(*sys.argv[2:])
    else:
        main(json.loads(Path(sys.argv[1]).read_text()))
