# SPDX-License-Identifier: Apache-2.0
"""The model card of a result, read by huggingface_hub as the hub reads it, beside the card that PEFT writes."""

import contextlib
import io
import json
import re

import pytest
import tiny_model
from huggingface_hub import ModelCard
from peft import LoraConfig, PeftModel, get_peft_model
from runs import command, json_lines, train, write_jsonl
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

ODD = ['spam: "yes" | no', "- 1", "café 😀\u00a0\x7f", "null", "<b>\n"]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny_model.make_model_folder(tmp_path_factory.mktemp("base") / "base", std=0.3)


def rows(labels, count=24):
    return [{"text": text, "label": labels[i % len(labels)]}
            for i, text in enumerate(tiny_model.sample_texts(count=count, seed=5))]


@pytest.fixture(scope="module")
def classifier(base, tmp_path_factory, cache):
    folder = tmp_path_factory.mktemp("classifier")
    write_jsonl(folder / "train.jsonl", rows(["ham", "spam"]))
    write_jsonl(folder / "dev.jsonl", rows(["ham", "spam"], 11))
    config = {"model_config": {"pretrained_model_name": str(base)}, "peft_config": {"task_type": "SEQ_CLS", "r": 2},
              "trainer_config": {"max_steps": 3, "eval_strategy": "steps", "eval_steps": 2, "learning_rate": 1e-5},
              "data": {"train": str(folder / "train.jsonl"), "validation": str(folder / "dev.jsonl")}}
    return train(folder, cache, config)[0]


def card_of(folder):
    return ModelCard.load(folder / "README.md")


def peft_card(base, folder, model, **config):
    get_peft_model(model.from_pretrained(base), LoraConfig(r=2, **config)).save_pretrained(folder)
    return card_of(folder)


def test_the_metadata_are_pefts_and_name_task_labels_and_metrics(classifier, base, tmp_path):
    ours = card_of(classifier.folder / "adapter").data.to_dict()
    theirs = peft_card(base, tmp_path / "peft", AutoModelForSequenceClassification, task_type="SEQ_CLS").data.to_dict()
    assert {key: ours[key] for key in ("base_model", "library_name")} == {
        key: theirs[key] for key in ("base_model", "library_name")}
    assert set(theirs["tags"]) <= set(ours["tags"])
    assert ours["pipeline_tag"] == "text-classification"
    assert ours["labels"] == ["ham", "spam"]
    assert ours["model-index"][0]["name"] == "run"
    evaluation = classifier.events("eval")[-1]
    found = {result.metric_name: result for result in card_of(classifier.folder / "adapter").data.eval_results}
    for name in ("accuracy", "loss", "macro_f1", "expected_calibration_error"):
        assert found[name].metric_value == pytest.approx(evaluation[f"eval_{name}"], rel=1e-5)
        assert (found[name].dataset_name, found[name].task_type) == ("dev.jsonl", "text-classification")
    assert found["macro_f1"].metric_type == "f1"
    assert set(found) == {key.removeprefix("eval_") for key, value in evaluation.items() if key.startswith("eval_")
                          and isinstance(value, float) and key not in ("eval_runtime", "eval_samples_per_second")}


def test_the_text_tells_how_it_was_made_without_paths(classifier):
    text = card_of(classifier.folder / "adapter").text
    assert "train.jsonl, 24 samples" in text and "1e-05, linear" in text and "r 2, lora_alpha 8" in text
    assert "Of 11 samples of dev.jsonl, after step 3:" in text
    assert str(classifier.folder) not in text


def block(text, language):
    return re.search(rf"```{language}\n(.*?)```", text, re.S)[1]


def test_its_commands_run_where_it_lies_and_agree(classifier, cache, monkeypatch):
    folder = classifier.folder / "adapter"
    text = card_of(folder).text
    monkeypatch.chdir(folder)
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(block(text, "python"), {})
    new = folder.parent / "new.csv"
    new.write_text("text\na text\n")
    words = block(text, "bash").strip().replace("new.csv", str(new)).split()
    assert words[0] == "neoloom"
    [line] = json_lines(command(cache, *words[1:]))
    assert line["label"] == said.getvalue().strip()


