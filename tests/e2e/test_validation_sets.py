# SPDX-License-Identifier: Apache-2.0
"""Several validation sets with names: the numbers of each alone, under the names that Hugging Face's Trainer gives."""

import json

import common
import pytest
import tiny_model
from common import LABELS, Run, make_config, merged
from runs import adapter, assert_equal, assert_one_message
from trainer_replay import OneNumber
from transformers import Trainer, TrainingArguments

USAGE = 2


@pytest.fixture(scope="module")
def hard(tmp_path_factory):
    path = tmp_path_factory.mktemp("hard") / "hard.jsonl"
    tiny_model.write_classification_jsonl(path, 17, LABELS[1:] + LABELS[:1], seed=3)  # other labels than in training
    return path


@pytest.fixture(scope="module")
def config(data, cache, hard):
    trainer = {"eval_steps": 3, "save_steps": 4, "load_best_model_at_end": True, "learning_rate": 3e-2}
    return merged(make_config("classification", data, cache), {
        "trainer_config": {**trainer, "metric_for_best_model": "hard_loss"},
        "data": {"validation": {"dev": str(data / "validation.jsonl"), "hard": [str(hard)]}}})


@pytest.fixture(scope="module")
def whole(tmp_path_factory, config):
    run = Run(tmp_path_factory.mktemp("whole") / "run", config)
    run.train(1).expect(0)
    return run


def alone(folder, config, path):
    run = Run(folder, config, data={"validation": str(path)}, trainer_config={"metric_for_best_model": "loss"})
    run.train(0).expect(0)
    return run


def renamed(event, name):
    return {key.replace("eval_", f"eval_{name}_", 1): value for key, value in event.items()}


def of_set(run, name):
    return [event for event in run.evaluations() if any(key.startswith(f"eval_{name}_") for key in event)]


def without_clock(events):
    return [{key: value for key, value in event.items() if "runtime" not in key and "per_second" not in key}
            for event in events]


def test_each_set_has_the_numbers_that_it_has_alone_and_one_decides(tmp_path, config, whole, data, hard):
    for name, path in (("dev", data / "validation.jsonl"), ("hard", hard)):
        single = alone(tmp_path / name, config, path)
        assert without_clock(of_set(whole, name)) == [renamed(event, name) for event in single.evaluations()]
        same_best = all((adapter(single.folder / "adapter")[key] == value).all()
                        for key, value in adapter(whole.folder / "adapter").items())
        assert same_best == (name == "hard"), "the sets were to choose other models"


def test_the_names_are_those_of_hugging_face(tmp_path, whole):
    rows = [{"x": value} for value in (1.0, 2.0)]
    trainer = Trainer(OneNumber(), TrainingArguments(str(tmp_path), use_cpu=True, report_to="none"),
                      eval_dataset={"dev": rows, "hard": rows}, train_dataset=rows)
    live = {key for key in trainer.evaluate() if not key.endswith(("steps_per_second", "model_preparation_time"))}
    own = {key for event in whole.events("eval") for key in event}
    assert {"eval_dev_loss", "eval_hard_loss", "eval_dev_runtime"} <= live <= own | {"epoch"}


def test_kill_and_other_ranks_change_no_bit(tmp_path, config, whole):
    run = Run(tmp_path / "run", config)
    assert run.train(2, NEOLOOM_FAULT="kill:rank=1:step=11").code != 0
    run.train(3).expect(0)
    assert run.state() == whole.state()
    assert_equal(adapter(run.folder / "adapter"), adapter(whole.folder / "adapter"))


def test_evaluate_and_plan_take_all_sets(whole, config):
    ended = common.neoloom(0, "evaluate", "--run", whole.folder).expect(0)
    values = json.loads(ended.out)
    assert {"eval_dev_loss", "eval_hard_loss", "eval_dev_per_class", "eval_hard_per_class"} <= values.keys()
    assert "eval_loss" not in values
    plan = common.neoloom(0, "plan", "--config", whole.config_file).expect(0).out
    assert "validation data dev" in plan and "validation data hard" in plan


@pytest.mark.parametrize("metric", ["eval_loss", "eval_eval_loss"])
def test_a_set_may_be_named_eval(tmp_path, config, data, metric):
    run = Run(tmp_path / "run", config, data={"validation": {"eval": str(data / "validation.jsonl")}},
              trainer_config={"metric_for_best_model": metric, "max_steps": 4})
    run.train(0).expect(0)
    assert [event["eval_eval_loss"] for event in run.events("eval")]


@pytest.mark.parametrize("changes, words", [
    ({"trainer_config": {"metric_for_best_model": "loss"}}, ['gives no "loss"', "dev_loss", "hard_accuracy"]),
    ({"trainer_config": {"metric_for_best_model": "eval_easy_loss"}}, ['gives no "eval_easy_loss"']),
    ({"data": {"validation": {"a b": "x.csv"}}}, ["data.validation", '"a b"', "expected a name of letters"]),
    ({"data": {"validation": {"dev": ""}}}, ["data.validation.dev: expected a file"]),
], ids=["no set", "unknown set", "name", "empty"])
def test_names_that_do_not_fit_are_refused(tmp_path, config, changes, words):
    assert_one_message(Run(tmp_path / "run", config, **changes).train(0).expect(USAGE), *words)
