# SPDX-License-Identifier: Apache-2.0
"""NEFTune's noise and the dropouts of config.json: in training only, with the same bits over ranks, kills and recomputation."""

import json
import shutil

import pytest
from common import Run, make_config, merged, neoloom

USAGE = 2
NOISE = {
    "trainer_config": {"neftune_noise_alpha": 5.0, "eval_on_start": True},
    "model_config": {"embed_dropout": 0.1, "resid_dropout": 0.2, "attention_dropout": 0.3},
}


@pytest.fixture(scope="module", params=["classification", "causal_lm", "full"])
def config(request, data, cache):
    kind = "causal_lm" if request.param == "causal_lm" else "classification"
    config = merged(make_config(kind, data, cache, "float32" if request.param == "full" else "float16"), NOISE)
    if request.param == "full":
        del config["peft_config"]
    return config


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, config):
    run = Run(tmp_path_factory.mktemp("undisturbed") / "run", config)
    run.train(1).expect(0)
    return run


def assert_same_end(run, expected):
    assert run.losses() == expected.losses()
    assert run.evaluations() == expected.evaluations()
    if (expected.folder / "adapter").is_dir():
        assert run.state() == expected.state()


@pytest.mark.parametrize("ranks", [2, 3, 4])
def test_any_number_of_ranks_gives_the_same_bits(tmp_path, config, undisturbed, ranks):
    run = Run(tmp_path / "run", config)
    run.train(ranks).expect(0)
    assert_same_end(run, undisturbed)


def test_a_killed_run_ends_with_the_same_bits_on_other_ranks(tmp_path, config, undisturbed):
    run = Run(tmp_path / "run", config)
    killed = run.train(2, NEOLOOM_FAULT="kill:rank=1:step=8")
    assert killed.code != 0
    run.train(3).expect(0)
    assert run.events("resume")
    assert_same_end(run, undisturbed)


def test_recomputed_blocks_draw_the_same_masks(tmp_path, config, undisturbed):
    run = Run(tmp_path / "run", config, trainer_config={"gradient_checkpointing": True})
    run.train(1).expect(0)
    assert_same_end(run, undisturbed)


def test_evaluations_are_free_of_it_and_each_kind_changes_training(tmp_path, config, undisturbed):
    start = undisturbed.evaluations()[0]
    assert start["step"] == 0
    losses = [undisturbed.losses()[0][2]]
    for number, change in enumerate(
        [
            {"trainer_config": {"neftune_noise_alpha": None}},
            {"model_config": {"embed_dropout": 0.0}},
            {"model_config": {"resid_dropout": 0.0}},
            {"model_config": {"attention_dropout": 0.0}},
        ]
    ):
        run = Run(tmp_path / f"run{number}", merged(config, change), trainer_config={"max_steps": 1})
        run.train(1).expect(0)
        first = run.evaluations()[0]
        assert {k: v for k, v in first.items() if k != "epoch"} == {k: v for k, v in start.items() if k != "epoch"}
        losses.append(run.losses()[0][2])
    assert len(set(losses)) == 5


class TestConfigJson:
    @pytest.fixture
    def config(self, data, cache):
        return make_config("classification", data, cache)

    def base_with(self, tmp_path, data, **values):
        folder = tmp_path / "base"
        shutil.copytree(data / "base", folder)
        path = folder / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **values}))
        return {"model_config": {"pretrained_model_name": str(folder)}, "trainer_config": {"max_steps": 3}}

    @pytest.mark.parametrize("key", ["embed_dropout", "resid_dropout", "attention_dropout"])
    def test_its_dropouts_are_those_of_training(self, tmp_path, data, config, key):
        by_file = Run(tmp_path / "file", merged(config, self.base_with(tmp_path, data, **{key: 0.2})))
        by_file.train(1).expect(0)
        by_key = Run(tmp_path / "key", config, model_config={key: 0.2}, trainer_config={"max_steps": 3})
        by_key.train(1).expect(0)
        assert by_file.losses() == by_key.losses()
        off = merged(by_file.config, {"model_config": {key: 0.0}})
        without = Run(tmp_path / "off", off)
        without.train(1).expect(0)
        plain = Run(tmp_path / "plain", config, trainer_config={"max_steps": 3})
        plain.train(1).expect(0)
        assert without.losses() == plain.losses() != by_file.losses()
        refused = Run(by_file.folder, by_file.config, model_config={key: 0.1}).train(1).expect(USAGE)
        assert f"config.json of the base: {key}: was 0.2, is 0.1" in refused.err
        assert neoloom(0, "evaluate", "--run", by_file.folder, "--data", config["data"]["validation"]).expect(0)

    def test_a_dropout_of_everything_is_refused_with_the_way_out(self, tmp_path, data, config):
        asked = merged(config, self.base_with(tmp_path, data, attention_dropout=1.0))
        refused = Run(tmp_path / "run", asked).train(1).expect(USAGE)
        assert "attention_dropout 1" in refused.err and "model_config" in refused.err
        Run(tmp_path / "run", asked, model_config={"attention_dropout": 0}).train(1).expect(0)