def test_names_that_yaml_would_misread_come_back(base, tmp_path, cache):
    write_jsonl(tmp_path / "train.jsonl", rows(ODD))
    config = {"model_config": {"pretrained_model_name": str(base)}, "trainer_config": {"max_steps": 1},
              "peft_config": {"task_type": "SEQ_CLS", "r": 2}, "data": {"train": str(tmp_path / "train.jsonl")}}
    run, _ = train(tmp_path, cache, config)
    card = card_of(run.folder / "adapter")
    labels = json.loads((run.folder / "adapter/config.json").read_text())["id2label"]
    assert card.data.to_dict()["labels"] == [labels[str(i)] for i in range(len(ODD))]
    assert sorted(card.data.to_dict()["labels"]) == sorted(ODD)
    assert card.data.eval_results is None, "there was no evaluation"
    assert "spam: \"yes\" \\| no" in card.text and "&lt;b> " in card.text


def test_each_validation_set_is_told_under_the_name_of_its_file(base, tmp_path, cache):
    write_jsonl(tmp_path / "train.jsonl", rows(["ham", "spam"]))
    for number, name in enumerate(("a.jsonl", "b.jsonl")):
        write_jsonl(tmp_path / name, rows(["ham", "spam"], 11)[number:])
    config = {"model_config": {"pretrained_model_name": str(base)}, "peft_config": {"task_type": "SEQ_CLS", "r": 2},
              "trainer_config": {"max_steps": 2, "eval_strategy": "steps", "eval_steps": 2},
              "data": {"train": str(tmp_path / "train.jsonl"),
                       "validation": {"dev": str(tmp_path / "a.jsonl"), "dev_hard": str(tmp_path / "b.jsonl")}}}
    run, _ = train(tmp_path, cache, config)
    card = card_of(run.folder / "adapter")
    told = {(result.dataset_name, result.metric_name): result.metric_value for result in card.data.eval_results}
    evaluation = {key: value for event in run.events("eval") for key, value in event.items()}
    for file, name in (("a.jsonl", "dev"), ("b.jsonl", "dev_hard")):
        for metric in ("loss", "accuracy"):
            assert told[file, metric] == pytest.approx(evaluation[f"eval_{name}_{metric}"], rel=1e-5)
    assert not any(metric.startswith("hard_") for _, metric in told)
    assert "Of 11 samples of a.jsonl, after step 2:" in card.text and "Of 10 samples of b.jsonl" in card.text


def test_a_language_model_says_so_and_an_export_keeps_the_card(base, tmp_path, cache):
    write_jsonl(tmp_path / "train.jsonl", [{"text": row["text"]} for row in rows(["x"])])
    config = {"model_config": {"pretrained_model_name": str(base)}, "trainer_config": {"max_steps": 1},
              "peft_config": {"task_type": "CAUSAL_LM", "r": 2}, "data": {"train": str(tmp_path / "train.jsonl")}}
    run, _ = train(tmp_path, cache, config)
    theirs = peft_card(base, tmp_path / "peft", AutoModelForCausalLM, task_type="CAUSAL_LM").data
    ours = card_of(run.folder / "adapter").data
    assert ours.pipeline_tag == theirs.pipeline_tag == "text-generation"
    command(cache, "export", "--run", run.folder, "--output", tmp_path / "copy")
    assert (tmp_path / "copy/README.md").read_text() == (run.folder / "adapter/README.md").read_text()
    command(cache, "export", "--run", run.folder, "--format", "merged", "--output", tmp_path / "merged")
    merged = card_of(tmp_path / "merged").data.to_dict()
    assert merged["library_name"] == "transformers" and merged["base_model"] == str(base)
    assert f"base_model:finetune:{base}" in merged["tags"]


def test_peft_goes_on_with_the_card(classifier, base, tmp_path):
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=2)
    adapter = PeftModel.from_pretrained(model, classifier.folder / "adapter")
    (tmp_path / "again").mkdir()
    (tmp_path / "again/README.md").write_text((classifier.folder / "adapter/README.md").read_text())
    adapter.save_pretrained(tmp_path / "again")
    again, ours = card_of(tmp_path / "again"), card_of(classifier.folder / "adapter")
    assert again.data.eval_results == ours.data.eval_results
    assert "- PEFT " in again.text and "## Evaluation" in again.text
