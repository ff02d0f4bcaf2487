# SPDX-License-Identifier: Apache-2.0
"""HF Trainer + PEFT with the keys of a neoloom configuration; prints one JSON object.

    hf_quality.py REQUEST.json     config (groups of keys), model, tokenizer, train, validation, labels (empty: a language
                                   model), start (folder for the adapter that both sides start from), seed, metric, output,
                                   threads
"""

import csv
import json
import sys
from pathlib import Path

import peft
import torch
from sklearn.metrics import accuracy_score, f1_score
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorForSeq2Seq,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
)

ALPACA = ("Below is an instruction that describes a task{paired}. Write a response that appropriately completes the request.\n\n"
          "### Instruction:\n{instruction}\n\n{given}### Response:\n")


def rows_of(path, data):
    """Returns the rows of a JSON array, or of CSV or TSV as the keys of `data` describe it."""
    path = Path(path)
    if path.suffix == ".json":
        return json.loads(path.read_text(encoding="utf-8"))
    quoting = csv.QUOTE_MINIMAL if data.get("quoting", True) else csv.QUOTE_NONE
    with open(path, encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file, delimiter="\t" if path.suffix == ".tsv" else ",", quoting=quoting))
    names = rows.pop(0) if data.get("header", True) else [str(column) for column in range(len(rows[0]))]
    return [dict(zip(names, row, strict=True)) for row in rows]


def classified(request, tokenizer, part):
    data, limit = request["config"]["data"], request["config"]["tokenizer_config"]["max_length"]
    rows = rows_of(request[part], data)
    columns = [data["text_column"], *([data["text_pair_column"]] if "text_pair_column" in data else [])]
    encoded = tokenizer(*([row[column] for row in rows] for column in columns), truncation=True, max_length=limit)
    return [dict(input_ids=ids, attention_mask=[1] * len(ids), labels=request["labels"].index(row[data["label_column"]]))
            for ids, row in zip(encoded["input_ids"], rows, strict=True)]


def instructed(request, tokenizer, part):
    samples, limit = [], request["config"]["tokenizer_config"]["max_length"]
    for row in rows_of(request[part], {}):
        prompt = ALPACA.format(
            paired=", paired with an input that provides further context" if row["input"] else "",
            instruction=row["instruction"], given=f"### Input:\n{row['input']}\n\n" if row["input"] else "")
        before = tokenizer(prompt)["input_ids"]
        after = [*tokenizer(row["output"])["input_ids"], tokenizer.eos_token_id]
        samples.append(dict(input_ids=(before + after)[:limit], attention_mask=[1] * min(limit, len(before + after)),
                            labels=([-100] * len(before) + after)[:limit]))
    return samples


def metrics(prediction):
    found = prediction.predictions.argmax(-1)
    return {"accuracy": accuracy_score(prediction.label_ids, found),
            "macro_f1": f1_score(prediction.label_ids, found, average="macro")}


@torch.inference_mode()
def token_loss(model, samples, collator):
    """Returns the mean loss of all tokens. Trainer's evaluation is the mean of the means of its batches."""
    model.eval()
    total = count = 0
    for sample in samples:
        batch = collator([dict(sample)])
        tokens = int((batch["labels"][:, 1:] != -100).sum())
        total += float(model(**batch).loss) * tokens
        count += tokens
    return total / count


def main(request):
    torch.set_num_threads(request["threads"])
    torch.manual_seed(request["seed"])
    tokenizer = AutoTokenizer.from_pretrained(request["tokenizer"])
    tokenizer.pad_token = tokenizer.eos_token
    labels = request["labels"]
    if labels:
        base = AutoModelForSequenceClassification.from_pretrained(
            request["model"], num_labels=len(labels), pad_token_id=tokenizer.pad_token_id, dtype=torch.float32)
        encode, collator = classified, DataCollatorWithPadding(tokenizer)
    else:
        base = AutoModelForCausalLM.from_pretrained(request["model"], dtype=torch.float32)
        encode, collator = instructed, DataCollatorForSeq2Seq(tokenizer)
    model = peft.get_peft_model(base, peft.LoraConfig(**request["config"]["peft_config"]))
    model.save_pretrained(request["start"])
    keys = request["config"]["trainer_config"] | dict(output_dir=request["output"], seed=request["seed"])
    arguments = TrainingArguments(**keys, use_cpu=True, report_to=[], disable_tqdm=True, save_strategy="no")
    parts = {part: encode(request, tokenizer, part) for part in ("train", "validation")}
    trainer = Trainer(model=model, args=arguments, train_dataset=parts["train"], eval_dataset=parts["validation"],
                      data_collator=collator, compute_metrics=metrics if labels else None)
    seconds = trainer.train().metrics["train_runtime"]
    found = trainer.evaluate()[request["metric"]] if labels else token_loss(model, parts["validation"], collator)
    print(json.dumps(dict(metric=float(found), seconds=seconds)), flush=True)


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
