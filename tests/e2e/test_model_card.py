# SPDX-License-Identifier: Apache-2.0
"""The model card of a result, read by huggingface_hub as the hub reads it, beside the card that PEFT writes."""

import contextlib
import io
import json
import re
import shlex

import common
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


def python_of_card(text):
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(block(text, "python"), {})
    return said.getvalue().strip()


def same_output(cache, text, run, more=(), **places):
    """Runs the card's command, and the same command with --run, with the words of `more`. Expects the same output."""
    settings = ["runtime.device=cpu", "runtime.threads_per_rank=1", f"runtime.cache_dir={cache}"]
    end = [*more, *(word for setting in settings for word in ("--set", setting))]
    words = [str(places.get(word.replace(".", "_"), word)) for word in shlex.split(block(text, "bash"))]
    assert words[0] == "neoloom"
    found = common.neoloom(0, *words[1:], *end).expect(0).out
    about_model = words.index("--input") if "--input" in words else words.index("--prompt")
    kept = words[about_model:]
    assert found == common.neoloom(0, words[1], "--run", run.folder, *kept, *end).expect(0).out
    return found


def test_its_commands_run_where_it_lies_and_agree(classifier, cache, monkeypatch, tmp_path):
    folder = classifier.folder / "adapter"
    text = card_of(folder).text
    monkeypatch.chdir(folder)
    new = tmp_path / "new.csv"
    new.write_text("text\na text\n")
    [line] = json_lines(same_output(cache, text, classifier, new_csv=new))
    assert line["label"] == python_of_card(text)
    assert "--set" not in block(text, "bash")
    assert 'a text was the column "text". Texts longer than the positions of the model were cut' in text


def scores_run(base, tmp_path, cache, columns, **config):
    """Trains on rows of these columns, in which scores differ by the tokens that remain."""
    texts = iter(tiny_model.sample_texts(count=24 * len(columns), seed=5))
    write_jsonl(tmp_path / "train.jsonl",
                [{**{name: next(texts) for name in columns}, "label": ["ham", "spam"][i % 2]} for i in range(24)])
    config = {"model_config": {"pretrained_model_name": str(base)}, "peft_config": {"task_type": "SEQ_CLS", "r": 2},
              "trainer_config": {"max_steps": 2}, **config,
              "data": {"train": str(tmp_path / "train.jsonl"), **config.get("data", {})}}
    return train(tmp_path, cache, {key: value for key, value in config.items() if value})[0]


SETTINGS = {
    "cut at the start": ({"max_length": 4, "truncation_side": "left"}, {}, "4 tokens were cut (truncation_side: left)"),
    "windows": ({"max_length": 4, "return_overflowing_tokens": True, "stride": 1}, {},
                "4 tokens became windows with stride 1, and the mean of their logits counts"),
    "pair": ({"max_length": 5}, {"text_column": "first one", "text_pair_column": "second"},
             'the pair of the columns "first one" and "second"'),
}


@pytest.mark.parametrize("tokenizer, data, said", SETTINGS.values(), ids=SETTINGS.keys())
def test_its_commands_see_a_text_as_the_run_does(base, tmp_path, cache, monkeypatch, tokenizer, data, said):
    columns = list(data.values()) or ["text"]
    run = scores_run(base, tmp_path, cache, columns, data=data, tokenizer_config=tokenizer)
    folder = run.folder / "adapter"
    text = card_of(folder).text
    assert said in text
    monkeypatch.chdir(folder)
    words = tiny_model.sample_texts(count=2, seed=9)
    new = tmp_path / "new.csv"
    new.write_text("\n".join([",".join(columns), ",".join(" ".join(words) for _ in columns)]) + "\n")
    [line] = json_lines(same_output(cache, text, run, new_csv=new))
    code = block(text, "python")
    assert '"a text"' in code
    code = code.replace('"a text"', json.dumps(" ".join(words))).replace('"another text"', json.dumps(" ".join(words)))
    values = {}
    with contextlib.redirect_stdout(io.StringIO()):
        exec(code, values)
    expected = values["logits"].softmax(-1).tolist()
    assert list(line["scores"].values()) == pytest.approx(expected, abs=1e-4), "the run has float16 weights"
    plain = command(cache, "predict", "--run", run.folder, "--input", new, "--set", "tokenizer_config.max_length=60")
    assert json_lines(plain)[0]["scores"] != line["scores"], "nothing was cut"


def test_whole_weights_are_used_as_the_run_computed(base, tmp_path, cache, monkeypatch):
    run = scores_run(base, tmp_path, cache, ["text"], peft_config=None,
                     model_config={"pretrained_model_name": str(base), "frozen_dtype": "bfloat16",
                                   "problem_type": "single_label_classification"})
    monkeypatch.chdir(run.folder / "model")
    new = tmp_path / "new.csv"
    new.write_text("text\n" + "\n".join(tiny_model.sample_texts(count=8, seed=9)) + "\n")
    same_output(cache, card_of(run.folder / "model").text, run, new_csv=new)


TEMPLATE = "Q: {question}\nHint's: {?hint}{hint}{/hint}\nA:{answer}"


@pytest.mark.parametrize("data, row, start", [
    ({"template": TEMPLATE}, {"question": "a b", "hint": "", "answer": "c"}, "Q: Once\nHint's: \nA:"),
    ({"messages_column": "turns"}, {"turns": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},
     "### User:\nOnce\n\n### Assistant:\n"),
])
def test_a_language_models_command_applies_its_template(base, tmp_path, cache, monkeypatch, data, row, start):
    write_jsonl(tmp_path / "train.jsonl", [row] * 8)
    config = {"model_config": {"pretrained_model_name": str(base)}, "trainer_config": {"max_steps": 1},
              "peft_config": {"task_type": "CAUSAL_LM", "r": 2}, "data": {"train": str(tmp_path / "train.jsonl"), **data}}
    run, _ = train(tmp_path, cache, config)
    text = card_of(run.folder / "adapter").text
    monkeypatch.chdir(run.folder / "adapter")
    [line] = json_lines(same_output(cache, text, run, ["--temperature", "0", "--json"]))
    assert line["prompt"] == start
    assert python_of_card(text.replace("max_new_tokens=50", "max_new_tokens=5")).startswith(start.strip())


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
