# SPDX-License-Identifier: Apache-2.0
"""A checkpoint-N folder of transformers' Trainer as the adapter, or the model, to start from."""

import json

import common
import pytest
import tiny_model
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from runs import QUICK, losses, padded, train
from test_interop import EXACT
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    Trainer,
    TrainingArguments,
    default_data_collator,
)

torch.set_num_threads(1)
ROWS, LABELS = 8, ["ham", "spam"]
LORA = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"]}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny_model.make_model_folder(tmp_path_factory.mktemp("base") / "gpt-neo", hidden_size=32, std=0.1)


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    tiny_model.write_classification_jsonl(path, ROWS, LABELS, seed=4)
    return path


def batch_of(base, rows, classifies):
    tokenizer = AutoTokenizer.from_pretrained(base)
    found = [json.loads(line) for line in rows.read_text().splitlines()]
    end = [] if classifies else [tokenizer.eos_token_id]
    batch = padded([tokenizer(row["text"]).input_ids + end for row in found], tokenizer.eos_token_id)
    labels = (torch.tensor([LABELS.index(row["label"]) for row in found]) if classifies
              else batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100))
    return {**batch, "labels": labels}


def trainer_run(folder, model, batch, base):
    """Trains four steps as a user of transformers does. Returns the folder of the last checkpoint."""
    dataset = [{key: value[i] for key, value in batch.items()} for i in range(ROWS)]
    arguments = TrainingArguments(str(folder), max_steps=4, save_steps=2, per_device_train_batch_size=4, learning_rate=1e-2,
                                  use_cpu=True, report_to="none", disable_tqdm=True)
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.pad_token = tokenizer.eos_token  # the Trainer gives it to the model
    Trainer(model, arguments, train_dataset=dataset, data_collator=default_data_collator, processing_class=tokenizer).train()
    last = folder / "checkpoint-4"
    assert {"optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json", "training_args.bin"} <= {
        path.name for path in last.iterdir()}
    return last


def config_of(base, rows):
    return {"model_config": {"pretrained_model_name": str(base), "frozen_dtype": "float32"},
            "trainer_config": {"max_steps": 1, "per_device_train_batch_size": ROWS, "train_sampling_strategy": "sequential",
                               "learning_rate": 1e-3},
            "data": {"train": str(rows)}}


def assert_told(ended, folder):
    told = [line for line in ended.err.splitlines() if "transformers' Trainer" in line]
    assert len(told) == 1 and str(folder) in told[0] and "step 4:" in told[0] and "not read" in told[0]


@pytest.mark.parametrize("classifies", (False, True))
def test_an_adapter_of_a_trainer_checkpoint(classifies, base, rows, cache, tmp_path):
    kind = AutoModelForSequenceClassification if classifies else AutoModelForCausalLM
    more = {"num_labels": 2, "pad_token_id": AutoTokenizer.from_pretrained(base).eos_token_id} if classifies else {}
    task = "SEQ_CLS" if classifies else "CAUSAL_LM"
    batch = batch_of(base, rows, classifies)
    model = get_peft_model(kind.from_pretrained(base, **more, **EXACT), LoraConfig(task_type=task, **LORA))
    last = trainer_run(tmp_path / "hf", model, batch, base)
    with torch.no_grad():
        expected = PeftModel.from_pretrained(kind.from_pretrained(base, **more, **EXACT), last).eval()(**batch).loss.item()
        before = kind.from_pretrained(base, **more, **EXACT).eval()(**batch).loss.item()
    assert abs(expected - before) > 1e-3
    config = config_of(base, rows)
    config["peft_config"] = {**LORA, "task_type": task, "init_from": str(last)}
    if classifies:
        config["data"]["label_names"] = LABELS
    run, ended = train(tmp_path, cache, config)
    assert losses(run) == pytest.approx([expected], abs=1e-5)
    assert_told(ended, last)
    # A resume starts from the run's own checkpoint.
    config["trainer_config"].update(save_strategy="steps", save_steps=1, max_steps=1)
    again = common.Run(tmp_path / "again", common.merged(QUICK, config), trainer_config=config["trainer_config"],
                       runtime={**QUICK["runtime"], "cache_dir": str(cache)})
    assert_told(again.train(0).expect(0), last)
    assert "transformers' Trainer" not in again.train(0).expect(0).err


def test_a_whole_model_of_a_trainer_checkpoint(base, rows, cache, tmp_path):
    batch = batch_of(base, rows, classifies=False)
    last = trainer_run(tmp_path / "hf", AutoModelForCausalLM.from_pretrained(base, **EXACT), batch, base)
    with torch.no_grad():
        expected = AutoModelForCausalLM.from_pretrained(last, **EXACT).eval()(**batch).loss.item()
    config = config_of(last, rows)
    config["peft_config"] = {**LORA, "task_type": "CAUSAL_LM"}
    run, ended = train(tmp_path, cache, config)
    assert losses(run) == pytest.approx([expected], abs=1e-5)
    assert_told(ended, last)
    # Without peft_config, and with a state file that says nothing.
    (last / "trainer_state.json").write_text("{")
    del config["peft_config"]
    run, ended = train(tmp_path / "full", cache, config)
    assert losses(run) == pytest.approx([expected], abs=1e-5)
    assert "of an unknown step" in ended.err


def test_another_folder_has_no_such_line(base, rows, cache, tmp_path):
    config = config_of(base, rows)
    config["peft_config"] = {**LORA, "task_type": "CAUSAL_LM"}
    _, ended = train(tmp_path, cache, config)
    assert "transformers' Trainer" not in ended.err
