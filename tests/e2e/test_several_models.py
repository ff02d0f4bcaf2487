# SPDX-License-Identifier: Apache-2.0
"""Several adapters on one base in one command: what each says alone, under its name, and the base loaded once."""

import json

import common
import pytest
import tiny_model
from runs import assert_one_message, command, json_lines, train, write_jsonl

USAGE = 2
CLOCK = ("eval_runtime", "eval_samples_per_second")
LABELS = {"first": ["ham", "spam"], "second": ["ham", "maybe", "spam"]}


def rows(labels, count, seed):
    return [{"text": text, "label": labels[i % len(labels)]}
            for i, text in enumerate(tiny_model.sample_texts(count=count, seed=seed))]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny_model.make_model_folder(tmp_path_factory.mktemp("base") / "base", std=0.3)


@pytest.fixture(scope="module")
def trained(base, tmp_path_factory, cache):
    """Two runs on one base, with other labels and ranks of the adapters."""
    runs = {}
    for number, (name, labels) in enumerate(LABELS.items()):
        folder = tmp_path_factory.mktemp(name)
        write_jsonl(folder / "train.jsonl", rows(labels, 24, number))
        config = {"model_config": {"pretrained_model_name": str(base), "frozen_dtype": "float32"},
                  "peft_config": {"task_type": "SEQ_CLS", "r": 2 + 2 * number},
                  "trainer_config": {"max_steps": 4, "learning_rate": 1e-2, "seed": number},
                  "data": {"train": str(folder / "train.jsonl")}}
        runs[name] = train(folder, cache, config)[0].folder
    return runs


@pytest.fixture(scope="module")
def new(tmp_path_factory):
    return write_jsonl(tmp_path_factory.mktemp("new") / "new.jsonl", rows(["ham", "spam"], 21, 7) + [{"text": 7}])


def without_clock(result):
    return {key: value for key, value in result.items() if key not in CLOCK}


@pytest.mark.parametrize("ranks", (0, 2))
def test_each_is_evaluated_as_it_is_alone(trained, base, new, cache, ranks):
    tolerance = ("--data", new, "--set", "data.invalid_data_tolerance_percent=50", "--set", "data.label_column=label")
    models = [word for name in trained for word in ("--adapter", f"{name}={trained[name] / 'adapter'}")]
    both = json.loads(command(cache, "evaluate", "--model", base, *models, *tolerance, ranks=ranks))
    assert list(both) == list(trained)
    for name, folder in trained.items():
        alone = json.loads(command(cache, "evaluate", "--model", base, "--adapter", folder / "adapter", *tolerance))
        assert without_clock(both[name]) == without_clock(alone)
        assert both[name]["eval_labels"] == LABELS[name]


@pytest.mark.parametrize("ranks", (0, 3))
def test_each_predicts_as_it_does_alone(trained, new, cache, ranks):
    models = [word for name in trained for word in ("--run", f"{name}={trained[name]}")]
    together = json_lines(command(cache, "predict", *models, "--input", new, "--keep", "label", ranks=ranks))
    for name, folder in trained.items():
        alone = json_lines(command(cache, "predict", "--run", folder, "--input", new))
        for line, expected in zip(together, alone, strict=True):
            assert {"index": line["index"], **line[name]} == expected
    assert list(together[0]) == ["index", "label", *trained], "a kept label is in nobody's way"
    words = [f"{name}={folder}" for name, folder in trained.items()]
    listed = command(cache, "predict", "--run", *words, "--input", new, "--keep", "label", ranks=ranks)
    assert json_lines(listed) == together, "as report takes them"
    assert together[-1]["first"]["label"] is None and "error" in together[-1]["second"]


def test_folders_give_the_names_and_the_base_is_mapped_once(trained, base, new, cache, tmp_path):
    for name, folder in trained.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "adapter").symlink_to(folder / "adapter")
    models = [word for name in trained for word in ("--adapter", tmp_path / name / "adapter")]
    lines = json_lines(command(cache, "predict", "--model", base, *models, "--input", new))
    assert list(lines[0]) == ["index", *trained]
    ended = common.neoloom(0, "evaluate", "--model", base, *models, "--data", new, "--set", f"runtime.cache_dir={cache}",
                           "--set", "data.invalid_data_tolerance_percent=50", "--set", "logging.level=debug").expect(0)
    assert ended.err.count("loading weights") == 1, ended.err


def test_models_that_cannot_stand_together_are_named(trained, base, new, cache, tmp_path):
    other = tiny_model.make_model_folder(tmp_path / "other", std=0.3, seed=9)
    write_jsonl(tmp_path / "train.jsonl", rows(["ham", "spam"], 12, 1))
    config = {"model_config": {"pretrained_model_name": str(other)}, "trainer_config": {"max_steps": 1},
              "peft_config": {"task_type": "SEQ_CLS"}, "data": {"train": str(tmp_path / "train.jsonl")}}
    run, _ = train(tmp_path, cache, config)

    def refused(*models):
        words = [word for model in models for word in ("--run", model)]
        return common.neoloom(0, "predict", *words, "--input", new, "--set", f"runtime.cache_dir={cache}").expect(USAGE)

    assert_one_message(refused(f"first={trained['first']}", f"b={run.folder}"), "first and b do not share one base",
                       other)
    assert_one_message(refused(trained["first"], trained["first"]), 'the name "run" stands for two models', "--run NAME=")
    assert_one_message(refused(f"index={trained['first']}"), 'the name "index"')
